"""The journey: events as rows. `journey_index` has what journeys are found by, `journey_search` finds them."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from posthouse.mail.ids import QueueId
from posthouse.mail.journey import JourneyEvent, kind_of, to_json
from posthouse.storage.observer import Nobody, Observer
from posthouse.storage.sqlite.connection import rows
from posthouse.storage.sqlite.journey_index import index_events
from posthouse.storage.sqlite.journey_search import Search, journeys_beginning_with, read_journey
from posthouse.storage.sqlite.orders import Orders
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.sqlite.writer import Writer

_EVENT = """
INSERT INTO events SELECT ?1, coalesce(max(event_number), 0) + 1, ?2, ?3, ?4 FROM events WHERE queue_id = ?1"""
_NEW_EVENT = "INSERT INTO events VALUES (?, ?, ?, ?, ?)"
_HOLDERS = """
SELECT DISTINCT login FROM entries JOIN accounts USING (account) WHERE queue_id = ? ORDER BY login"""


def append_events(connection: apsw.Connection, events: Sequence[JourneyEvent]) -> None:
    """Append events to their journeys, inside the transaction of what they tell."""
    for event in events:
        connection.execute(_EVENT, (event.queue_id, event.at, kind_of(event), to_json(event)))
    index_events(connection, events)


def begin_journey(connection: apsw.Connection, events: Sequence[JourneyEvent]) -> None:
    """The first events of a message whose queue id is new: they are all its own, and count from 1."""
    numbered = enumerate(events, start=1)
    rows = [(event.queue_id, number, event.at, kind_of(event), to_json(event)) for number, event in numbered]
    connection.executemany(_NEW_EVENT, rows)
    index_events(connection, events)


class SqliteJourney:
    """What became of each message."""

    def __init__(self, writer: Writer, readers: Readers, orders: Orders) -> None:
        self._writer = writer
        self._readers = readers
        self._orders = orders
        self.observer: Observer = Nobody()

    async def append(self, events: Sequence[JourneyEvent]) -> None:
        await self._writer.submit(lambda connection: append_events(connection, events))
        self.observer.happened(events)

    async def read(self, queue_id: QueueId) -> tuple[JourneyEvent, ...]:
        # What was ordered is told of once it is done.
        await self._orders.carry_out()
        return await self._readers.query(lambda connection: read_journey(connection, queue_id))

    async def find(
        self,
        *,
        reverse_path: str | None = None,
        forward_path: str | None = None,
        message_id: str | None = None,
        reply: str | None = None,
        refused: bool = False,
        since: float | None = None,
        limit: int = 100,
    ) -> tuple[QueueId, ...]:
        search = Search(
            reverse_path=reverse_path,
            forward_path=forward_path,
            message_id=message_id,
            reply=reply,
            refused=refused,
            since=since,
            limit=limit,
        )
        return await self._readers.query(search.run)

    async def beginning_with(self, prefix: str, limit: int = 10) -> tuple[QueueId, ...]:
        return await self._readers.query(lambda connection: journeys_beginning_with(connection, prefix, limit))

    async def holders(self, queue_id: QueueId) -> tuple[str, ...]:
        found = await self._readers.query(lambda connection: rows(connection, _HOLDERS, (queue_id,)))
        return tuple(login for (login,) in found)
