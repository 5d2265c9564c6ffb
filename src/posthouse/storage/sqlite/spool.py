"""The spool: who is due, claims, and what operators do to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import apsw

from posthouse.mail.acceptance import Destination, Notify, Ret
from posthouse.mail.address import Address
from posthouse.mail.content import ContentFacts
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import JourneyEvent
from posthouse.mail.spool import Claim, DueDestination, SpoolMessage, SpoolRow
from posthouse.mail.world import Random
from posthouse.storage.sqlite.accept import mark_unreferenced
from posthouse.storage.sqlite.changes import LocalChanges
from posthouse.storage.sqlite.connection import row, rows
from posthouse.storage.sqlite.journey import append_events
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.sqlite.writer import Writer

DUE_COUNT_LIMIT = 1000
"""`due_count` counts no further: a million rows of one dead domain must not be counted each second."""

_RELEASED_AT_ONCE = 100
"""Messages, in one transaction."""

_EARLIEST = "SELECT min(not_before) FROM spool WHERE held = 0 AND claim_token IS NULL"

_WAITING = "FROM spool INDEXED BY spool_by_destination WHERE held = 0 AND claim_token IS NULL"

# Hops from value to value in the index, so that the cost is the number of destinations, not of rows. (A comparison
# of row values would seek by `via` only and read every row of it: 87 s at a million rows, against some ms.)
_DUE = f"""
WITH RECURSIVE
vias(via) AS (
    SELECT min(via) {_WAITING}
    UNION ALL
    SELECT (SELECT min(via) {_WAITING} AND spool.via > vias.via) FROM vias WHERE vias.via IS NOT NULL
),
found(via, domain) AS (
    SELECT via, (SELECT min(domain) {_WAITING} AND spool.via = vias.via) FROM vias WHERE via IS NOT NULL
    UNION ALL
    SELECT via, (SELECT min(domain) {_WAITING} AND spool.via = found.via AND spool.domain > found.domain)
    FROM found WHERE domain IS NOT NULL
),
oldest(via, domain, not_before) AS MATERIALIZED (
    SELECT via, domain, (SELECT min(not_before) {_WAITING} AND spool.via = found.via AND spool.domain = found.domain)
    FROM found WHERE domain IS NOT NULL
),
due AS MATERIALIZED (SELECT * FROM oldest WHERE not_before <= ?1 ORDER BY not_before, via, domain LIMIT ?2)
SELECT via, domain, (SELECT count(*) FROM (SELECT 1 {_WAITING}
    AND spool.via = due.via AND spool.domain = due.domain AND spool.not_before <= ?1 LIMIT {DUE_COUNT_LIMIT})),
    not_before
FROM due ORDER BY not_before, via, domain"""

_CLAIMABLE = """
SELECT queue_id, recipient_number FROM spool
WHERE held = 0 AND claim_token IS NULL AND via = ? AND domain = ? AND not_before <= ?
ORDER BY not_before, queue_id, recipient_number LIMIT ?"""
_CLAIM = """
UPDATE spool SET claim_token = ?, claim_incarnation = ?, attempts = attempts + 1
WHERE queue_id = ? AND recipient_number = ?"""

_ROWS = """
SELECT spool.queue_id, recipient_number, forward_local_part, forward_domain, spool.reverse_local_part,
    spool.reverse_domain, via, spool.domain, not_before, expires_at, attempts, held, delay_notified,
    original_recipient, notify, identity, last_reply, claim_token IS NOT NULL,
    accepted_at, prefix, content, size_octets, ret, envelope_id, smtputf8, body,
    longest_line_octets, eight_bit_header, eight_bit_body, dot_lines, received_fields, message_id
