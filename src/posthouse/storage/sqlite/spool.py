"""The spool: who is due, claims, and what operators do to it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import apsw

from posthouse.mail.acceptance import Destination, Notify, Ret
from posthouse.mail.address import Address
from posthouse.mail.content import ContentFacts
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import JourneyEvent
from posthouse.mail.limit_notice import OverLimit
from posthouse.mail.queue_filter import OfMessage, QueueFilter
from posthouse.mail.spool import Action, Claim, DueDestination, QueueDepth, SpoolMessage, SpoolRow, Tally
from posthouse.mail.world import Clock, Random
from posthouse.storage.sqlite.accept import mark_unreferenced
from posthouse.storage.sqlite.changes import LocalChanges
from posthouse.storage.sqlite.claims import ALONE_FROM, OF_TOKEN, free
from posthouse.storage.sqlite.connection import row, rows
from posthouse.storage.sqlite.depth import queue_depth
from posthouse.storage.sqlite.journey import append_events
from posthouse.storage.sqlite.operations import Key, tally
from posthouse.storage.sqlite.ordered import AS_IT_IS, spool_now
from posthouse.storage.sqlite.orders import FIRST, Order, Orders, note
from posthouse.storage.sqlite.queue_filter import BY_LIMIT, BY_RESTORE, where
from posthouse.storage.sqlite.sending_limits import over_limit
from posthouse.storage.sqlite.settle import OURS
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.sqlite.writer import Writer
from posthouse.storage.upkeep import Progress, Tell, tell_nobody

_CHANGED_AT_ONCE = 500
_FEW_ROWS = 1000
"""Up to so many due rows are read one by one."""
_LIGHT_ROWS = 16

_EARLIEST = "SELECT min(not_before) FROM spool WHERE held = 0 AND claim_token IS NULL"

# While few rows are due, they are cheaper to read than all destinations are to visit.
_DUE_ROWS = """
SELECT via, domain, not_before FROM spool INDEXED BY spool_by_time
WHERE held = 0 AND claim_token IS NULL AND not_before <= ? ORDER BY not_before LIMIT ?"""

_WAITING = "FROM spool INDEXED BY spool_by_destination WHERE held = 0 AND claim_token IS NULL"

# Hops from destination to destination in the index, so that the cost is their number, not that of rows. (A comparison
# of row values would seek by `via` only and read every row of it: 87 s at a million rows, against some ms.) A row
# without a domain stands at the end of a `via`, one with an empty domain at the beginning of the next.
_DUE = f"""
WITH RECURSIVE found(via, domain) AS (
    SELECT ?3, ?4
    UNION ALL
    SELECT CASE WHEN domain IS NULL THEN (SELECT min(via) {_WAITING} AND spool.via > found.via) ELSE via END,
        CASE WHEN domain IS NULL THEN ''
            ELSE (SELECT min(domain) {_WAITING} AND spool.via = found.via AND spool.domain > found.domain) END
    FROM found WHERE via IS NOT NULL
)
SELECT via, domain, (SELECT min(not_before) {_WAITING} AND spool.via = found.via AND spool.domain = found.domain)
    AS oldest
FROM found WHERE domain > '' AND NOT (via = ?3 AND domain = ?4) AND oldest <= ?1 LIMIT ?2"""

_CLAIMABLE = """
SELECT queue_id, recipient_number, deaths FROM spool
WHERE held = 0 AND claim_token IS NULL AND via = ? AND domain = ? AND not_before <= ?
ORDER BY not_before, queue_id, recipient_number LIMIT ?"""
_CLAIM = """
UPDATE spool SET claim_token = ?, claim_incarnation = ?, attempts = attempts + 1
WHERE queue_id = ? AND recipient_number = ?"""

_MARK = "UPDATE spool SET sending_at = ? WHERE queue_id = ? AND recipient_number = ?"
_TOKENS = """
WITH RECURSIVE tokens(token) AS (
    SELECT min(claim_token) FROM spool WHERE claim_token IS NOT NULL AND claim_incarnation = ?1
    UNION ALL
    SELECT (SELECT min(claim_token) FROM spool
        WHERE claim_token IS NOT NULL AND claim_incarnation = ?1 AND claim_token > tokens.token)
    FROM tokens WHERE token IS NOT NULL
)
SELECT token FROM tokens WHERE token IS NOT NULL"""
_MAKE_DUE = """
UPDATE spool SET not_before = ?2 WHERE (queue_id, recipient_number) IN (
    SELECT queue_id, recipient_number FROM spool INDEXED BY spool_by_time
    WHERE held = 0 AND claim_token IS NULL AND not_before > ?1 ORDER BY not_before DESC LIMIT ?3)"""
_RELEASE = """
UPDATE spool SET held = 0, sending_at = CASE WHEN claim_token IS NOT NULL THEN sending_at END
WHERE queue_id = ?1 AND held <> 0"""
_RETRY = """
UPDATE spool SET not_before = ?2, held = 0, sending_at = NULL
WHERE queue_id = ?1 AND claim_token IS NULL AND (held = 0 OR sending_at IS NOT NULL)"""

_COLUMNS = """
SELECT spool.queue_id, recipient_number, forward_local_part, forward_domain, spool.reverse_local_part,
    spool.reverse_domain, via, spool.domain, not_before, expires_at, attempts, held, delay_notified,
    original_recipient, notify, identity, last_reply, claim_token IS NOT NULL, sending_at, deaths, tried_at,
    accepted_at, prefix, content, size_octets, ret, envelope_id, smtputf8, body,
    longest_line_octets, eight_bit_header, eight_bit_body, dot_lines, received_fields, message_id
