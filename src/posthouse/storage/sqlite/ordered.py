"""The spool as it will be when all that is ordered is done (`orders`): what people see meanwhile.

Several orders may concern one row. The last one says whether it is held; a try that was asked for, and a removal, stay.
"""

from __future__ import annotations

import apsw

from posthouse.storage.sqlite.connection import row

AS_IT_IS = "spool"
PENDING = "SELECT 1 FROM orders LIMIT 1"

_TABLE = """
CREATE TABLE IF NOT EXISTS temp.ordered(
    queue_id TEXT NOT NULL,
    recipient_number INTEGER NOT NULL,
    held INTEGER,
    tried INTEGER NOT NULL,
    let_go INTEGER NOT NULL,
    removed INTEGER NOT NULL,
    PRIMARY KEY (queue_id, recipient_number)
) STRICT, WITHOUT ROWID;
DELETE FROM temp.ordered"""
# (Steps in their order, each with its rows.)
_FILL = """
INSERT INTO temp.ordered
SELECT value ->> 0, value ->> 1, CASE action WHEN 'hold' THEN 1 WHEN 'remove' THEN NULL ELSE 0 END,
    action = 'retry', action IN ('retry', 'release'), action = 'remove'
FROM (SELECT action, keys FROM orders WHERE keys ->> '$[#-1][0]' >= ? ORDER BY step) CROSS JOIN json_each(keys)
WHERE TRUE
ON CONFLICT DO UPDATE SET held = coalesce(excluded.held, held), tried = max(tried, excluded.tried),
    let_go = max(let_go, excluded.let_go), removed = max(removed, excluded.removed)"""
_OF_ROW = "FROM temp.ordered WHERE ordered.queue_id = now.queue_id AND ordered.recipient_number = now.recipient_number"
# Looked up row by row, so that the conditions of a query still seek in the spool's own key.
AS_ORDERED = f"""(
SELECT queue_id, recipient_number, forward_local_part, forward_domain, reverse_local_part, reverse_domain, via, domain,
    CASE WHEN (SELECT tried {_OF_ROW}) THEN 0.0 ELSE not_before END AS not_before, expires_at, attempts,
    coalesce((SELECT held {_OF_ROW}), held) AS held, delay_notified, original_recipient, notify, identity, last_reply,
    claim_token, claim_incarnation, deaths, account, tried_at,
    CASE WHEN (SELECT let_go {_OF_ROW}) THEN NULL ELSE sending_at END AS sending_at
FROM main.spool AS now WHERE NOT EXISTS (SELECT 1 {_OF_ROW} AND removed)) AS spool"""


def spool_now(connection: apsw.Connection, after: str = "") -> str:
    """What to read instead of `spool`, in the transaction that is open; right for queue ids from `after` on."""
    if row(connection, PENDING) is None:
        return AS_IT_IS
    query_only = connection.pragma("query_only")
    # (It forbids temporary tables, too.)
    connection.execute("PRAGMA query_only=OFF")
    try:
        connection.execute(_TABLE)
        connection.execute(_FILL, (after,))
    finally:
        connection.execute(f"PRAGMA query_only={query_only}")
    return AS_ORDERED
