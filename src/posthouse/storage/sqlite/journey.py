"""The journey: events as rows, and an index of the parties that journeys are found by."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import apsw

from posthouse.mail.address import AddressError, parse_address
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import JourneyEvent, from_json, kind_of, parties, to_json
from posthouse.storage.observer import Nobody, Observer
from posthouse.storage.sqlite.connection import rows
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.sqlite.writer import Writer

_EVENT = """
INSERT INTO events SELECT ?1, coalesce(max(event_number), 0) + 1, ?2, ?3, ?4 FROM events WHERE queue_id = ?1"""
_NEW_EVENT = "INSERT INTO events VALUES (?, ?, ?, ?, ?)"
_PARTY = "INSERT OR IGNORE INTO parties VALUES (?, ?, ?)"
_ROLE = "EXISTS (SELECT 1 FROM parties WHERE role = '{role}' AND address_key = ? AND queue_id = found.queue_id)"


def append_events(connection: apsw.Connection, events: Sequence[JourneyEvent]) -> None:
    """Append events to their journeys, inside the transaction of what they tell."""
    for event in events:
        connection.execute(_EVENT, (event.queue_id, event.at, kind_of(event), to_json(event)))
    _index(connection, events)


def begin_journey(connection: apsw.Connection, events: Sequence[JourneyEvent]) -> None:
    """The first events of a message whose queue id is new: they are all its own, and count from 1."""
    numbered = enumerate(events, start=1)
    rows = [(event.queue_id, number, event.at, kind_of(event), to_json(event)) for number, event in numbered]
    connection.executemany(_NEW_EVENT, rows)
    _index(connection, events)


def _index(connection: apsw.Connection, events: Sequence[JourneyEvent]) -> None:
    named = [(role, party_key(path), event.queue_id) for event in events for role, path in parties(event)]
    if named:
        connection.executemany(_PARTY, named)


@lru_cache(maxsize=4096)
def party_key(path: str) -> str:
    """The spelling that a party is found under: the address's key, in lower case as a whole."""
    try:
        return parse_address(path, long=True).key.lower()
    except AddressError:
        # What was refused need not be an address.
        return unicodedata.normalize("NFC", path).lower()


class SqliteJourney:
    """What became of each message."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers
        self.observer: Observer = Nobody()

    async def append(self, events: Sequence[JourneyEvent]) -> None:
        await self._writer.submit(lambda connection: append_events(connection, events))
        self.observer.happened(events)

    async def read(self, queue_id: QueueId) -> tuple[JourneyEvent, ...]:
        sql = "SELECT kind, at, fields FROM events WHERE queue_id = ? ORDER BY event_number"
        found = await self._readers.query(lambda connection: rows(connection, sql, (queue_id,)))
        return tuple(from_json(kind, queue_id, at, fields) for kind, at, fields in found)

    async def find(
        self,
        *,
        reverse_path: str | None = None,
        forward_path: str | None = None,
        refused: bool = False,
        limit: int = 100,
    ) -> tuple[QueueId, ...]:
        sql, parameters = _find(reverse_path, forward_path, refused)
        found = await self._readers.query(lambda connection: rows(connection, sql, (*parameters, limit)))
        return tuple(queue_id for (queue_id,) in found)


def _find(reverse_path: str | None, forward_path: str | None, refused: bool) -> tuple[str, list[str]]:
    """The query for `find` and its parameters but the last, which is the limit."""
    wanted = [
        (role, party_key(path)) for role, path in (("from", reverse_path), ("to", forward_path)) if path is not None
    ]
    only_refused = "EXISTS (SELECT 1 FROM events WHERE queue_id = found.queue_id AND kind = 'refused')"
    if not wanted:
        where = "WHERE kind = 'refused'" if refused else ""
        return f"SELECT DISTINCT queue_id FROM events {where} ORDER BY queue_id DESC LIMIT ?", []
    (role, first), *others = wanted
    conditions = ["role = ?", "address_key = ?", *(_ROLE.format(role=other) for other, _ in others)]
    if refused:
        conditions.append(only_refused)
    sql = f"SELECT queue_id FROM parties AS found WHERE {' AND '.join(conditions)} ORDER BY queue_id DESC LIMIT ?"
    return sql, [role, first, *(key for _, key in others)]
