-- What mail is listed and found by, of accounts that are read with `posthouse read`. All of it follows from the
-- messages: whatever is missing is made again.
CREATE TABLE read_accounts(
    account INTEGER PRIMARY KEY REFERENCES accounts,
    since REAL NOT NULL
) STRICT;
-- Of a folder, entries up to this uid have their rows.
CREATE TABLE read_folders(
    folder INTEGER PRIMARY KEY,
    up_to INTEGER NOT NULL
) STRICT;
-- `letter` is its time (seconds, above) and a number (20 bits, below): the newest have the greatest. `conversation` is
-- the `letter` that it began with. A row whose entry is gone is passed over, and removed later.
CREATE TABLE letters(
    letter INTEGER PRIMARY KEY,
    account INTEGER NOT NULL,
    queue_id TEXT NOT NULL,
    copy INTEGER NOT NULL,
    conversation INTEGER NOT NULL,
    sender TEXT NOT NULL,
    recipients TEXT NOT NULL,
    subject TEXT NOT NULL,
    attached INTEGER NOT NULL,
    parties TEXT NOT NULL,
    subject_hash INTEGER
) STRICT;
CREATE UNIQUE INDEX letters_by_entry ON letters(account, queue_id, copy);
CREATE INDEX letters_by_account ON letters(account);
CREATE INDEX letters_by_conversation ON letters(conversation);
CREATE INDEX letters_by_subject ON letters(account, subject_hash) WHERE subject_hash IS NOT NULL;
-- Message-IDs (their hashes) that messages of a conversation have or name.
CREATE TABLE conversation_ids(
    account INTEGER NOT NULL,
    hash INTEGER NOT NULL,
    conversation INTEGER NOT NULL,
    PRIMARY KEY (account, hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX conversation_ids_by_conversation ON conversation_ids(conversation);
CREATE VIRTUAL TABLE letter_words USING fts5(
    sender, recipients, subject, text, files,
    content='', contentless_delete=1, prefix='3', tokenize='unicode61 remove_diacritics 2'
);
