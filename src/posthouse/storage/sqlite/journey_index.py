"""What journeys are found by: parties, Message-IDs, words of replies. Written with the events, removed with them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any
from zlib import crc32

import apsw

from posthouse.mail.address import AddressError, parse_address
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Accepted, JourneyEvent, from_json, parties
from posthouse.mail.journey_words import message_id_key, reply_of, words_of
from posthouse.storage.sqlite.connection import row, rows

WORDS = "reply_words"
"""The full-text index, as SQLite names it where it is damaged."""
PERIOD_CHARACTERS = 6
"""Of a queue id: they change every 2 ** 20 ms, 17 minutes."""

_PARTY = "INSERT OR IGNORE INTO parties VALUES (?, ?, ?)"
_FORGET_PARTY = "DELETE FROM parties WHERE role = ? AND address_key = ? AND queue_id = ?"
_MESSAGE_ID = "INSERT OR IGNORE INTO message_ids VALUES (?, ?, ?)"
_FORGET_MESSAGE_ID = "DELETE FROM message_ids WHERE period = ? AND hash = ? AND rest = ?"
_FORGET_STRAY = "DELETE FROM message_ids WHERE period = ? AND rest = ?"
_REPLY = "INSERT INTO replies(queue_id, at) VALUES (?, ?)"
_WORDS = "INSERT INTO reply_words(rowid, words) VALUES (?, ?)"
_REPLIES = "SELECT reply FROM replies WHERE queue_id = ?"
_FORGET_WORDS = "DELETE FROM reply_words WHERE rowid = ?"
_FORGET_REPLIES = "DELETE FROM replies WHERE queue_id = ?"
_EVENTS = "SELECT kind, at, fields FROM events WHERE queue_id = ? ORDER BY event_number"
_OLD = """
SELECT queue_id, at, json_extract(fields, '$.message_id'), json_extract(fields, '$.reply') FROM events
WHERE kind IN ('accepted', 'attempted', 'refused') AND json_valid(fields)
ORDER BY queue_id, event_number"""
_RENEW_WORDS = """
DROP TABLE reply_words;
CREATE VIRTUAL TABLE reply_words USING fts5(words, content='', contentless_delete=1, detail=none, tokenize='ascii');
INSERT INTO reply_words(reply_words, rank) VALUES ('automerge', 16);
DELETE FROM replies"""
_STRAYS = """
SELECT queue_id FROM replies WHERE NOT EXISTS (SELECT 1 FROM events WHERE events.queue_id = replies.queue_id)
UNION
SELECT period || rest FROM message_ids
WHERE NOT EXISTS (SELECT 1 FROM events WHERE events.queue_id = message_ids.period || message_ids.rest)
LIMIT ?"""
_TEXTS = """
SELECT queue_id, event_number, kind, at, fields FROM events
WHERE (queue_id, event_number) > (?, ?) ORDER BY queue_id, event_number LIMIT ?"""
_INDEXED = """
SELECT EXISTS (SELECT 1 FROM message_ids WHERE period = ?2 AND hash = ?3 AND rest = ?4),
    EXISTS (SELECT 1 FROM replies JOIN reply_words_docsize ON id = reply WHERE queue_id = ?1)"""


def index_events(connection: apsw.Connection, events: Sequence[JourneyEvent]) -> None:
    """Let the journeys be found by these events, inside the transaction that writes them."""
    named: list[tuple[str, str, str]] = []
    said: set[tuple[str, str]] = set()
    for event in events:
        named += [(role, party_key(path), event.queue_id) for role, path in parties(event)]
        if isinstance(event, Accepted):
            if event.message_id:
                connection.execute(_MESSAGE_ID, message_id_row(event.queue_id, event.message_id))
        elif (reply := reply_of(event)) and (event.queue_id, reply) not in said:
            # Many recipients of one message are often answered alike.
            said.add((event.queue_id, reply))
            _index_reply(connection, event.queue_id, event.at, reply)
    if named:
        connection.executemany(_PARTY, named)


def _index_reply(connection: apsw.Connection, queue_id: str, at: float, reply: str) -> None:
    connection.execute(_REPLY, (queue_id, at))
    connection.execute(_WORDS, (connection.last_insert_rowid(), " ".join(map(_term, words_of(reply)))))


def match_of(words: Iterable[str]) -> str:
    """The full-text query for replies that hold all of these words."""
    return " AND ".join(map(_term, words))


def _term(word: str) -> str:
    """A word as the tokenizer leaves it whole, which cuts at dots; in lower case it is no operator of a query."""
    return word.replace(".", "x")


def message_id_row(queue_id: str, message_id: str) -> tuple[str, int, str]:
    """The row of `message_ids`."""
    return queue_id[:PERIOD_CHARACTERS], message_id_hash(message_id), queue_id[PERIOD_CHARACTERS:]


def message_id_hash(message_id: str) -> int:
    """Few octets and quickly made: who finds it compares the event's own Message-ID."""
    return crc32(message_id_key(message_id).encode("utf-8", "surrogatepass")) - (1 << 31)


