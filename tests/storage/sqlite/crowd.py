"""A queue of any size, written past the engine: most of it for one dead destination, the rest for thousands."""

from __future__ import annotations

from pathlib import Path

import apsw

from posthouse.mail.acceptance import Destination
from posthouse.storage.sqlite.connection import DATABASE

DEAD = Destination("", "dead.test")
HEALTHY = 5_000
RECIPIENTS = 1_000
"""Of each message to the dead destination; those to others have one or two."""

# Every fifth row is for one of the healthy ones. Recipients of one message stand together, as `accept` writes them.
_MESSAGES = """
INSERT INTO messages
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)
SELECT printf('{prefix}%020d', i), (SELECT max(content) FROM contents), ?2, 'sender', 'far.test', x'', NULL, NULL, 0,
    '7BIT', 0, 0, 0, 0, 0, NULL FROM n"""
_ROWS = """
INSERT INTO spool(queue_id, recipient_number, forward_local_part, forward_domain, reverse_local_part, reverse_domain,
    via, domain, not_before, expires_at)
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)
SELECT printf('{prefix}%020d', i / {recipients}), i % {recipients}, 'r' || i, {domain}, 'sender', 'far.test',
    '', {domain}, ?2 + i * 1e-6, ?2 + 432000 FROM n"""


def crowd(data: Path, count: int, now: float, *, healthy: int = HEALTHY) -> None:
    """Add `count` rows that are due to a store that has content: four of five for DEAD, which came first."""
    connection = apsw.Connection(str(data / DATABASE))
    connection.execute("PRAGMA synchronous=OFF; PRAGMA cache_size=-65536; BEGIN")
    dead = count - count // 5
    parts = (
        ("000DED", dead, RECIPIENTS, "'dead.test'", now - 7200),
        ("000WEL", count - dead, 2, f"printf('d%05d.test', i / 2 % {healthy})", now - 3600),
    )
    for prefix, rows, recipients, domain, at in parts:
        connection.execute(_MESSAGES.format(prefix=prefix), (-(-rows // recipients), at))
        connection.execute(_ROWS.format(prefix=prefix, recipients=recipients, domain=domain), (rows, at))
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
