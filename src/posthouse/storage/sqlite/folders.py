"""What a maildrop's owner does with its entries: flags, other folders, deleting for good."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from functools import partial

import apsw

from posthouse.mail.folders import FolderSummary
from posthouse.mail.ids import AccountId, Uid
from posthouse.mail.journey import JourneyEvent
from posthouse.mail.world import Clock
from posthouse.storage.errors import AccountGone
from posthouse.storage.sqlite.connection import row, rows
from posthouse.storage.sqlite.journey import append_events
from posthouse.storage.sqlite.maildrops import remove_entries
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.sqlite.writer import Writer

STEP_ENTRIES = 500
"""In one transaction: others write in between."""

_ALL = """
SELECT name, message_count, used_octets, (
    SELECT count(*) FROM entries WHERE entries.folder = folders.folder AND NOT (' ' || flags || ' ') LIKE '% \\Seen %')
FROM folders WHERE account = ? ORDER BY name"""
_FOLDER = "SELECT folder FROM folders WHERE account = ? AND name = ?"
_NEW = """
INSERT INTO folders(account, name, uid_validity)
SELECT account, ?2, ?3 FROM accounts WHERE account = ?1 AND removed_at IS NULL ON CONFLICT DO NOTHING"""
_FLAGS = "SELECT DISTINCT flags FROM entries WHERE folder = ? AND uid IN (SELECT value FROM json_each(?))"
_CHANGED = "UPDATE folders SET change_counter = change_counter + 1 WHERE folder = ? RETURNING change_counter"
_FLAG = """
UPDATE entries SET flags = ?3, changed = ?4
WHERE folder = ?1 AND uid IN (SELECT value FROM json_each(?2)) AND flags = ?5"""
_SIZES = """
SELECT uid, size_octets FROM entries WHERE folder = ? AND uid IN (SELECT value FROM json_each(?)) ORDER BY uid"""
_LEAVE = """
UPDATE folders SET message_count = message_count - ?2, used_octets = used_octets - ?3,
    change_counter = change_counter + 1 WHERE folder = ?1"""
_ENTER = """
UPDATE folders SET message_count = message_count + ?2, used_octets = used_octets + ?3,
    change_counter = change_counter + 1, next_uid = next_uid + ?2
WHERE folder = ?1 RETURNING next_uid - ?2, change_counter"""
_MOVE = "UPDATE entries SET folder = ?, uid = ?, changed = ? WHERE folder = ? AND uid = ?"


class SqliteFolders:
    """Implements `storage.interfaces.Folders`."""

    def __init__(self, writer: Writer, readers: Readers, clock: Clock) -> None:
        self._writer = writer
        self._readers = readers
        self._clock = clock

    async def all(self, account: AccountId) -> tuple[FolderSummary, ...]:
        found = await self._readers.query(lambda connection: rows(connection, _ALL, (account,)))
        return tuple(FolderSummary(*values) for values in found)

    async def flag(
        self,
        account: AccountId,
        folder: str,
        uids: Sequence[Uid],
        *,
        add: Collection[str] = (),
        remove: Collection[str] = (),
    ) -> int:
        changed = 0
        for step in _steps(uids):
            work = partial(_flag, place=(account, folder), uids=step, add=set(add), remove=set(remove))
            changed += await self._writer.submit(work)
        return changed

    async def move(self, account: AccountId, folder: str, uids: Sequence[Uid], to: str) -> int:
        now = self._clock.now()
        if folder == to:
            return 0
        moved = 0
        for step in _steps(uids):
            work = partial(_move, place=(account, folder), uids=step, to=to, now=now)
            moved += await self._writer.submit(work)
        return moved

    async def remove(
        self, account: AccountId, folder: str, uids: Sequence[Uid], events: Sequence[JourneyEvent] = ()
    ) -> None:
        now = self._clock.now()

        def work(connection: apsw.Connection) -> None:
            number = _number(connection, account, folder)
            if number is not None:
                remove_entries(connection, number, uids, now)
            append_events(connection, events)

        await self._writer.submit(work)


def _steps(uids: Sequence[Uid]) -> Iterator[str]:
    for at in range(0, len(uids), STEP_ENTRIES):
        yield json.dumps(list(uids[at : at + STEP_ENTRIES]))


def _number(connection: apsw.Connection, account: AccountId, folder: str) -> int | None:
    found = row(connection, _FOLDER, (account, folder))
    return None if found is None else int(found[0])


def _flag(connection: apsw.Connection, place: tuple[AccountId, str], uids: str, add: set[str], remove: set[str]) -> int:
    folder = _number(connection, *place)
    if folder is None:
        return 0
    todo = {}
    for (flags,) in rows(connection, _FLAGS, (folder, uids)):
        wanted = " ".join(sorted((set(flags.split()) | add) - remove))
        if wanted != flags:
            todo[flags] = wanted
    if not todo:
        return 0
    (changed,) = row(connection, _CHANGED, (folder,))
    count = 0
    # What was changed once is not met again under the spelling of another's flags: `changed` tells it apart.
    for flags, wanted in todo.items():
        connection.execute(f"{_FLAG} AND changed <> ?4", (folder, uids, wanted, changed, flags))
        count += connection.changes()
    return count


def _move(connection: apsw.Connection, place: tuple[AccountId, str], uids: str, to: str, now: float) -> int:
    source = _number(connection, *place)
    found = [] if source is None else rows(connection, _SIZES, (source, uids))
    if not found:
        return 0
    connection.execute(_NEW, (place[0], to, int(now)))
    target = _number(connection, place[0], to)
    if target is None:
        raise AccountGone(f"account {place[0]} was removed")
    count, octets = len(found), sum(size for _, size in found)
    connection.execute(_LEAVE, (source, count, octets))
    first, changed = row(connection, _ENTER, (target, count, octets))
    connection.executemany(
        _MOVE, [(target, first + number, changed, source, uid) for number, (uid, _) in enumerate(found)]
    )
    return count
