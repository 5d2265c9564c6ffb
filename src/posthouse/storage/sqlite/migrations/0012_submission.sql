-- The name that stands before an identity's address, and how it logs in at its own submission server. `secret` says
-- where the password is kept, never what it is; all four are empty where the configuration has the login.
ALTER TABLE identities ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE identities ADD COLUMN submission_login TEXT NOT NULL DEFAULT '';
ALTER TABLE identities ADD COLUMN secret TEXT NOT NULL DEFAULT '';
ALTER TABLE identities ADD COLUMN mechanism TEXT NOT NULL DEFAULT '';
ALTER TABLE identities ADD COLUMN protection TEXT NOT NULL DEFAULT '';
