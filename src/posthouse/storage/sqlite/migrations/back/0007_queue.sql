-- Older programs know no sending limit: what it holds is held by an operator then.
UPDATE spool SET held = 1 WHERE held = 3;
DROP TABLE limit_notices;
DROP TABLE sent;
DROP INDEX spool_by_limit;
ALTER TABLE accounts DROP COLUMN recipients_per_hour;
ALTER TABLE spool DROP COLUMN tried_at;
ALTER TABLE spool DROP COLUMN account;
