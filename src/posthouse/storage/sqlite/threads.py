"""Where reading and disk work happens: on a small pool of threads, or inline for simulation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import apsw

from posthouse.storage.sqlite.connection import forget, open_reader
from posthouse.storage.sqlite.errors import storage_errors

READER_THREADS = 4

T = TypeVar("T")


class Readers:
    """Runs queries on connections that only read, and disk work that must not stop the loop.

    `here` is the connection of the loop's own thread, for point look-ups.
    """

    def __init__(self, path: Path, *, vfs: str | None, threaded: bool) -> None:
        self._path = path
        self._vfs = vfs
        self.here = open_reader(path, vfs=vfs)
        self._own = threading.local()
        self._opened: list[apsw.Connection] = []
        self._pool = ThreadPoolExecutor(READER_THREADS, "sqlite-reader") if threaded else None

    async def query(self, work: Callable[[apsw.Connection], T]) -> T:
        """Run `work`, which ends all its queries, on a connection off the loop."""
        with storage_errors():
            if self._pool is None:
                return work(self.here)
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, work)

    async def disk(self, work: Callable[[], T]) -> T:
        """Run file work off the loop."""
        with storage_errors():
            if self._pool is None:
                return work()
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def begin(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Begin file work off the loop; its errors are still those of the system."""
        loop = asyncio.get_running_loop()
        if self._pool is not None:
            return loop.run_in_executor(self._pool, work)
        done: asyncio.Future[T] = loop.create_future()
        try:
            done.set_result(work())
        except Exception as exc:  # noqa: BLE001  (whoever waits for it is told)
            done.set_exception(exc)
        return done

    async def close(self) -> None:
        if self._pool is not None:
            await asyncio.to_thread(self._pool.shutdown)
        for connection in (self.here, *self._opened):
            connection.close(True)

    def abandon(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        for connection in (self.here, *self._opened):
            forget(connection)

    def _run(self, work: Callable[[apsw.Connection], T]) -> T:
        connection: apsw.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = open_reader(self._path, vfs=self._vfs)
            self._opened.append(connection)
        return work(connection)
