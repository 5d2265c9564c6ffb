"""Finding journeys among a million: by what is rarest first, and nothing is read through.

A criterion that few journeys meet is the source, and the others are asked of each of them. Where none is rare, the
newest journeys of the index come one by one until enough of them meet the others too.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

import apsw

from posthouse.mail.ids import QueueId, first_queue_id
from posthouse.mail.journey import Accepted, JourneyEvent, from_json
from posthouse.mail.journey_words import message_id_key, reply_of, words_of
from posthouse.storage.sqlite.connection import row, rows
from posthouse.storage.sqlite.journey_index import match_of, message_id_hash, party_key

FEW = 2000
"""So many journeys may be read whole to see whether they are what is looked for."""

_READ = "SELECT kind, at, fields FROM events WHERE queue_id = ? ORDER BY event_number"
_BEGINNING_WITH = "SELECT DISTINCT queue_id FROM events WHERE queue_id >= ?1 AND queue_id < ?1 || '~' LIMIT ?2"
_NEWEST = "SELECT DISTINCT queue_id FROM events AS found WHERE queue_id >= :since"
_PARTY = "SELECT queue_id FROM parties AS found WHERE role = '{role}' AND address_key = :{role} AND queue_id >= :since"
_REFUSED = "SELECT DISTINCT queue_id FROM events AS found WHERE kind = 'refused' AND queue_id >= :since"
_IS_PARTY = (
    "EXISTS (SELECT 1 FROM parties WHERE role = '{role}' AND address_key = :{role} AND queue_id = found.queue_id)"
)
_IS_REFUSED = "EXISTS (SELECT 1 FROM events WHERE queue_id = found.queue_id AND kind = 'refused')"
_REPLIED = """
SELECT found.queue_id FROM reply_words CROSS JOIN replies AS found ON found.reply = reply_words.rowid
WHERE reply_words MATCH :reply AND found.at >= :since_at{also} ORDER BY reply_words.rowid DESC"""
# Period after period, the newest first: there is no index of all periods by hash.
_BY_MESSAGE_ID = """
WITH RECURSIVE periods(period) AS (
    SELECT max(period) FROM message_ids
    UNION ALL
    SELECT (SELECT max(period) FROM message_ids WHERE period < periods.period)
    FROM periods WHERE period IS NOT NULL AND period >= :since_period
)
SELECT periods.period || rest FROM periods CROSS JOIN message_ids USING (period) WHERE hash = :hash"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is looked for: see `storage.interfaces.Journey.find`."""

    reverse_path: str | None = None
    forward_path: str | None = None
    message_id: str | None = None
    reply: str | None = None
    refused: bool = False
    since: float | None = None
    limit: int = 100

    def run(self, connection: apsw.Connection) -> tuple[QueueId, ...]:
        """The journeys, newest first. All queries have ended when this returns."""
        if self.reply is not None and not words_of(self.reply):
            return ()
        found: dict[QueueId, None] = {}
        with closing(self._candidates(connection)) as candidates:
            for queue_id in candidates:
                found[queue_id] = None
                if len(found) >= self.limit:
                    break
        return tuple(sorted(found, reverse=True))

    def _candidates(self, connection: apsw.Connection) -> Generator[QueueId]:
        sources = self._sources()
        if self.message_id is not None:
            yield from self._by_message_id(connection)
            return
        if self.reply is None:
            source = self._rarest(connection, sources) or (next(iter(sources)) if sources else _NEWEST)
            others = [test for each, test in sources.items() if each != source]
            yield from self._each(connection, " AND ".join((source, *others)) + " ORDER BY queue_id DESC")
            return
        rare = self._rarest(connection, sources)
        if rare is None:
            also = "".join(f" AND {test}" for test in sources.values())
            yield from self._each(connection, _REPLIED.format(also=also))
            return
        others = [test for each, test in sources.items() if each != rare]
        sql = " AND ".join((rare, *others)) + " ORDER BY queue_id DESC"
        for queue_id in list(self._each(connection, sql)):
            if self._was_told(read_journey(connection, queue_id)):
                yield queue_id

    def _sources(self) -> dict[str, str]:
        """Queries for the journeys that meet one criterion, each with the same as a test; the likely rarest first."""
        roles = [role for role, path in (("from", self.reverse_path), ("to", self.forward_path)) if path is not None]
        sources = {_REFUSED: _IS_REFUSED} if self.refused else {}
        return sources | {_PARTY.format(role=role): _IS_PARTY.format(role=role) for role in roles}

    def _rarest(self, connection: apsw.Connection, sources: dict[str, str]) -> str | None:
        """The source of fewest journeys; None where each has more than a few."""
        counts = {}
        for source in sources:
            (count,) = row(connection, f"SELECT count(*) FROM ({source} LIMIT {FEW + 1})", self._parameters())
            counts[source] = count
        rarest = min(counts, key=counts.__getitem__, default=None)
        return rarest if rarest is not None and counts[rarest] <= FEW else None

    def _by_message_id(self, connection: apsw.Connection) -> Generator[QueueId]:
        """Whatever else is asked of them: so few have one Message-ID that each is looked at."""
        wanted = message_id_key(self.message_id or "")
        for queue_id in self._each(connection, _BY_MESSAGE_ID):
            events = read_journey(connection, queue_id)
            known = {message_id_key(event.message_id or "") for event in events if isinstance(event, Accepted)}
            if wanted in known and self._fits(connection, queue_id, events):
                yield queue_id

    def _fits(self, connection: apsw.Connection, queue_id: QueueId, events: tuple[JourneyEvent, ...]) -> bool:
        if self.reply is not None:
            if not self._was_told(events):
                return False
        elif self.since is not None and queue_id < first_queue_id(self.since):
            return False
        tests = " AND ".join(("1", *self._sources().values()))
        sql = f"SELECT {tests} FROM (SELECT :queue_id AS queue_id) AS found"
        return bool(row(connection, sql, {**self._parameters(), "queue_id": queue_id})[0])

    def _was_told(self, events: tuple[JourneyEvent, ...]) -> bool:
        """Whether one of the replies has all the words, and is young enough."""
        wanted = set(words_of(self.reply or ""))
        since = self.since or 0.0
        return any(event.at >= since and wanted <= set(words_of(reply_of(event))) for event in events)

    def _each(self, connection: apsw.Connection, sql: str) -> Generator[QueueId]:
        """One by one. The query ends with the loop, wherever that stops."""
        cursor = connection.cursor()
        try:
            for (queue_id,) in cursor.execute(sql, self._parameters()):
                yield queue_id
        finally:
            cursor.close()

    def _parameters(self) -> dict[str, str | int | float]:
        # With a reply it is the reply that must be young, not the journey.
        since = first_queue_id(self.since) if self.since is not None and self.reply is None else ""
        return {
            "from": party_key(self.reverse_path or ""),
            "to": party_key(self.forward_path or ""),
            "since": since,
            "since_period": since[:6],
            "since_at": self.since or 0.0,
            "hash": message_id_hash(self.message_id or ""),
            "reply": match_of(words_of(self.reply or "")),
        }


def read_journey(connection: apsw.Connection, queue_id: QueueId) -> tuple[JourneyEvent, ...]:
    """The events of a journey in the order they were written."""
    return tuple(from_json(kind, queue_id, at, fields) for kind, at, fields in rows(connection, _READ, (queue_id,)))


def journeys_beginning_with(connection: apsw.Connection, prefix: str, limit: int) -> tuple[QueueId, ...]:
    """Queue ids are letters and digits, which all sort before the tilde."""
    return tuple(queue_id for (queue_id,) in rows(connection, _BEGINNING_WITH, (prefix, limit)))
