-- Names and logins go; what is sent from now on needs the login in the configuration again. What waits already keeps its
-- way, which older programs cannot read: it goes on waiting.
UPDATE identities SET via = substr(via, 1, instr(via, ' as ') - 1) WHERE instr(via, ' as ') > 0;
ALTER TABLE identities DROP COLUMN protection;
ALTER TABLE identities DROP COLUMN mechanism;
ALTER TABLE identities DROP COLUMN secret;
ALTER TABLE identities DROP COLUMN submission_login;
ALTER TABLE identities DROP COLUMN name;
