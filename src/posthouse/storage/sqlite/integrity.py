"""Looking at every row and every content octet, in bounded memory, while others go on writing.

Each step reads a page of rows in a query of its own, which sees one moment; nothing is held open between two of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import apsw

from posthouse.mail.ids import QueueId
from posthouse.mail.journey import from_json
from posthouse.mail.words import count
from posthouse.storage.errors import StorageDamaged
from posthouse.storage.filesystem import FileSystem
from posthouse.storage.sqlite.claims import OF_NOBODY, free
from posthouse.storage.sqlite.connection import DATABASE, row, rows
from posthouse.storage.sqlite.content import CHUNK_OCTETS, SqliteContent
from posthouse.storage.sqlite.incarnation import orphans
from posthouse.storage.sqlite.journey_index import WORDS, not_found, strays
from posthouse.storage.sqlite.mail_index import LETTER_WORDS
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.upkeep import Flaw, Progress, Tell

PAGE_CONTENTS = 16
"""2 MiB of content in memory at most: what is larger is in files."""
PAGE_ROWS = 500
MOST_LOST_JOURNEYS = 1_000_000
_FLAWS_OF_SQLITE = 100
_RESTORE = "restore the last good backup: posthouse restore DIR"
_MEND = "run: posthouse check --store --mend"

_CONTENTS = """
SELECT content, size_octets, sha256, codec, file, octets FROM contents WHERE content > ? ORDER BY content LIMIT ?"""
_CONTENT_TOTAL = "SELECT count(*), coalesce(sum(size_octets), 0) FROM contents"
_ENTRIES = """
SELECT entries.folder, entries.uid, entries.account, entries.uidl, entries.size_octets,
    length(entries.prefix) + length(messages.prefix) + contents.size_octets,
    entries.content = messages.content, entries.account = folders.account, entries.uid < folders.next_uid
FROM entries LEFT JOIN messages USING (queue_id) LEFT JOIN contents ON contents.content = messages.content
LEFT JOIN folders ON folders.folder = entries.folder
WHERE (entries.folder, entries.uid) > (?, ?) ORDER BY entries.folder, entries.uid LIMIT ?"""
_FOLDERS = """
SELECT folder, account, name, message_count, used_octets, entry_count, entry_octets FROM (
    SELECT folder, account, name, message_count, used_octets,
        (SELECT count(*) FROM entries WHERE entries.folder = folders.folder) AS entry_count,
        (SELECT coalesce(sum(size_octets), 0) FROM entries WHERE entries.folder = folders.folder) AS entry_octets
    FROM folders WHERE folder > ? ORDER BY folder LIMIT ?)"""
_MESSAGES = """
SELECT queue_id, EXISTS (SELECT 1 FROM entries WHERE entries.queue_id = messages.queue_id)
    OR EXISTS (SELECT 1 FROM spool WHERE spool.queue_id = messages.queue_id)
    OR queue_id IN (SELECT queue_id FROM unreferenced)
FROM messages WHERE queue_id > ? ORDER BY queue_id LIMIT ?"""
_SPOOL = """
SELECT queue_id, recipient_number, (claim_token IS NULL) = (claim_incarnation IS NULL),
    claim_incarnation IS NULL OR EXISTS (SELECT 1 FROM incarnations WHERE incarnation = claim_incarnation),
    sending_at IS NULL OR claim_token IS NOT NULL OR held <> 0
