"""Maildrops: folders and their entries, and the right to expunge."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import apsw

from posthouse.mail.folders import INBOX
from posthouse.mail.ids import AccountId, Uid
from posthouse.mail.journey import JourneyEvent
from posthouse.mail.maildrop import InUse, Listing, MaildropLock
from posthouse.mail.world import Clock, Random
from posthouse.storage.errors import AccountGone
from posthouse.storage.observer import Nobody, Observer
from posthouse.storage.sqlite.connection import row, rows
from posthouse.storage.sqlite.content import SqliteContent, chunks
from posthouse.storage.sqlite.errors import storage_errors
from posthouse.storage.sqlite.journey import append_events
from posthouse.storage.sqlite.maildrop_locks import LOCK_FILE, MaildropLocks
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.sqlite.writer import Writer

REMEMBERED_FOLDERS = 10_000
_LIST = """
SELECT uid, uidl, size_octets, flags, content, queue_id FROM entries
WHERE folder = (SELECT folder FROM folders WHERE account = ? AND name = ?) ORDER BY uid"""
_INTERNATIONALISED = """
SELECT uid FROM entries JOIN messages USING (queue_id)
WHERE folder = (SELECT folder FROM folders WHERE account = ? AND name = ?) AND uid > ? AND smtputf8
AND (eight_bit_header
    OR length(CAST(messages.prefix AS TEXT)) <> length(messages.prefix)
    OR length(CAST(entries.prefix AS TEXT)) <> length(entries.prefix))"""
_READ = """
SELECT entries.prefix, messages.prefix, contents.size_octets, contents.file, contents.octets
FROM folders JOIN entries USING (folder) JOIN messages USING (queue_id)
JOIN contents ON contents.content = messages.content
WHERE folders.account = ? AND folders.name = ? AND entries.uid = ?"""
_INBOX = "SELECT folder FROM folders WHERE account = ? AND name = ?"
_EXPUNGE = """
DELETE FROM entries WHERE folder = ?1 AND uid IN (SELECT value FROM json_each(?2)) RETURNING queue_id, size_octets"""
_EXPUNGED = """
UPDATE folders SET message_count = message_count - ?2, used_octets = used_octets - ?3,
    change_counter = change_counter + 1 WHERE folder = ?1"""
_UNREFERENCED = "INSERT OR IGNORE INTO unreferenced VALUES (?, ?)"
_ACCOUNT = "SELECT 1 FROM accounts WHERE account = ? AND removed_at IS NULL"


class SqliteMaildrops:
    """Entries of accounts' folders."""

    def __init__(self, writer: Writer, readers: Readers, content: SqliteContent, clock: Clock, random: Random) -> None:
        self._writer = writer
        self._readers = readers
        self._content = content
        self._clock = clock
        self.observer: Observer = Nobody()
        self._internationalised: OrderedDict[tuple[AccountId, str], tuple[int, frozenset[Uid]]] = OrderedDict()
        self._locks = MaildropLocks(content.folder.parent / LOCK_FILE, random)

    async def lock(self, account: AccountId) -> MaildropLock | InUse:
        with storage_errors():
            if row(self._readers.here, _ACCOUNT, (account,)) is None:
                raise AccountGone(f"account {account} was removed")
            return self._locks.take(account) or InUse()

    async def unlock(self, lock: MaildropLock) -> None:
        with storage_errors():
            self._locks.release(lock)

    def close(self) -> None:
        """Release every lock, as the end of the process does."""
        self._locks.close()

    async def list(self, account: AccountId, folder: str = INBOX) -> Listing:
        key = (account, folder)
        seen, known = self._internationalised.get(key, (0, frozenset()))

        def find(connection: apsw.Connection) -> tuple[list[Any], list[Any]]:
            found = rows(connection, _LIST, key)
            new = found and found[-1][0] > seen
            return found, rows(connection, _INTERNATIONALISED, (*key, seen)) if new else []

        found, uids = await self._readers.query(find)
        if not found:
            return Listing()
        known |= {uid for (uid,) in uids}
        self._remember(key, max(seen, found[-1][0]), known)
        columns: Any = zip(*found, strict=True)
        listing = Listing(*columns)
        return replace(listing, internationalised=known.intersection(listing.uids)) if known else listing

    def _remember(self, key: tuple[AccountId, str], seen: int, internationalised: frozenset[Uid]) -> None:
        """Which entries need UTF8 is asked once for each: uids only grow, and what they name never changes."""
        self._internationalised[key] = (seen, internationalised)
        self._internationalised.move_to_end(key)
        if len(self._internationalised) > REMEMBERED_FOLDERS:
            self._internationalised.popitem(last=False)

    async def read(self, account: AccountId, uid: Uid, folder: str = INBOX) -> AsyncGenerator[bytes, None]:
        found = await self._readers.query(lambda connection: row(connection, _READ, (account, folder, uid)))
        if found is None:
            raise KeyError(uid)
        entry_prefix, message_prefix, size_octets, file, octets = found
        if file is None:
            for chunk in chunks(b"".join((entry_prefix, message_prefix, octets))):
                yield chunk
            return
        for chunk in chunks(entry_prefix + message_prefix):
            yield chunk
        async for chunk in self._content.file_chunks(file, size_octets):
            yield chunk

    async def expunge(self, lock: MaildropLock, uids: Sequence[Uid], events: Sequence[JourneyEvent]) -> bool:
        now = self._clock.now()

        def work(connection: apsw.Connection) -> bool:
            if not self._locks.holds(lock):
                return False
            inbox = row(connection, _INBOX, (lock.account, INBOX))
            if inbox is not None:
                remove_entries(connection, inbox[0], uids, now)
            append_events(connection, events)
            return True

        expunged = await self._writer.submit(work)
        if expunged:
            self.observer.happened(events)
        return expunged

    async def used_octets(self, account: AccountId) -> int:
        with storage_errors():
            sql = "SELECT coalesce(sum(used_octets), 0) FROM folders WHERE account = ?"
            used: int = row(self._readers.here, sql, (account,))[0]
        return used


def remove_entries(connection: apsw.Connection, folder: int, uids: Sequence[int], now: float) -> None:
    """Remove entries of one folder, those that are still there, and keep its counts."""
    removed: list[Any] = rows(connection, _EXPUNGE, (folder, json.dumps(list(uids))))
    if removed:
        connection.execute(_EXPUNGED, (folder, len(removed), sum(size for _, size in removed)))
        connection.executemany(_UNREFERENCED, [(now, queue_id) for queue_id, _ in removed])
