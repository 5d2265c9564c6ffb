DROP TABLE migrations;
-- Programs before this schema release only what they know as held.
UPDATE spool SET held = 1 WHERE held <> 0;