FROM spool WHERE (queue_id, recipient_number) > (?, ?) ORDER BY queue_id, recipient_number LIMIT ?"""
_EVENTS = """
SELECT queue_id, event_number, kind, at, fields FROM events
WHERE (queue_id, event_number) > (?, ?) ORDER BY queue_id, event_number LIMIT ?"""
_IDENTITIES = f"""
SELECT local_part, domain FROM identities JOIN accounts USING (account)
WHERE removed_at IS NOT NULL OR domain IN (SELECT domain FROM domains) LIMIT {PAGE_ROWS}"""
_SIZES = "SELECT (SELECT count(*) FROM {table})"


class Inspector:
    """One look at all of a store."""

    def __init__(self, readers: Readers, content: SqliteContent, incarnation: str, tell: Tell) -> None:
        self._readers = readers
        self._content = content
        self._incarnation = incarnation
        self._tell = tell
        self.wrong_folders: list[int] = []
        self.unlisted_messages: list[str] = []
        self.lost_journeys: list[QueueId] = []
        self.words_damaged = self.letters_damaged = False

    async def flaws(self, *, rows_only: bool = False) -> AsyncGenerator[Flaw, None]:
        """What is wrong, as it is found. `rows_only`: content is not read, nor the folder looked at."""
        steps = (
            self._structure(),
            self._identities(),
            *(() if rows_only else (self._contents(),)),
            self._pages("entries", _ENTRIES, 2, _entry_flaw),
            self._pages("folders", _FOLDERS, 1, self._folder_flaw),
            self._pages("messages", _MESSAGES, 1, self._message_flaw),
            self._pages("spool", _SPOOL, 2, _spool_flaw),
            self._pages("events", _EVENTS, 2, _event_flaw),
            self._found_journeys(),
            *(() if rows_only else (self._files(),)),
        )
        for step in steps:
            try:
                async for flaw in step:
                    yield flaw
            except StorageDamaged as exc:
                # A page that cannot be read ends this step; the others may still say something.
                yield Flaw(check="structure", what=str(exc), mend=_RESTORE)

    async def _structure(self) -> AsyncGenerator[Flaw, None]:
        self._tell(Progress("structure", 0, 0))
        for flaw in await self._readers.query(_structure):
            self.words_damaged = self.words_damaged or WORDS in flaw.what
            self.letters_damaged = self.letters_damaged or LETTER_WORDS in flaw.what
            yield flaw

    async def _identities(self) -> AsyncGenerator[Flaw, None]:
        """Identities that nothing should have left behind: of nobody, or of an address that is ours."""
        for local_part, domain in await self._readers.query(lambda connection: rows(connection, _IDENTITIES)):
            address = f"{local_part}@{domain}"
            what = f"the identity {address} belongs to a removed account, or to a domain of this house"
            yield Flaw(check="identities", what=what, mend=f"run: posthouse identity remove {address}")

    async def _found_journeys(self) -> AsyncGenerator[Flaw, None]:
        """Journeys that what they tell does not lead to, or that are not there and are led to."""
        self._tell(Progress("journeys", 0, 0))
        lost = self.lost_journeys = await self.journeys_not_found()
        if lost:
            what = f"{count(len(lost), 'journey is', 'journeys are')} not found by Message-ID or by words of replies"
            yield Flaw(check="journey", what=f"{what}, or found in vain, such as {lost[0]}", mend=_MEND)

    async def journeys_not_found(self) -> list[QueueId]:
        """At most MOST_LOST_JOURNEYS of them."""
        lost = dict.fromkeys(await self._readers.query(lambda connection: strays(connection, MOST_LOST_JOURNEYS)))
        last: tuple[str, int] | None = ("", -1)
        while last is not None and len(lost) < MOST_LOST_JOURNEYS:
            missing, last = await self._readers.query(
                lambda connection, last=last: not_found(connection, last, PAGE_ROWS)  # type: ignore[misc]
            )
            lost |= dict.fromkeys(missing)
        return list(lost)

    async def _files(self) -> AsyncGenerator[Flaw, None]:
        self._tell(Progress("files", 0, 0))
        for flaw in await self._readers.query(self._stray_files):
            yield flaw

    async def _contents(self) -> AsyncGenerator[Flaw, None]:
        contents, total = await self._readers.query(lambda connection: row(connection, _CONTENT_TOTAL))
        last, done = 0, 0
        self._tell(Progress(f"content of {contents} messages", 0, total))
        while True:
            page = await self._readers.query(lambda connection, last=last: self._page_of_contents(connection, last))  # type: ignore[misc]
            for content, size_octets, flaw in page:
                done += size_octets
                last = content
                if flaw is not None:
                    yield flaw
            self._tell(Progress(f"content of {contents} messages", min(done, total), total))
            if len(page) < PAGE_CONTENTS:
                return

    def _page_of_contents(self, connection: apsw.Connection, last: int) -> list[tuple[int, int, Flaw | None]]:
        """(content, size, flaw) of some contents, each read to its last octet."""
        found: list[tuple[int, int, Flaw | None]] = []
        for content, size_octets, sha256, codec, file, octets in rows(connection, _CONTENTS, (last, PAGE_CONTENTS)):
            problem = None
            if codec:
                problem = f"has the unknown codec {codec!r}"
            elif file is None:
                problem = _difference([octets or b""], size_octets, sha256)
            else:
                problem = self._file_difference(file, size_octets, sha256)
            # A sweep may have removed row and file since the page was read.
            if problem is not None and row(connection, "SELECT 1 FROM contents WHERE content = ?", (content,)) is None:
                problem = None
            found.append((content, size_octets, None if problem is None else _content_flaw(content, file, problem)))
        return found

    def _file_difference(self, file: str, size_octets: int, sha256: bytes) -> str | None:
        path, disk = self._content.folder / file, self._content.file_system
        try:
            if (there := disk.size_octets(path)) != size_octets:
                return f"has {there} octets instead of {size_octets}"
            return _difference(_chunks(disk, path, size_octets), size_octets, sha256)
        except FileNotFoundError:
            return "is missing"
        except OSError as exc:
            return f"cannot be read ({exc.strerror})"

    async def _pages(
        self, table: str, sql: str, key_columns: int, judge: Callable[[Any], Flaw | None]
    ) -> AsyncGenerator[Flaw, None]:
        total: int = (await self._readers.query(lambda connection: row(connection, _SIZES.format(table=table))))[0]
        last: tuple[Any, ...] = _FIRST_KEYS[table]
        done = 0
        while True:
            self._tell(Progress(table, min(done, total), total))
            page = await self._readers.query(lambda connection, last=last: rows(connection, sql, (*last, PAGE_ROWS)))  # type: ignore[misc]
            for found in page:
                if (flaw := judge(found)) is not None:
                    yield flaw
            done += len(page)
            if len(page) < PAGE_ROWS:
                return
            last = page[-1][:key_columns]

    def _folder_flaw(self, found: Any) -> Flaw | None:
        folder, account, name, message_count, used_octets, entry_count, entry_octets = found
        if (message_count, used_octets) == (entry_count, entry_octets):
            return None
        self.wrong_folders.append(folder)
        counted = f"counts {message_count} entries of {used_octets} octets and has {entry_count} of {entry_octets}"
        return Flaw(check="counters", what=f"folder {name} of account {account} {counted}", mend=_MEND)

    def _message_flaw(self, found: Any) -> Flaw | None:
        queue_id, known = found
        if known:
            return None
        self.unlisted_messages.append(queue_id)
        what = f"message {queue_id} is in no maildrop and not in the queue, and would never be removed"
        return Flaw(check="messages", what=what, mend=_MEND, note=True)

    def _stray_files(self, connection: apsw.Connection) -> list[Flaw]:
        content = self._content
        left = orphans(connection, content.folder, content.file_system, self._incarnation, content.names_in_use)
        found = [
            Flaw(
                check="files",
                what=f"{content.folder / file} belongs to no message",
                mend="nothing is lost: a house that runs removes it within an hour",
                note=True,
            )
            for file in left
        ]
        data_dir = content.folder.parent
        return [*found, *_too_open(data_dir), *_writable_by_others(data_dir)]


_FIRST_KEYS: dict[str, tuple[Any, ...]] = {
    "entries": (0, 0),
    "folders": (0,),
    "messages": ("",),
    "spool": ("", -1),
    "events": ("", -1),
}


def _structure(connection: apsw.Connection) -> list[Flaw]:
    """What SQLite itself finds: pages, indexes, constraints, references."""
    said = [line for (line,) in rows(connection, f"PRAGMA integrity_check({_FLAWS_OF_SQLITE})")]
    flaws = [
        # What is found by words can be written again, from the journeys and the messages themselves.
        Flaw(check="structure", what=" ".join(line.split()), mend=_MEND if is_derived(line) else _RESTORE)
        for line in said
        if line != "ok"
    ]
    dangling = rows(connection, "PRAGMA foreign_key_check")[:_FLAWS_OF_SQLITE]
    return flaws + [
        Flaw(check="references", what=f"a row of {table} names a row of {parent} that is not there", mend=_RESTORE)
        for table, _, parent, _ in dangling
    ]


def is_derived(verdict: str) -> bool:
    """Whether SQLite speaks of an index of words, which can be made again."""
    return WORDS in verdict or LETTER_WORDS in verdict


def _chunks(disk: FileSystem, path: Path, size_octets: int) -> Iterator[bytes]:
    for offset in range(0, size_octets, CHUNK_OCTETS):
        yield disk.read(path, offset, min(CHUNK_OCTETS, size_octets - offset))


def _difference(chunks: Iterator[bytes] | list[bytes], size_octets: int, sha256: bytes) -> str | None:
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
    if size != size_octets:
        return f"has {size} octets instead of {size_octets}"
    return None if digest.digest() == sha256 else "has other octets than were received"


def _content_flaw(content: int, file: str | None, problem: str) -> Flaw:
    if file is None:
        return Flaw(check="content", what=f"content {content} {problem}", mend=_RESTORE)
    mend = f"copy content/{file} from a backup to the same place, or {_RESTORE}"
    return Flaw(check="content", what=f"content file content/{file} {problem}", mend=mend)


def _entry_flaw(found: Any) -> Flaw | None:
    folder, uid, account, uidl, size_octets, is_size, same_content, same_account, uid_known = found
    problem = None
    if is_size != size_octets:
        problem = f"is listed with {size_octets} octets and has {is_size}"
    elif not (same_content and same_account and uid_known):
        problem = "contradicts its folder or its message"
    elif not (0 < len(uidl) <= 70 and uidl.isascii() and uidl.isprintable() and " " not in uidl):
        problem = f"has the UIDL {uidl!a}, which POP3 cannot show"
    if problem is None:
        return None
    return Flaw(check="entries", what=f"entry {uid} of folder {folder} of account {account} {problem}", mend=_RESTORE)


def _spool_flaw(found: Any) -> Flaw | None:
    queue_id, number, whole, claimant_known, sent_once = found
    if not (whole and claimant_known):
        what = f"recipient {number} of message {queue_id} is claimed by nobody who could let go"
        return Flaw(check="spool", what=what, mend=f"{_MEND}; then: posthouse queue retry {queue_id}")
    if not sent_once:
        what = f"recipient {number} of message {queue_id} may have been sent already, and would be sent again"
        return Flaw(check="spool", what=what, mend=f"{_MEND}; then: posthouse queue show {queue_id}")
    return None


def _event_flaw(found: Any) -> Flaw | None:
    queue_id, number, kind, at, fields = found
    try:
        from_json(kind, queue_id, at, fields)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        what = f"event {number} of journey {queue_id} cannot be read ({type(exc).__name__})"
        return Flaw(check="journey", what=what, mend="no mail is lost: only this journey cannot be told whole")
    return None


def _too_open(data_dir: Path) -> Iterator[Flaw]:
    """What others than the owner may read: mail, password hashes, keys."""
    files = [data_dir / name for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", "content", "incarnations")]
    for path in [*files, *data_dir.glob("*.key"), *data_dir.glob("*.snapshot")]:
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            continue
        if mode & 0o077:
            mend = f"run: chmod go= {path}"
            yield Flaw(check="permissions", what=f"{path} is open to others (mode {mode & 0o777:o})", mend=mend)


def _writable_by_others(data_dir: Path) -> Iterator[Flaw]:
    """A folder in which others could put their files in the place of ours."""
    mode = data_dir.stat().st_mode
    if mode & 0o022:
        what = f"{data_dir} can be written by others (mode {mode & 0o777:o})"
        yield Flaw(check="permissions", what=what, mend=f"run: chmod go-w {data_dir}")


def mend_counters(connection: apsw.Connection, folder: int) -> None:
    """Count a folder anew."""
    connection.execute(
        """UPDATE folders SET
            message_count = (SELECT count(*) FROM entries WHERE entries.folder = folders.folder),
            used_octets = (SELECT coalesce(sum(size_octets), 0) FROM entries WHERE entries.folder = folders.folder)
        WHERE folder = ?""",
        (folder,),
    )


def mend_messages(connection: apsw.Connection, queue_ids: list[str], now: float) -> None:
    """Let the sweep look at them."""
    connection.execute(
        "INSERT OR IGNORE INTO unreferenced SELECT ?, value FROM json_each(?)", (now, json.dumps(queue_ids))
    )


def mend_claims(connection: apsw.Connection, now: float) -> int:
    """Free some of the claims whose claimant is not known, and hold what may have been sent; how many."""
    return free(connection, OF_NOBODY, (), now)
