-- Journeys by Message-ID. `period` and `rest` are the queue id in two parts: what comes in the same quarter of an hour
-- stands together, so that a new row finds its page in memory. `hash` is of the Message-ID; the event has it whole.
CREATE TABLE message_ids(
    period TEXT NOT NULL,
    hash INTEGER NOT NULL,
    rest TEXT NOT NULL,
    PRIMARY KEY (period, hash, rest)
) STRICT, WITHOUT ROWID;
-- Journeys by the words of a reply, whose text stands in the event only.
CREATE TABLE replies(
    reply INTEGER PRIMARY KEY,
    queue_id TEXT NOT NULL,
    at REAL NOT NULL
) STRICT;
CREATE INDEX replies_by_message ON replies(queue_id);
CREATE VIRTUAL TABLE reply_words USING fts5(words, content='', contentless_delete=1, detail=none, tokenize='ascii');
INSERT INTO reply_words(reply_words, rank) VALUES ('automerge', 16);
