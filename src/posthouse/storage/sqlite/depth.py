"""How deep the queue is, at a cost that is bounded however deep it is, and how large the store."""

from __future__ import annotations

import math
import os
from pathlib import Path

import apsw

from posthouse.mail.spool import QueueDepth
from posthouse.mail.world import Clock
from posthouse.storage.sqlite.connection import row
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.upkeep import Sizes

MEASURE_EVERY_S = 600.0
MOST_WAITING = 1_000_000
"""Each looks at its row, since the index does not say that it holds no others: 1.1 s for a million, on a thread."""
MOST_ROWS = 100_000
"""Rows read whole, the oldest first: held ones beyond them are not seen."""

_WAITING = """
SELECT count(*) FROM (
    SELECT 1 FROM spool INDEXED BY spool_by_time WHERE held = 0 AND claim_token IS NULL LIMIT ?)"""
_CLAIMED = "SELECT count(*) FROM (SELECT 1 FROM spool INDEXED BY spool_by_claim WHERE claim_token IS NOT NULL LIMIT ?)"
_HELD = "SELECT total(held <> 0 AND claim_token IS NULL) FROM (SELECT held, claim_token FROM spool LIMIT ?)"
# Queue ids are ordered by time.
_OLDEST = "SELECT accepted_at FROM messages WHERE queue_id = (SELECT min(queue_id) FROM spool)"
# (0 is no time: somebody asked for the next attempt at once.)
_DUE_SINCE = "SELECT min(not_before) FROM spool WHERE held = 0 AND claim_token IS NULL AND not_before > 0"
_CONTENT = "SELECT total(size_octets) FROM contents WHERE file IS NOT NULL"


def queue_depth(connection: apsw.Connection) -> QueueDepth:
    oldest = row(connection, _OLDEST)
    return QueueDepth(
        waiting=row(connection, _WAITING, (MOST_WAITING,))[0],
        held=int(row(connection, _HELD, (MOST_ROWS,))[0]),
        claimed=row(connection, _CLAIMED, (MOST_WAITING,))[0],
        oldest_at=oldest[0] if oldest is not None else None,
        due_since=row(connection, _DUE_SINCE)[0],
    )


class Extent:
    """How large the store is. Content in files is measured now and then only: a row is read for each file."""

    def __init__(self, readers: Readers, database: Path, clock: Clock) -> None:
        self._readers = readers
        self._database = database
        self._clock = clock
        self._content_octets = 0
        self._measured_at = -math.inf

    async def sizes(self) -> Sizes:
        now = self._clock.monotonic()
        if now - self._measured_at >= MEASURE_EVERY_S:
            self._measured_at = now
            found = await self._readers.query(lambda connection: row(connection, _CONTENT))
            self._content_octets = int(found[0])
        return await self._readers.disk(lambda: _sizes(self._database, self._content_octets))


def _sizes(database: Path, content: int) -> Sizes:
    """What the file system says of the database's files and its disk."""
    disk = os.statvfs(database.parent)
    return Sizes(
        database_octets=_size(database),
        log_octets=_size(database.with_name(database.name + "-wal")),
        content_octets=content,
        disk_free_octets=disk.f_bavail * disk.f_frsize,
        disk_octets=disk.f_blocks * disk.f_frsize,
        free_files=disk.f_favail if disk.f_files else None,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
