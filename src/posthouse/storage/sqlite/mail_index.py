"""What mail is listed and found by: filled from the entries, in steps, and never on the way of mail that comes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

import apsw

from posthouse.mail.found_by import FoundBy, plain_subject
from posthouse.mail.ids import AccountId, QueueId, Uid
from posthouse.mail.indexed import LETTER_BITS, Listed, Missing
from posthouse.mail.mail_query import MailQuery
from posthouse.mail.world import Clock
from posthouse.storage.sqlite.connection import row, rows
from posthouse.storage.sqlite.mail_search import MailSearch, entries_named, short_names
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.sqlite.writer import Writer

LETTER_WORDS = "letter_words"
"""The full-text index, as SQLite names it where it is damaged."""
SAME_SUBJECT_S = 30 * 86_400
"""How long after a message one without References may be its answer."""
TIDY_STEP = 500

_BEGIN = "INSERT INTO read_accounts VALUES (?, ?) ON CONFLICT DO NOTHING"
_ACCOUNTS = "SELECT account FROM read_accounts JOIN accounts USING (account) WHERE removed_at IS NULL ORDER BY account"
_REMOVED = "SELECT account FROM read_accounts JOIN accounts USING (account) WHERE removed_at IS NOT NULL"
_FORGET = """
DELETE FROM read_accounts WHERE account = ?1 AND NOT EXISTS (SELECT 1 FROM letters WHERE account = ?1)"""
_FOLDERS = """
SELECT folder, name, coalesce(up_to, 0), next_uid FROM folders LEFT JOIN read_folders USING (folder)
WHERE account = ? ORDER BY folder"""
_MISSING = """
SELECT uid, queue_id, copy, accepted_at, EXISTS (
    SELECT 1 FROM letters WHERE letters.account = entries.account
    AND letters.queue_id = entries.queue_id AND letters.copy = entries.copy)
FROM entries JOIN messages USING (queue_id) WHERE folder = ? AND uid > ? ORDER BY uid LIMIT ?"""
_COUNT = "SELECT count(*) FROM entries WHERE folder = ? AND uid > ?"
_UP_TO = "INSERT INTO read_folders VALUES (?, ?) ON CONFLICT DO UPDATE SET up_to = max(up_to, excluded.up_to)"
_IS_THERE = "SELECT 1 FROM letters WHERE account = ? AND queue_id = ? AND copy = ?"
# (A conversation keeps its number when the letter that it began with is gone.)
_TAKEN = """
SELECT max(
    coalesce((SELECT max(letter) FROM letters WHERE letter BETWEEN ?1 AND ?2), ?1 - 1),
    coalesce((SELECT max(conversation) FROM letters WHERE conversation BETWEEN ?1 AND ?2), ?1 - 1))"""
_LETTER = "INSERT INTO letters VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_WORDS = "INSERT INTO letter_words(rowid, sender, recipients, subject, text, files) VALUES (?, ?, ?, ?, ?, ?)"
_KNOWN_IDS = """
SELECT DISTINCT conversation FROM conversation_ids WHERE account = ? AND hash IN (SELECT value FROM json_each(?))"""
_NOTE_ID = """
INSERT INTO conversation_ids VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET conversation = excluded.conversation"""
_SIZE = "SELECT count(*) FROM letters WHERE conversation = ?"
_MERGE = (
    "UPDATE letters SET conversation = ? WHERE conversation = ?",
    "UPDATE conversation_ids SET conversation = ? WHERE conversation = ?",
)
_SAME_SUBJECT = """
SELECT conversation, parties FROM letters WHERE account = ? AND subject_hash = ? AND letter BETWEEN ? AND ?
ORDER BY letter DESC LIMIT 20"""
_LETTERS = "SELECT count(*) FROM letters WHERE account = ?"
_ENTRIES = "SELECT coalesce(sum(message_count), 0) FROM folders WHERE account = ?"
_DEAD = """
SELECT letter, conversation FROM letters WHERE account = ?1 AND NOT EXISTS (
    SELECT 1 FROM entries WHERE entries.queue_id = letters.queue_id AND entries.account = ?1
    AND entries.copy = letters.copy)
