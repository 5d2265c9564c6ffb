"""Incarnations: each process has a row and holds a lock on a file of its own, which its death releases.

Whoever gets the lock of a row's file may free that row's claims. A row whose file is missing (the data came from
another machine) is dead too: the file is always locked before the row is written.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from posthouse.storage.filesystem import FileSystem
from posthouse.storage.sqlite.claims import OF_INCARNATION, free
from posthouse.storage.sqlite.connection import row, rows


class Incarnation:
    """This process's right to its claims and drafts."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder
        self._path = folder / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release(remove=True)
            raise

    def begin(self, connection: apsw.Connection, now: float) -> None:
        connection.execute("INSERT INTO incarnations(incarnation, started_at) VALUES (?, ?)", (self.name, now))

    def prove(self, connection: apsw.Connection) -> None:
        """Write something, and nothing that stays: SQLite would not write what is as it was."""
        name = f"{self.name}-proof"
        connection.execute("INSERT INTO incarnations(incarnation, started_at, dead) VALUES (?, 0, 1)", (name,))
        connection.execute("DELETE FROM incarnations WHERE incarnation = ?", (name,))

    def end(self, connection: apsw.Connection, now: float) -> None:
        """Give up what we still claim."""
        while free(connection, OF_INCARNATION, (self.name,), now):
            pass
        connection.execute("DELETE FROM incarnations WHERE incarnation = ?", (self.name,))

    def release(self, *, remove: bool) -> None:
        """Let go of the lock; without `remove`, as the death of a process does."""
        if self._descriptor >= 0:
            if remove:
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def others(self, connection: apsw.Connection) -> list[str]:
        """The incarnations with a row, but ours."""
        sql = "SELECT incarnation FROM incarnations WHERE incarnation <> ?"
        return [name for (name,) in rows(connection, sql, (self.name,))]

    @contextmanager
    def taking_over(self, name: str) -> Iterator[bool]:
        """Whether that incarnation is dead; nobody else takes it over meanwhile."""
        path = self._folder / name
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            yield True
            return
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(descriptor)

    def forget(self, name: str) -> None:
        """Remove the lock file of a dead incarnation, after its row."""
        (self._folder / name).unlink(missing_ok=True)


def free_claims(connection: apsw.Connection, name: str, now: float) -> int:
    """Mark an incarnation dead and free some of its claims; how many."""
    connection.execute("UPDATE incarnations SET dead = 1 WHERE incarnation = ?", (name,))
    return free(connection, OF_INCARNATION, (name,), now, died=True)


def orphans(
    connection: apsw.Connection, folder: Path, file_system: FileSystem, ours: str, in_use: Callable[[], frozenset[str]]
) -> list[str]:
    """Content files that no row names, relative to `folder`: of no living incarnation, or ours and of no draft."""
    found = [
        f"{part}/{name}"
        for part in file_system.names(folder)
        if len(part) == 2
        for name in file_system.names(folder / part)
    ]
    # Read after the names: an incarnation commits its row before it creates its first file.
    living = {name for (name,) in rows(connection, "SELECT incarnation FROM incarnations WHERE dead = 0")}
    # Read before the rows: a draft's file is in use until its row is committed.
    kept = in_use()
    return [
        file
        for file in found
        if (_maker(file) not in living or (_maker(file) == ours and file not in kept))
        and row(connection, "SELECT 1 FROM contents WHERE file = ?", (file,)) is None
    ]


def _maker(file: str) -> str:
    """The incarnation that made a content file."""
    return file[3:].partition("-")[0]
