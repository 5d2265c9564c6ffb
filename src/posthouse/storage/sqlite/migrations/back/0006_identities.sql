-- Older programs know no other server than the domain's own: what must leave through an identity's waits for somebody.
UPDATE spool SET held = 1 WHERE via <> '' AND held = 0;
DROP TABLE identities;
