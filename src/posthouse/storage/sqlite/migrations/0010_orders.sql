-- What operators ordered to be done to rows of the spool and is not done yet, step by step: `keys` is a JSON array of
-- [queue id, recipient number]. None of these rows is claimed, and none may be before its step is done.
CREATE TABLE orders(
    step INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    action TEXT NOT NULL,
    operator TEXT NOT NULL,
    keys TEXT NOT NULL
) STRICT;
