"""How long journeys are kept: the old ones go in small steps, each a transaction of its own.

Queue ids are ordered by time, so the oldest journeys stand first in the primary key and no further index is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from posthouse.mail.ids import QueueId, first_queue_id
from posthouse.storage.sqlite.connection import row, rows
from posthouse.storage.sqlite.journey_index import forget_journey
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.sqlite.writer import Writer
from posthouse.storage.upkeep import Retention

STEP_JOURNEYS = 64
"""Removed in one transaction: some ms, then sessions have their turn."""

_OLD = """
SELECT queue_id, max(at) FROM events WHERE queue_id > ? AND queue_id < ?
GROUP BY queue_id ORDER BY queue_id LIMIT ?"""
_REFUSED = """
SELECT DISTINCT queue_id FROM events WHERE kind = 'refused' AND queue_id > ? AND queue_id < ?
ORDER BY queue_id LIMIT ?"""
_REFUSED_COUNT = "SELECT count(DISTINCT queue_id) FROM events WHERE kind = 'refused'"
_WAITS = "SELECT 1 FROM spool WHERE queue_id = ? LIMIT 1"
_ACCEPTED = "SELECT 1 FROM messages WHERE queue_id = ?"
_LAST = "SELECT max(at) FROM events WHERE queue_id = ?"
_AFTER_ALL = "~"
"""Sorts after every queue id."""


async def sweep_journeys(writer: Writer, readers: Readers, retention: Retention, now: float) -> None:
    """Remove journeys whose last event is too old, but those of messages that still wait in the queue."""
    before = now - retention.journeys_s
    until = first_queue_id(before)
    last = ""
    while True:
        found = await readers.query(lambda connection, last=last: rows(connection, _OLD, (last, until, STEP_JOURNEYS)))  # type: ignore[misc]
        old = [queue_id for queue_id, at in found if at < before]
        if old:
            await writer.submit(lambda connection, old=old: _remove_old(connection, old, before))  # type: ignore[misc]
        if len(found) < STEP_JOURNEYS:
            return
        last = found[-1][0]


async def sweep_refused(writer: Writer, readers: Readers, retention: Retention, now: float) -> None:
    """Remove journeys of refused mail that are too old, and the oldest of those that are too many."""
    await _remove_refused(writer, readers, first_queue_id(now - retention.refused_s), None)
    count: int = (await readers.query(lambda connection: row(connection, _REFUSED_COUNT)))[0]
    if count > retention.refused_limit:
        await _remove_refused(writer, readers, _AFTER_ALL, count - retention.refused_limit)


async def _remove_refused(writer: Writer, readers: Readers, until: str, most: int | None) -> None:
    last = ""
    while most is None or most > 0:
        wanted = STEP_JOURNEYS if most is None else min(most, STEP_JOURNEYS)
        found = await readers.query(
            lambda connection, last=last, wanted=wanted: rows(connection, _REFUSED, (last, until, wanted))  # type: ignore[misc]
        )
        refused = [queue_id for (queue_id,) in found]
        if refused:
            await writer.submit(lambda connection, refused=refused: _remove_not_accepted(connection, refused))  # type: ignore[misc]
        if len(found) < wanted:
            return
        last = refused[-1]
        most = None if most is None else most - len(refused)


def _remove_old(connection: apsw.Connection, queue_ids: Sequence[QueueId], before: float) -> None:
    for queue_id in queue_ids:
        at = row(connection, _LAST, (queue_id,))[0]
        if at is not None and at < before and row(connection, _WAITS, (queue_id,)) is None:
            forget_journey(connection, queue_id)


def _remove_not_accepted(connection: apsw.Connection, queue_ids: Sequence[QueueId]) -> None:
    for queue_id in queue_ids:
        if row(connection, _ACCEPTED, (queue_id,)) is None:
            forget_journey(connection, queue_id)