FROM spool JOIN messages USING (queue_id) JOIN contents USING (content) """


class SqliteSpool:
    """Recipients still to be served elsewhere."""

    def __init__(
        self, writer: Writer, readers: Readers, changes: LocalChanges, random: Random, incarnation: str
    ) -> None:
        self._writer = writer
        self._readers = readers
        self._changes = changes
        self._random = random
        self._incarnation = incarnation

    async def due(self, now: float, limit: int) -> tuple[DueDestination, ...]:
        def find(connection: apsw.Connection) -> list[Any]:
            earliest = row(connection, _EARLIEST)[0]
            if earliest is None or earliest > now:
                return []
            return rows(connection, _DUE, (now, limit))

        found = await self._readers.query(find)
        return tuple(DueDestination(Destination(via, domain), count, oldest) for via, domain, count, oldest in found)

    async def claim(self, destination: Destination, limit: int, now: float) -> Claim | None:
        token = self._random.octets(16).hex()

        def work(connection: apsw.Connection) -> list[Any]:
            keys = rows(connection, _CLAIMABLE, (destination.via, destination.domain, now, limit))
            connection.executemany(_CLAIM, [(token, self._incarnation, *key) for key in keys])
            return [row(connection, _ROWS + "WHERE spool.queue_id = ? AND recipient_number = ?", key) for key in keys]

        found = await self._writer.submit(work)
        return Claim(token, spool_rows(found)) if found else None

    async def next_due(self) -> float | None:
        earliest: float | None = (await self._readers.query(lambda connection: row(connection, _EARLIEST)))[0]
        return earliest

    async def list(self, limit: int = 1000, queue_id: QueueId | None = None) -> tuple[SpoolRow, ...]:
        where, parameters = ("WHERE spool.queue_id = ? ", [queue_id]) if queue_id is not None else ("", [])
        sql = f"{_ROWS}{where}ORDER BY spool.queue_id, recipient_number LIMIT ?"
        return spool_rows(await self._readers.query(lambda connection: rows(connection, sql, (*parameters, limit))))

    async def count(self) -> int:
        count: int = (await self._readers.query(lambda connection: row(connection, "SELECT count(*) FROM spool")))[0]
        return count

    async def hold(self, queue_id: QueueId, event: JourneyEvent) -> int:
        return await self._change("UPDATE spool SET held = 1 WHERE queue_id = ?1 AND held = 0", (queue_id,), event)

    async def release(self, queue_id: QueueId, event: JourneyEvent) -> int:
        changed = await self._change("UPDATE spool SET held = 0 WHERE queue_id = ?1 AND held <> 0", (queue_id,), event)
        self._changes.notify()
        return changed

    async def release_all(self, told: Callable[[QueueId, tuple[str, ...]], JourneyEvent], *, restored: bool) -> int:
        released, step = 0, 1
        while step:
            step = await self._writer.submit(lambda connection: _release_some(connection, told, restored=restored))
            released += step
            self._changes.notify()
        return released

    async def retry(self, queue_id: QueueId, now: float, event: JourneyEvent) -> int:
        changed = await self._change(
            "UPDATE spool SET not_before = ?2 WHERE queue_id = ?1 AND held = 0 AND claim_token IS NULL",
            (queue_id, now),
            event,
        )
        self._changes.notify()
        return changed

    async def remove(self, queue_id: QueueId, event: JourneyEvent) -> int:
        def work(connection: apsw.Connection) -> int:
            connection.execute("DELETE FROM spool WHERE queue_id = ? AND claim_token IS NULL", (queue_id,))
            removed = connection.changes()
            if removed:
                mark_unreferenced(connection, queue_id, event.at)
                append_events(connection, (event,))
            return removed

        return await self._writer.submit(work)

    async def _change(self, sql: str, parameters: tuple[str | float, ...], event: JourneyEvent) -> int:
        """Run one UPDATE; when it changed rows, the event goes with it."""

        def work(connection: apsw.Connection) -> int:
            connection.execute(sql, parameters)
            changed = connection.changes()
            if changed:
                append_events(connection, (event,))
            return changed

        return await self._writer.submit(work)


def _release_some(
    connection: apsw.Connection, told: Callable[[QueueId, tuple[str, ...]], JourneyEvent], *, restored: bool
) -> int:
    """Release the rows of some messages, each with its event; how many rows."""
    which = "held = 2" if restored else "held <> 0"
    held = rows(connection, f"SELECT DISTINCT queue_id FROM spool WHERE {which} LIMIT {_RELEASED_AT_ONCE}")
    released = 0
    for (queue_id,) in held:
        sql = f"UPDATE spool SET held = 0 WHERE queue_id = ? AND {which} RETURNING forward_local_part, forward_domain"
        paths = tuple(str(Address(*path)) for path in rows(connection, sql, (queue_id,)))
        append_events(connection, (told(queue_id, paths),))
        released += len(paths)
    return released


def spool_rows(found: list[Any]) -> tuple[SpoolRow, ...]:
    """Values for rows of `_ROWS`; rows of one message share one SpoolMessage."""
    messages: dict[str, SpoolMessage] = {}
    return tuple(_spool_row(columns, messages) for columns in found)


def _spool_row(columns: Any, messages: dict[str, SpoolMessage]) -> SpoolRow:
    queue_id, number, forward_local, forward_domain, reverse_local, reverse_domain, via, domain = columns[:8]
    not_before, expires_at, attempts, held, delay_notified, original, notify, identity, reply, claimed = columns[8:18]
    message = messages.get(queue_id)
    if message is None:
        message = messages[queue_id] = _spool_message(queue_id, columns[18:])
    return SpoolRow(
        message=message,
        recipient_number=number,
        forward_path=Address(forward_local, forward_domain),
        reverse_path=Address(reverse_local, reverse_domain) if reverse_local is not None else None,
        destination=Destination(via, domain),
        not_before=not_before,
        expires_at=expires_at,
        attempts=attempts,
        held=bool(held),
        held_by_restore=held == 2,
        delay_notified=bool(delay_notified),
        original_recipient=original,
        notify=None if notify is None else frozenset(map(Notify, notify.split())),
        identity=identity,
        last_reply=reply,
        claimed=bool(claimed),
    )


def _spool_message(queue_id: QueueId, columns: Any) -> SpoolMessage:
    accepted_at, prefix, content, size_octets, ret, envelope_id, smtputf8, body = columns[:8]
    longest, eight_bit_header, eight_bit_body, dot_lines, received_fields, message_id = columns[8:]
    facts = ContentFacts(
        longest_line_octets=longest,
        eight_bit_header=bool(eight_bit_header),
        eight_bit_body=bool(eight_bit_body),
        dot_lines=bool(dot_lines),
        received_fields=received_fields,
        message_id=message_id,
    )
    return SpoolMessage(
        queue_id=queue_id,
        accepted_at=accepted_at,
        prefix=prefix,
        content_id=content,
        content_octets=size_octets,
        facts=facts,
        ret=None if ret is None else Ret(ret),
        envelope_id=envelope_id,
        smtputf8=bool(smtputf8),
        body=body,
    )
