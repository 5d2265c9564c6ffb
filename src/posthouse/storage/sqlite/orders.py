"""Orders of operators: noted at once for all rows that they concern, done in steps by whoever comes first.

To note which 100,000 rows are meant takes a tenth of a second; to change them, with their indexes and events, takes
more than one. So an order is durable before the command ends, and then nobody sees a row as it was before: who claims
finds the orders in its own transaction and has them done first, who reads has them done before it reads. The running
house does it within a second, in steps between which others write.

What makes this exact: an order names its rows, of which none is claimed (those are changed with the order itself), and
none of them is claimed or changed until its step is done. A step, its events and its end are one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import apsw

from posthouse.mail.ids import QueueId
from posthouse.mail.queue_filter import QueueFilter
from posthouse.mail.spool import Action
from posthouse.storage.sqlite.changes import LocalChanges
from posthouse.storage.sqlite.connection import row
from posthouse.storage.sqlite.operations import Key, change, may
from posthouse.storage.sqlite.ordered import PENDING, spool_now
from posthouse.storage.sqlite.queue_filter import Where
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.sqlite.writer import Writer

ORDERS_SINCE_SCHEMA = 10
STEP_ROWS = 2000
"""Rows changed in one transaction, in which the house's own writing waits."""
PAUSE_S = 0.01
"""Between two steps, so that other processes get to write."""
NOTED_ROWS = 20_000
"""Rows noted in one transaction."""
FIRST: Key = (QueueId(""), -1)
"""Before every row."""

T = TypeVar("T")

_FOUND = """
SELECT json_group_array(json_array(queue_id, recipient_number)), count(*) FROM (
    SELECT spool.queue_id, recipient_number FROM {spool}{joins}
    WHERE (spool.queue_id, recipient_number) > (?, ?) AND {may} AND spool.claim_token IS NULL AND {condition}
    ORDER BY spool.queue_id, recipient_number LIMIT ?)"""
_LAST = "SELECT ?1 ->> '$[#-1][0]', ?1 ->> '$[#-1][1]'"
_CLAIMED = """
SELECT json_group_array(json_array(spool.queue_id, recipient_number)), count(*)
FROM spool INDEXED BY spool_by_claim{joins}
WHERE spool.claim_token IS NOT NULL AND (spool.queue_id, recipient_number) > (?, ?)
    AND (spool.queue_id, recipient_number) <= (?, ?) AND {may} AND {condition}"""
_AFTER_ALL: Key = (QueueId("~"), 0)
_NOTE = "INSERT INTO orders(at, action, operator, keys) VALUES (?, ?, ?, ?)"
_NEXT = "SELECT step, at, action, operator, keys FROM orders ORDER BY step LIMIT 1"


class _Pending(Enum):
    """Work that was not done, since an order comes first."""

    PENDING = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be done, to which rows, by whom."""

    action: Action
    wanted: QueueFilter
    which: Where
    by: str
    at: float


@dataclass(frozen=True, slots=True)
class Noted:
    """How many rows a part of an order concerns, and the last of them; None: there are no more."""

    rows: int
    last: Key | None


def note(connection: apsw.Connection, order: Order, after: Key) -> Noted:
    """Note the order for the next rows, at most NOTED_ROWS, inside a transaction; claimed ones are changed in it."""
    parts = {
        "spool": spool_now(connection, after[0]),
        "joins": order.which.joins,
        "may": may(order.action, order.wanted),
        "condition": order.which.condition,
    }
    noted, last, ended = 0, after, False
    while noted < NOTED_ROWS and not ended:
        keys, number = row(connection, _FOUND.format(**parts), (*last, *order.which.parameters, STEP_ROWS))
        if number:
            connection.execute(_NOTE, (order.at, str(order.action), order.by, keys))
            last = row(connection, _LAST, (keys,))
            noted += number
        ended = number < STEP_ROWS
    until = _AFTER_ALL if ended else last
    (keys, number) = row(connection, _CLAIMED.format(**parts), (*after, *until, *order.which.parameters))
    if number:
        change(connection, action=order.action, keys=keys, by=order.by, at=order.at)
    return Noted(noted + number, None if ended else last)


def pending(connection: apsw.Connection) -> bool:
    """Whether something is ordered that is not done yet."""
    return row(connection, PENDING) is not None


def do_next(connection: apsw.Connection) -> bool:
    """Do the next step inside a transaction; whether another is left."""
    found = row(connection, _NEXT)
    if found is None:
        return False
    step, at, action, by, keys = found
    change(connection, action=Action(action), keys=keys, by=by, at=at)
    connection.execute("DELETE FROM orders WHERE step = ?", (step,))
    return pending(connection)


def do_all(connection: apsw.Connection, schema: int) -> None:
    """Do all that is left, where nobody else uses the database."""
    if schema >= ORDERS_SINCE_SCHEMA:
        with connection:
            while do_next(connection):
                pass


class Orders:
    """Has done what was ordered, before anything else that needs it done."""

    def __init__(self, writer: Writer, readers: Readers, changes: LocalChanges) -> None:
        self._writer = writer
        self._readers = readers
        self._changes = changes
        # Steps of several tasks would meet in one transaction, in which others wait.
        self._one_at_a_time = asyncio.Lock()

    async def carry_out(self) -> None:
        """Return when nothing is left that was ordered before the call."""
        if not await self._readers.query(pending):
            return
        async with self._one_at_a_time:
            # (What is waited for is other processes: there is no event.)
            while await self._writer.submit(do_next):  # noqa: ASYNC110
                await asyncio.sleep(PAUSE_S)
        self._changes.notify()

    async def submit(self, work: Callable[[apsw.Connection], T]) -> T:
        """Have the writer do `work` in a transaction in which nothing is left to be done."""

        def unless_pending(connection: apsw.Connection) -> T | _Pending:
            return _Pending.PENDING if pending(connection) else work(connection)

        while isinstance(done := await self._writer.submit(unless_pending), _Pending):
            await self.carry_out()
        return done