FROM {spool} JOIN messages USING (queue_id) JOIN contents USING (content) """
_ROWS = _COLUMNS.format(spool=AS_IT_IS)


class SqliteSpool:
    """Recipients still to be served elsewhere."""

    def __init__(
        self, writer: Writer, readers: Readers, changes: LocalChanges, clock: Clock, random: Random, incarnation: str
    ) -> None:
        self._writer = writer
        self._readers = readers
        self._changes = changes
        self._clock = clock
        self._random = random
        self._incarnation = incarnation
        self.orders = Orders(writer, readers, changes)
        self._claiming: set[str] = set()
        """Tokens of claims on their way to whoever asked."""

    async def due(self, now: float, limit: int, after: Destination | None = None) -> tuple[DueDestination, ...]:
        def find(connection: apsw.Connection) -> list[DueDestination]:
            few: list[Any] = rows(connection, _DUE_ROWS, (now, _FEW_ROWS + 1))
            oldest: dict[Destination, float] = {}
            if len(few) <= _FEW_ROWS:
                for via, domain, not_before in few:
                    oldest.setdefault(Destination(via, domain), not_before)
                chosen = sorted(each for each in oldest if after is None or each > after)[:limit]
                return [DueDestination(each, oldest[each]) for each in chosen]
            start = after or Destination("", "")
            found: list[Any] = rows(connection, _DUE, (now, limit, start.via, start.domain))
            return [DueDestination(Destination(via, domain), not_before) for via, domain, not_before in found]

        await self.orders.carry_out()
        found = await self._readers.query(find)
        return tuple(sorted(found, key=lambda each: (each.oldest_not_before, each.destination)))

    async def claim(self, destination: Destination, limit: int, now: float) -> Claim | None:
        token = self._random.octets(16).hex()

        def work(connection: apsw.Connection) -> list[Any]:
            found: list[Any] = rows(connection, _CLAIMABLE, (destination.via, destination.domain, now, limit))
            keys = _together(found)
            connection.executemany(_CLAIM, [(token, self._incarnation, *key) for key in keys])
            return [row(connection, _ROWS + "WHERE spool.queue_id = ? AND recipient_number = ?", key) for key in keys]

        self._claiming.add(token)
        try:
            found = await self.orders.submit(work)
        finally:
            self._claiming.discard(token)
        return Claim(token, spool_rows(found)) if found else None

    async def mark_sending(self, token: str, keys: Sequence[tuple[QueueId, int]], now: float) -> bool:
        def work(connection: apsw.Connection) -> bool:
            for queue_id, number in keys:
                if row(connection, OURS, (queue_id, number, token, self._incarnation)) is None:
                    return False
            connection.executemany(_MARK, [(now, *key) for key in keys])
            return True

        return await self._writer.submit(work, heavy=len(keys) > _LIGHT_ROWS)

    async def free_idle(self, in_use: Callable[[], Collection[str]]) -> int:
        tokens = await self._readers.query(self._tokens)
        # Asked after the look: a claim that was seen has either been returned since, or still is on its way.
        used = {*in_use(), *self._claiming}
        freed = 0
        for (token,) in tokens:
            work = partial(self._free, token=token)
            while token not in used and (step := await self._writer.submit(work)):
                freed += step
        if freed:
            self._changes.notify()
        return freed

    async def make_due(self, beyond: float, now: float) -> int:
        def work(connection: apsw.Connection) -> int:
            connection.execute(_MAKE_DUE, (beyond, now, _CHANGED_AT_ONCE))
            return connection.changes()

        changed = 0
        while step := await self._writer.submit(work):
            changed += step
        if changed:
            self._changes.notify()
        return changed

    def _tokens(self, connection: apsw.Connection) -> list[Any]:
        return rows(connection, _TOKENS, (self._incarnation,))

    def _free(self, connection: apsw.Connection, token: str) -> int:
        return free(connection, OF_TOKEN, (self._incarnation, token), self._clock.now())

    async def next_due(self) -> float | None:
        await self.orders.carry_out()
        earliest: float | None = (await self._readers.query(lambda connection: row(connection, _EARLIEST)))[0]
        return earliest

    async def list(
        self, limit: int = 1000, queue_id: QueueId | None = None, wanted: QueueFilter = ()
    ) -> tuple[SpoolRow, ...]:
        if queue_id is not None:
            wanted = (OfMessage(queue_id), *wanted)
        which = where(wanted, self._clock.now())
        parameters = (*which.parameters, limit)

        def find(connection: apsw.Connection) -> list[Any]:
            with connection:
                columns = _COLUMNS.format(spool=spool_now(connection))
                sql = f"{columns}WHERE {which.condition} ORDER BY spool.queue_id, recipient_number LIMIT ?"
                found: list[Any] = rows(connection, sql, parameters)
            return found

        return spool_rows(await self._readers.query(find))

    async def depth(self) -> QueueDepth:
        return await self._readers.query(queue_depth)

    async def tally(self, wanted: QueueFilter = (), action: Action | None = None) -> Tally:
        which = where(wanted, self._clock.now())
        return await self._readers.query(lambda connection: tally(connection, which, action, wanted))

    async def operate(self, action: Action, wanted: QueueFilter, by: str, tell: Tell = tell_nobody) -> int:
        now, changed = self._clock.now(), 0
        order = Order(action=action, wanted=wanted, which=where(wanted, now), by=by, at=now)
        last: Key | None = FIRST
        while last is not None:
            noted = await self._writer.submit(partial(note, order=order, after=last))
            changed, last = changed + noted.rows, noted.last
            self._changes.notify()
            tell(Progress(str(action), changed, 0))
        return changed

    async def count(self, wanted: QueueFilter = ()) -> int:
        which = where(wanted, self._clock.now())

        def counted(connection: apsw.Connection) -> int:
            with connection:
                sql = f"SELECT count(*) FROM {spool_now(connection)}{which.joins} WHERE {which.condition}"
                number: int = row(connection, sql, which.parameters)[0]
            return number

        return await self._readers.query(counted)

    async def over_limit(self, now: float) -> tuple[OverLimit, ...]:
        await self.orders.carry_out()
        return await self._readers.query(lambda connection: over_limit(connection, now))

    async def hold(self, queue_id: QueueId, event: JourneyEvent) -> int:
        return await self._change("UPDATE spool SET held = 1 WHERE queue_id = ?1 AND held = 0", (queue_id,), event)

    async def release(self, queue_id: QueueId, event: JourneyEvent) -> int:
        changed = await self._change(_RELEASE, (queue_id,), event)
        self._changes.notify()
        return changed

    async def retry(self, queue_id: QueueId, now: float, event: JourneyEvent) -> int:
        changed = await self._change(_RETRY, (queue_id, now), event)
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

        return await self.orders.submit(work)

    async def _change(self, sql: str, parameters: tuple[str | float, ...], event: JourneyEvent) -> int:
        """Run one UPDATE; when it changed rows, the event goes with it."""

        def work(connection: apsw.Connection) -> int:
            connection.execute(sql, parameters)
            changed = connection.changes()
            if changed:
                append_events(connection, (event,))
            return changed

        return await self.orders.submit(work)


def _together(found: list[Any]) -> list[tuple[str, int]]:
    """Keys of claimable rows that may share a claim with the first of them."""
    if not found or found[0][2] < ALONE_FROM:
        return [(queue_id, number) for queue_id, number, deaths in found if deaths < ALONE_FROM]
    first = found[0][0]
    return [(queue_id, number) for queue_id, number, _ in found if queue_id == first]


def spool_rows(found: list[Any]) -> tuple[SpoolRow, ...]:
    """Values for rows of `_ROWS`; rows of one message share one SpoolMessage."""
    messages: dict[str, SpoolMessage] = {}
    return tuple(_spool_row(columns, messages) for columns in found)


def _spool_row(columns: Any, messages: dict[str, SpoolMessage]) -> SpoolRow:
    queue_id, number, forward_local, forward_domain, reverse_local, reverse_domain, via, domain = columns[:8]
    not_before, expires_at, attempts, held, delay_notified, original, notify, identity, reply, claimed = columns[8:18]
    sending_at, deaths, tried_at = columns[18:21]
    message = messages.get(queue_id)
    if message is None:
        message = messages[queue_id] = _spool_message(queue_id, columns[21:])
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
        held_by_restore=held == BY_RESTORE,
        held_by_limit=held == BY_LIMIT,
        delay_notified=bool(delay_notified),
        original_recipient=original,
        notify=None if notify is None else frozenset(map(Notify, notify.split())),
        identity=identity,
        last_reply=reply,
        claimed=bool(claimed),
        sending_at=sending_at,
        deaths=deaths,
        tried_at=tried_at,
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
