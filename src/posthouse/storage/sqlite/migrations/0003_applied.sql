-- Which program brought the database to which schema. Every version reads it, older ones too: its shape never changes.
CREATE TABLE migrations(
    number INTEGER PRIMARY KEY,
    posthouse TEXT NOT NULL,
    applied_at REAL NOT NULL
) STRICT;