LIMIT ?2"""
_FORGET_IDS = """
DELETE FROM conversation_ids WHERE conversation = ?1
AND NOT EXISTS (SELECT 1 FROM letters WHERE conversation = ?1)"""
_ANEW = """
DROP TABLE letter_words;
CREATE VIRTUAL TABLE letter_words USING fts5(
    sender, recipients, subject, text, files,
    content='', contentless_delete=1, prefix='3', tokenize='unicode61 remove_diacritics 2'
);
DELETE FROM letters; DELETE FROM conversation_ids; DELETE FROM read_folders"""


class SqliteReading:
    """Implements `storage.interfaces.Reading`."""

    def __init__(self, writer: Writer, readers: Readers, clock: Clock) -> None:
        self._writer = writer
        self._readers = readers
        self._clock = clock

    async def begin(self, account: AccountId) -> None:
        found = await self.accounts()
        if account not in found:
            since = self._clock.now()
            await self._writer.submit(lambda connection: connection.execute(_BEGIN, (account, since)))

    async def accounts(self) -> tuple[AccountId, ...]:
        found = await self._readers.query(lambda connection: rows(connection, _ACCOUNTS))
        return tuple(AccountId(account) for (account,) in found)

    async def missing(self, account: AccountId, limit: int) -> tuple[Missing, ...]:
        return await self._readers.query(lambda connection: _missing(connection, account, limit))

    async def missing_count(self, account: AccountId) -> int:
        def count(connection: apsw.Connection) -> int:
            found = rows(connection, _FOLDERS, (account,))
            return sum(row(connection, _COUNT, (folder, up_to))[0] for folder, _, up_to, _ in found)

        return await self._readers.query(count)

    async def add(self, account: AccountId, found: Sequence[tuple[Missing, FoundBy | None]]) -> None:
        await self._writer.submit(partial(_add, account=account, found=found))

    async def tidy(self, account: AccountId) -> int:
        removed = 0
        if not await self._readers.query(partial(_has_dead, account=account)):
            return 0
        while step := await self._writer.submit(partial(_remove_dead, account=account)):
            removed += step
        return removed

    async def forget_removed(self) -> None:
        for (account,) in await self._readers.query(lambda connection: rows(connection, _REMOVED)):
            await self.tidy(account)
            await self._writer.submit(partial(_forget, account=account))

    async def find(self, account: AccountId, query: MailQuery, limit: int) -> tuple[Listed, ...]:
        return await self._readers.query(MailSearch(account, query, limit).run)

    async def named(self, account: AccountId, beginning: str, limit: int) -> tuple[Listed, ...]:
        return await self._readers.query(partial(entries_named, account=account, beginning=beginning, limit=limit))

    async def short_names(self, account: AccountId, queue_ids: Sequence[QueueId], least: int) -> Mapping[QueueId, str]:
        return await self._readers.query(partial(short_names, account=account, queue_ids=queue_ids, least=least))


def begin_anew(connection: apsw.Connection) -> None:
    """Forget all of it, where it is damaged; it is made again from the messages."""
    connection.execute(_ANEW)


def _missing(connection: apsw.Connection, account: AccountId, limit: int) -> tuple[Missing, ...]:
    found: list[Missing] = []
    for folder, name, up_to, next_uid in rows(connection, _FOLDERS, (account,)):
        if up_to + 1 >= next_uid or len(found) >= limit:
            continue
        found += [
            Missing(
                folder=name,
                folder_number=folder,
                uid=Uid(uid),
                queue_id=QueueId(queue_id),
                copy=copy,
                accepted_at=accepted_at,
                is_known=bool(is_known),
            )
            for uid, queue_id, copy, accepted_at, is_known in rows(
                connection, _MISSING, (folder, up_to, limit - len(found))
            )
        ]
    return tuple(found)


def _add(connection: apsw.Connection, *, account: AccountId, found: Sequence[tuple[Missing, FoundBy | None]]) -> None:
    """The index takes the oldest first: rows that go up are cheap."""
    new = [(missing, by) for missing, by in found if by is not None]
    for missing, by in sorted(new, key=lambda each: each[1].date):
        if row(connection, _IS_THERE, (account, missing.queue_id, missing.copy)) is None:
            _add_one(connection, account, missing, by)
    up_to: dict[int, int] = {}
    for missing, _ in found:
        up_to[missing.folder_number] = max(missing.uid, up_to.get(missing.folder_number, 0))
    connection.executemany(_UP_TO, list(up_to.items()))


def _add_one(connection: apsw.Connection, account: AccountId, missing: Missing, by: FoundBy) -> None:
    first = int(by.date) << LETTER_BITS
    (taken,) = row(connection, _TAKEN, (first, first + (1 << LETTER_BITS) - 1))
    letter = taken + 1
    conversation = _conversation(connection, account, letter, by)
    subject = plain_subject(by.subject)
    parties = " ".join(sorted(by.addresses))[:4000]
    shown = (
        by.sender,
        by.recipients[:400],
        by.subject,
        by.attached,
        parties,
        subject_hash(subject) if subject else None,
    )
    connection.execute(_LETTER, (letter, account, missing.queue_id, missing.copy, conversation, *shown))
    connection.execute(_WORDS, (letter, by.sender, by.recipients, by.subject, by.text, " \n".join(by.files)))


def _conversation(connection: apsw.Connection, account: AccountId, letter: int, by: FoundBy) -> int:
    """The conversation that it belongs to; conversations that it connects become one."""
    hashes = list(dict.fromkeys([*by.references, *([by.message_id] if by.message_id is not None else [])]))
    known = [found for (found,) in rows(connection, _KNOWN_IDS, (account, json.dumps(hashes)))]
    if not known and not by.references and by.answer_to:
        known = _by_subject(connection, account, letter, by)
    if len(known) > 1:
        # The smaller ones go into the largest: however they are connected, no row is changed often.
        known.sort(key=lambda conversation: -row(connection, _SIZE, (conversation,))[0])
        for other in known[1:]:
            for sql in _MERGE:
                connection.execute(sql, (known[0], other))
    conversation: int = known[0] if known else letter
    connection.executemany(_NOTE_ID, [(account, each, conversation) for each in hashes])
    return conversation


def _by_subject(connection: apsw.Connection, account: AccountId, letter: int, by: FoundBy) -> list[int]:
    """What it answers though it does not say so: the same subject, not long before, between the same people."""
    earliest = letter - (SAME_SUBJECT_S << LETTER_BITS)
    wanted = (account, subject_hash(by.answer_to), earliest, letter)
    for conversation, parties in rows(connection, _SAME_SUBJECT, wanted):
        both = by.addresses.intersection(parties.split())
        if by.sender_address in both and len(both) > 1:
            return [conversation]
    return []


def subject_hash(subject: str) -> int:
    return int.from_bytes(blake2b(subject.encode("utf-8", "replace"), digest_size=8).digest(), "big", signed=True)


def _forget(connection: apsw.Connection, *, account: AccountId) -> None:
    connection.execute(_FORGET, (account,))


def _has_dead(connection: apsw.Connection, *, account: AccountId) -> bool:
    """Whether there are more rows than entries; told without looking at each."""
    return bool(row(connection, _LETTERS, (account,))[0] > row(connection, _ENTRIES, (account,))[0])


def _remove_dead(connection: apsw.Connection, *, account: AccountId) -> int:
    dead: list[Any] = rows(connection, _DEAD, (account, TIDY_STEP))
    for letter, _ in dead:
        connection.execute("DELETE FROM letter_words WHERE rowid = ?", (letter,))
        connection.execute("DELETE FROM letters WHERE letter = ?", (letter,))
    for conversation in {conversation for _, conversation in dead}:
        connection.execute(_FORGET_IDS, (conversation,))
    return len(dead)
