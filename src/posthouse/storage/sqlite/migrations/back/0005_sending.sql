-- What may have been sent through an identity's own server would be sent again: somebody decides about it.
UPDATE spool SET held = 1 WHERE sending_at IS NOT NULL AND held = 0;
DROP INDEX spool_by_claim;
CREATE INDEX spool_by_claim ON spool(claim_incarnation) WHERE claim_token IS NOT NULL;
ALTER TABLE spool DROP COLUMN deaths;
ALTER TABLE spool DROP COLUMN sending_at;
