-- Since when the final dot may have left for the identity's own server: after a crash its owner is asked, nothing is sent.
ALTER TABLE spool ADD COLUMN sending_at REAL;
-- How many processes in a row died with a claim on it.
ALTER TABLE spool ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;
-- Claims of a process, token by token.
DROP INDEX spool_by_claim;
CREATE INDEX spool_by_claim ON spool(claim_incarnation, claim_token) WHERE claim_token IS NOT NULL;
