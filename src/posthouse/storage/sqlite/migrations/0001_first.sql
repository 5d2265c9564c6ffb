-- Times are Unix seconds. Texts that are addresses are split into local part (as spelled) and domain;
-- *_key is Address.key, the one spelling under which an address is found.

CREATE TABLE directory_version(
    one INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO directory_version VALUES (1, 1);

CREATE TABLE domains(
    domain TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Account numbers are never used twice; a removed account keeps its row.
CREATE TABLE accounts(
    account INTEGER PRIMARY KEY AUTOINCREMENT,
    login TEXT NOT NULL,
    login_key TEXT NOT NULL,
    quota_octets INTEGER,
    suspended INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    removed_at REAL,
    scram_salt BLOB NOT NULL,
    scram_iterations INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX accounts_by_login ON accounts(login_key) WHERE removed_at IS NULL;

CREATE TABLE credentials(
    credential INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts,
    kind TEXT NOT NULL,
    verifier TEXT NOT NULL,
    name TEXT NOT NULL DEFAULT '',
    created_at REAL NOT NULL,
    last_used_at REAL
) STRICT;
CREATE INDEX credentials_by_account ON credentials(account);

-- An empty local part stands for every address of the domain (a catch-all).
CREATE TABLE addresses(
    address_key TEXT PRIMARY KEY,
    local_part TEXT NOT NULL,
    domain TEXT NOT NULL REFERENCES domains,
    account INTEGER NOT NULL REFERENCES accounts
) STRICT, WITHOUT ROWID;
CREATE INDEX addresses_by_account ON addresses(account);
CREATE INDEX addresses_by_domain ON addresses(domain);

CREATE TABLE aliases(
    address_key TEXT PRIMARY KEY,
    local_part TEXT NOT NULL,
    domain TEXT NOT NULL REFERENCES domains
) STRICT, WITHOUT ROWID;
CREATE INDEX aliases_by_domain ON aliases(domain);

CREATE TABLE alias_targets(
    address_key TEXT NOT NULL REFERENCES aliases ON DELETE CASCADE,
    target_number INTEGER NOT NULL,
    local_part TEXT NOT NULL,
    domain TEXT NOT NULL,
    target_key TEXT NOT NULL,
    PRIMARY KEY (address_key, target_number)
) STRICT, WITHOUT ROWID;
CREATE INDEX alias_targets_by_target ON alias_targets(target_key);

-- Small content is in `octets`, large content in the file that `file` names, relative to content/.
CREATE TABLE contents(
    content INTEGER PRIMARY KEY,
    size_octets INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    codec TEXT NOT NULL DEFAULT '',
    file TEXT,
    octets BLOB,
    CHECK ((file IS NULL) <> (octets IS NULL))
) STRICT;
CREATE UNIQUE INDEX contents_by_file ON contents(file) WHERE file IS NOT NULL;

CREATE TABLE messages(
    queue_id TEXT PRIMARY KEY,
    content INTEGER NOT NULL REFERENCES contents ON DELETE RESTRICT,
    accepted_at REAL NOT NULL,
    reverse_local_part TEXT,
    reverse_domain TEXT,
    prefix BLOB NOT NULL,
    ret TEXT,
    envelope_id TEXT,
    smtputf8 INTEGER NOT NULL,
    body TEXT NOT NULL,
    longest_line_octets INTEGER NOT NULL,
    eight_bit_header INTEGER NOT NULL,
    eight_bit_body INTEGER NOT NULL,
    dot_lines INTEGER NOT NULL,
    received_fields INTEGER NOT NULL,
    message_id TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX messages_by_content ON messages(content);

-- Messages that lost a reference; the sweep looks whether it was the last one.
CREATE TABLE unreferenced(
    since REAL NOT NULL,
    queue_id TEXT NOT NULL,
    PRIMARY KEY (since, queue_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE folders(
    folder INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts,
    name TEXT NOT NULL,
    uid_validity INTEGER NOT NULL,
    next_uid INTEGER NOT NULL DEFAULT 1,
    change_counter INTEGER NOT NULL DEFAULT 0,
    message_count INTEGER NOT NULL DEFAULT 0,
    used_octets INTEGER NOT NULL DEFAULT 0,
    UNIQUE (account, name)
) STRICT;

-- `content` is the message's own, repeated so that a listing needs no join. `changed` is the folder's
-- change counter when the entry last changed. `copy` is 0 for the entry that `accept` made, which is the only
-- one in its maildrop; copies made later count on and get a UIDL of their own.
CREATE TABLE entries(
    folder INTEGER NOT NULL REFERENCES folders,
    uid INTEGER NOT NULL,
    account INTEGER NOT NULL,
    queue_id TEXT NOT NULL REFERENCES messages ON DELETE RESTRICT,
    content INTEGER NOT NULL,
    uidl TEXT NOT NULL,
    copy INTEGER NOT NULL DEFAULT 0,
    size_octets INTEGER NOT NULL,
    flags TEXT NOT NULL,
    changed INTEGER NOT NULL,
    forward_local_part TEXT NOT NULL,
    forward_domain TEXT NOT NULL,
    prefix BLOB NOT NULL,
    PRIMARY KEY (folder, uid),
    UNIQUE (account, uidl)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX entries_by_message ON entries(queue_id, account, copy);

-- UIDLs that were imported stay used when their entry is gone; those that are queue ids need no such note.
CREATE TABLE imported_uidls(
    account INTEGER NOT NULL REFERENCES accounts,
    uidl TEXT NOT NULL,
    PRIMARY KEY (account, uidl)
) STRICT, WITHOUT ROWID;

CREATE TABLE incarnations(
    incarnation TEXT PRIMARY KEY,
    started_at REAL NOT NULL,
    dead INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE spool(
    queue_id TEXT NOT NULL REFERENCES messages ON DELETE RESTRICT,
    recipient_number INTEGER NOT NULL,
    forward_local_part TEXT NOT NULL,
    forward_domain TEXT NOT NULL,
    reverse_local_part TEXT,
    reverse_domain TEXT,
    via TEXT NOT NULL,
    domain TEXT NOT NULL,
    not_before REAL NOT NULL,
    expires_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    held INTEGER NOT NULL DEFAULT 0,
    delay_notified INTEGER NOT NULL DEFAULT 0,
    original_recipient TEXT,
    notify TEXT,
    identity TEXT,
    last_reply TEXT,
    claim_token TEXT,
    claim_incarnation TEXT,
    PRIMARY KEY (queue_id, recipient_number)
) STRICT, WITHOUT ROWID;
CREATE INDEX spool_by_destination ON spool(via, domain, not_before) WHERE held = 0 AND claim_token IS NULL;
CREATE INDEX spool_by_time ON spool(not_before) WHERE held = 0 AND claim_token IS NULL;
CREATE INDEX spool_by_claim ON spool(claim_incarnation) WHERE claim_token IS NOT NULL;

CREATE TABLE events(
    queue_id TEXT NOT NULL,
    event_number INTEGER NOT NULL,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    fields TEXT NOT NULL,
    PRIMARY KEY (queue_id, event_number)
) STRICT, WITHOUT ROWID;
CREATE INDEX events_refused ON events(queue_id) WHERE kind = 'refused';

CREATE TABLE parties(
    role TEXT NOT NULL,
    address_key TEXT NOT NULL,
    queue_id TEXT NOT NULL,
    PRIMARY KEY (role, address_key, queue_id)
) STRICT, WITHOUT ROWID;
