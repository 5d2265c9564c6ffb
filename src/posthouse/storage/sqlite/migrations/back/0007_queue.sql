-- Older programs know no sending limit: what it holds is held by an operator then, and the journey says it in their words.
UPDATE spool SET held = 1 WHERE held = 3;
UPDATE events SET kind = 'operated', fields = json_object(
    'action', 'hold', 'forward_paths', json(fields -> '$.forward_paths'), 'by', 'the sending limit'
) WHERE kind = 'held';
DROP TABLE limit_notices;
DROP TABLE sent;
DROP INDEX spool_by_limit;
ALTER TABLE accounts DROP COLUMN recipients_per_hour;
ALTER TABLE spool DROP COLUMN tried_at;
ALTER TABLE spool DROP COLUMN account;
