-- Keys that all processes of a house share, each made when first wanted.
CREATE TABLE secrets(
    name TEXT PRIMARY KEY,
    octets BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The SCRAM-SHA-256 keys of the same password, under the account's salt and iterations; both or neither.
ALTER TABLE credentials ADD COLUMN scram_stored_key BLOB;
ALTER TABLE credentials ADD COLUMN scram_server_key BLOB;
