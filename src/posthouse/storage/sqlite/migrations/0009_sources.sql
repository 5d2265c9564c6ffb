-- Accounts at other houses that mail is collected from. `secret` says where the password is kept, never what it is.
CREATE TABLE sources(
    source INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts,
    address_key TEXT NOT NULL UNIQUE,
    local_part TEXT NOT NULL,
    domain TEXT NOT NULL,
    host TEXT NOT NULL,
    port INTEGER NOT NULL,
    protection TEXT NOT NULL,
    login TEXT NOT NULL,
    secret TEXT NOT NULL,
    mechanism TEXT NOT NULL,
    folder TEXT NOT NULL,
    keeping TEXT NOT NULL,
    keeping_days INTEGER NOT NULL,
    interval_s REAL NOT NULL,
    collected_at REAL,
    next_at REAL NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    failure TEXT NOT NULL DEFAULT '',
    refused INTEGER NOT NULL DEFAULT 0,
    empty INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX sources_by_account ON sources(account);
-- What was collected, by the server's own names. A row outlives its message here: it is what prevents a second copy.
CREATE TABLE collected(
    source INTEGER NOT NULL REFERENCES sources ON DELETE CASCADE,
    uidl TEXT NOT NULL,
    queue_id TEXT NOT NULL,
    size_octets INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    collected_at REAL NOT NULL,
    gone_at REAL,
    PRIMARY KEY (source, uidl)
) STRICT, WITHOUT ROWID;
