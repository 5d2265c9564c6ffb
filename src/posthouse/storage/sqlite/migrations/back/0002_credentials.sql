-- What the first schema cannot check: app passwords. Main passwords stay, without their SCRAM keys.
DELETE FROM credentials WHERE kind <> 'password';
ALTER TABLE credentials DROP COLUMN scram_server_key;
ALTER TABLE credentials DROP COLUMN scram_stored_key;
DROP TABLE secrets;
