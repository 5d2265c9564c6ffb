"""Removing what nothing refers to any more: rows first, then files. Orphans may stay behind; a dangling row never."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import apsw

from posthouse.storage.filesystem import FileSystem
from posthouse.storage.sqlite.connection import row, rows
from posthouse.storage.sqlite.content import SqliteContent
from posthouse.storage.sqlite.hold import PAUSE_S, SweepLock
from posthouse.storage.sqlite.incarnation import Incarnation, free_claims, orphans
from posthouse.storage.sqlite.snapshots import old_snapshots
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.sqlite.writer import Writer

UNREFERENCED_KEPT_S = 24 * 3600
"""A POP3 session lasts 12 h at most; until then it may still read what it listed."""
_MESSAGES_AT_ONCE = 256
_VACUUM_PAGES = 256

_CANDIDATES = "SELECT since, queue_id FROM unreferenced WHERE since <= ? ORDER BY since, queue_id LIMIT ?"
_REFERENCED = """
SELECT EXISTS (SELECT 1 FROM entries WHERE queue_id = ?1) OR EXISTS (SELECT 1 FROM spool WHERE queue_id = ?1)"""
_REMOVE = "DELETE FROM messages WHERE queue_id = ? RETURNING content"
_REMOVE_CONTENT = """
DELETE FROM contents WHERE content = ?1 AND NOT EXISTS (SELECT 1 FROM messages WHERE content = ?1) RETURNING file"""


async def sweep_messages(
    writer: Writer, readers: Readers, lock: SweepLock, folder: Path, file_system: FileSystem, now: float
) -> None:
    """Remove messages that have been unreferenced long enough, some in each transaction.

    While a backup holds the sweep, nothing goes: the next sweep finds it all.
    """
    before = now - UNREFERENCED_KEPT_S
    while True:
        with lock.sweeping() as allowed:
            if not allowed:
                return
            more, files = await writer.submit(lambda connection: _remove_some(connection, before))
            await _remove_files(readers, folder, file_system, files)
        if not more:
            return
        await asyncio.sleep(PAUSE_S)


async def sweep_orphans(readers: Readers, content: SqliteContent, incarnation: str) -> None:
    """Remove content files that no row names: of the dead, and of our own those that no draft has."""

    def find(connection: apsw.Connection) -> list[str]:
        return orphans(connection, content.folder, content.file_system, incarnation, content.names_in_use)

    await _remove_files(readers, content.folder, content.file_system, await readers.query(find))


async def sweep_snapshots(readers: Readers, data_dir: Path, file_system: FileSystem, now: float) -> list[Path]:
    """Remove the snapshots of upgrades that can be undone no more; which."""

    def remove() -> list[Path]:
        old = old_snapshots(data_dir, now)
        for path in old:
            file_system.remove(path)
        return old

    return await readers.disk(remove)


async def _remove_files(readers: Readers, folder: Path, file_system: FileSystem, files: list[str]) -> None:
    for file in files:
        path = folder / file
        await readers.disk(lambda path=path: file_system.remove(path))  # type: ignore[misc]


def _remove_some(connection: apsw.Connection, before: float) -> tuple[bool, list[str]]:
    """(whether there may be more, the files whose rows are gone)."""
    candidates: list[Any] = rows(connection, _CANDIDATES, (before, _MESSAGES_AT_ONCE))
    files: list[str] = []
    for since, queue_id in candidates:
        connection.execute("DELETE FROM unreferenced WHERE since = ? AND queue_id = ?", (since, queue_id))
        if row(connection, _REFERENCED, (queue_id,))[0]:
            continue
        removed = row(connection, _REMOVE, (queue_id,))
        content = row(connection, _REMOVE_CONTENT, removed) if removed is not None else None
        if content is not None and content[0] is not None:
            files.append(content[0])
    rows(connection, f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
    return len(candidates) == _MESSAGES_AT_ONCE, files


async def take_over_dead(
    writer: Writer, readers: Readers, incarnation: Incarnation, content: SqliteContent, now: float
) -> bool:
    """Free the claims of dead incarnations and remove their orphans; whether rows became claimable."""
    freed = 0
    for name in await readers.query(incarnation.others):
        with incarnation.taking_over(name) as dead:
            if not dead:
                continue
            while step := await writer.submit(lambda connection, name=name: free_claims(connection, name, now)):  # type: ignore[misc]
                freed += step
            await sweep_orphans(readers, content, incarnation.name)
            await writer.submit(lambda connection, name=name: _forget(connection, name))  # type: ignore[misc]
            incarnation.forget(name)
    return freed > 0


def _forget(connection: apsw.Connection, name: str) -> None:
    connection.execute("DELETE FROM incarnations WHERE incarnation = ?", (name,))
