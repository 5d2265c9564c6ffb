"""Moving commits from the WAL into the database file, without making sessions wait for it.

A second connection checkpoints PASSIVE on a thread of its own; above a limit the writer itself stops for a TRUNCATE.
"""

from __future__ import annotations

import threading
from pathlib import Path

import apsw

from posthouse.storage.sqlite.connection import BUSY_TIMEOUT_MS, PAGE_OCTETS, forget, open_writable

PASSIVE_FRAMES = 4 * 1024 * 1024 // PAGE_OCTETS
TRUNCATE_FRAMES = 64 * 1024 * 1024 // PAGE_OCTETS
_TRUNCATE_TRIES = 20
READERS_WAIT_MS = 250
"""How long sessions wait for a reader that is in the way: a backup reads for minutes, and the WAL may grow so long."""


class Checkpointer:
    """Counts the frames in the WAL and keeps them few. With `threaded` false all happens on the writer's thread."""

    def __init__(self, connection: apsw.Connection, path: Path, *, vfs: str | None, threaded: bool) -> None:
        self._writer = connection
        self._frames = 0
        self._next_passive = PASSIVE_FRAMES
        self._next_truncate = TRUNCATE_FRAMES
        self._one_at_a_time = threading.Lock()
        self._wanted = threading.Event()
        self._closed = False
        self._second = open_writable(path, vfs=vfs)
        connection.set_wal_hook(self._count)
        self._thread: threading.Thread | None = None
        if threaded:
            self._thread = threading.Thread(target=self._run, name="sqlite-checkpointer", daemon=True)
            self._thread.start()

    def committed(self) -> None:
        """Called by the writer between two transactions."""
        if self._frames >= self._next_truncate:
            self._shorten()
        elif self._frames >= self._next_passive:
            self._next_passive = self._frames + PASSIVE_FRAMES
            if self._thread is not None:
                self._wanted.set()
            else:
                self._checkpoint_passive()
        elif self._frames < self._next_passive - PASSIVE_FRAMES:
            # The WAL began anew.
            self._next_passive = PASSIVE_FRAMES
            self._next_truncate = TRUNCATE_FRAMES

    def truncate(self, connection: apsw.Connection) -> None:
        """Copy all commits to the database and cut the WAL off. Raises apsw.Error when that could not be done."""
        with self._one_at_a_time:
            for left in range(_TRUNCATE_TRIES, 0, -1):
                try:
                    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                    self._frames = 0
                    return
                except apsw.BusyError:
                    # Another process is at a checkpoint of its own, which SQLite does not wait for.
                    if left == 1:
                        raise
                    self._wanted.wait(0.1)

    def close(self) -> None:
        self._stop()
        self._second.close(True)

    def abandon(self) -> None:
        self._stop()
        forget(self._second)

    def _stop(self) -> None:
        self._closed = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _count(self, _connection: apsw.Connection, _database: str, frames: int) -> int:
        self._frames = frames
        return apsw.SQLITE_OK

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closed:
                return
            self._checkpoint_passive()

    def _checkpoint_passive(self) -> None:
        try:
            with self._one_at_a_time:
                self._second.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error:
            # Nothing is lost: the commits stay in the WAL, and the next checkpoint copies them all again.
            return

    def _shorten(self) -> None:
        try:
            with self._one_at_a_time:
                self._writer.set_busy_timeout(READERS_WAIT_MS)
                try:
                    self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                finally:
                    self._writer.set_busy_timeout(BUSY_TIMEOUT_MS)
            self._frames = 0
            self._next_passive = PASSIVE_FRAMES
            self._next_truncate = TRUNCATE_FRAMES
        except apsw.Error:
            # A reader or another process is in the way: let the WAL grow a little before sessions wait again.
            self._next_truncate = self._frames + TRUNCATE_FRAMES // 4