@lru_cache(maxsize=4096)
def party_key(path: str) -> str:
    """The spelling that a party is found under: the address's key, in lower case as a whole."""
    try:
        return parse_address(path, long=True).key.lower()
    except AddressError:
        # What was refused need not be an address.
        return unicodedata.normalize("NFC", path).lower()


def forget_journey(connection: apsw.Connection, queue_id: QueueId) -> None:
    """The events, and what they are found by."""
    for event in _readable(connection, queue_id):
        for role, path in parties(event):
            connection.execute(_FORGET_PARTY, (role, party_key(path), queue_id))
        if isinstance(event, Accepted) and event.message_id:
            connection.execute(_FORGET_MESSAGE_ID, message_id_row(queue_id, event.message_id))
    _forget_replies(connection, queue_id)
    connection.execute("DELETE FROM events WHERE queue_id = ?", (queue_id,))


def _forget_replies(connection: apsw.Connection, queue_id: str) -> None:
    for (reply,) in rows(connection, _REPLIES, (queue_id,)):
        connection.execute(_FORGET_WORDS, (reply,))
    connection.execute(_FORGET_REPLIES, (queue_id,))


def index_old_journeys(connection: apsw.Connection) -> None:
    """Fill the tables that a migration has just made, inside its transaction."""
    for queue_id, at, message_id, reply in connection.execute(_OLD):
        if isinstance(message_id, str) and message_id:
            connection.execute(_MESSAGE_ID, message_id_row(queue_id, message_id))
        if isinstance(reply, str) and reply:
            _index_reply(connection, queue_id, at, reply)


def not_found(
    connection: apsw.Connection, after: tuple[str, int], limit: int
) -> tuple[list[QueueId], tuple[str, int] | None]:
    """Of the next events those whose journey is not found by them, and the last event looked at; None at the end."""
    missing: list[QueueId] = []
    page: list[Any] = rows(connection, _TEXTS, (*after, limit))
    for queue_id, _, kind, at, fields in page:
        event = _read(kind, queue_id, at, fields)
        if event is not None and not _is_found(connection, event):
            missing.append(queue_id)
    return missing, page[-1][:2] if len(page) == limit else None


def renew_words(connection: apsw.Connection) -> None:
    """Begin the index of words anew where it is damaged itself; then each journey has to be indexed again."""
    connection.execute(_RENEW_WORDS)


def strays(connection: apsw.Connection, limit: int) -> list[QueueId]:
    """Journeys without events that are found all the same."""
    return [queue_id for (queue_id,) in rows(connection, _STRAYS, (limit,))]


def _is_found(connection: apsw.Connection, event: JourneyEvent) -> bool:
    message_id = event.message_id if isinstance(event, Accepted) else None
    if not message_id and not reply_of(event):
        return True
    by_id, by_reply = row(connection, _INDEXED, (event.queue_id, *message_id_row(event.queue_id, message_id or "")))
    return bool(by_id if message_id else by_reply)


def index_again(connection: apsw.Connection, queue_ids: Iterable[QueueId]) -> None:
    """Let journeys be found by what their events say, and by nothing else; those without events by nothing."""
    for queue_id in queue_ids:
        _forget_replies(connection, queue_id)
        connection.execute(_FORGET_STRAY, (queue_id[:PERIOD_CHARACTERS], queue_id[PERIOD_CHARACTERS:]))
        index_events(connection, _readable(connection, queue_id))


def _readable(connection: apsw.Connection, queue_id: QueueId) -> list[JourneyEvent]:
    """The events of a journey but those that are damaged, which `check --store` names."""
    written: list[Any] = rows(connection, _EVENTS, (queue_id,))
    events = (_read(kind, queue_id, at, fields) for kind, at, fields in written)
    return [event for event in events if event is not None]


def _read(kind: str, queue_id: QueueId, at: float, fields: str) -> JourneyEvent | None:
    try:
        return from_json(kind, queue_id, at, fields)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
