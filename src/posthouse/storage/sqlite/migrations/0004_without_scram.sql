-- Who could not log in by SCRAM: asked for whenever the directory has changed.
CREATE INDEX credentials_without_scram ON credentials(account) WHERE scram_stored_key IS NULL;
