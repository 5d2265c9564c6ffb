-- Which account handed a recipient in, and when it was tried last.
ALTER TABLE spool ADD COLUMN account INTEGER;
ALTER TABLE spool ADD COLUMN tried_at REAL;
-- What sending limits hold (`held` 3), by account: postmaster is told.
CREATE INDEX spool_by_limit ON spool(account, queue_id) WHERE held = 3;
-- How many recipients elsewhere an account may send to in an hour: NULL what the configuration says, 0 any number.
ALTER TABLE accounts ADD COLUMN recipients_per_hour INTEGER;
-- How many it sent to, by minutes since 1970.
CREATE TABLE sent(
    account INTEGER NOT NULL,
    minute INTEGER NOT NULL,
    recipients INTEGER NOT NULL,
    PRIMARY KEY (account, minute)
) STRICT, WITHOUT ROWID;
-- When postmaster was told last that a limit was reached, and up to which message.
CREATE TABLE limit_notices(
    account INTEGER PRIMARY KEY,
    told_at REAL NOT NULL,
    up_to TEXT NOT NULL
) STRICT;
