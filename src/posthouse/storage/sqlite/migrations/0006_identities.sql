-- Addresses of other houses' domains that an account may send as. `via` is the submission server ("host:port") that its
-- mail must leave through, or empty.
CREATE TABLE identities(
    address_key TEXT PRIMARY KEY,
    local_part TEXT NOT NULL,
    domain TEXT NOT NULL,
    account INTEGER NOT NULL REFERENCES accounts,
    via TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX identities_by_account ON identities(account);
CREATE INDEX identities_by_domain ON identities(domain);
