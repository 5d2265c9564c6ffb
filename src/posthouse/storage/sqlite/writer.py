"""The one writer: sessions hand it work, it commits many pieces in one transaction with one fsync.

Two forms of one object: a thread, and inline (on the caller's thread, deterministic, for simulation). An answer is
given only after COMMIT returned. What follows each failure stands in `Batches`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar, cast

import apsw

from posthouse.storage.errors import StorageBusy, StorageError
from posthouse.storage.sqlite.checkpoint import Checkpointer
from posthouse.storage.sqlite.errors import translated

MAX_PENDING = 4096
"""Pieces of work waiting; more callers wait until there is room."""
MAX_BATCH = 512
EXIT_STATUS = 70

T = TypeVar("T")
Work = Callable[[apsw.Connection], T]


def exit_now(why: str) -> None:
    """The default for a state that must not be answered from: one line, then the end of the process."""
    sys.stderr.write(f"posthouse: {why}\n")
    sys.stderr.flush()
    os._exit(EXIT_STATUS)


@dataclass(slots=True)
class Item:
    """One piece of work and what came of it. `then` gets (value, committed) on the loop, cancelled caller or not."""

    work: Work[Any]
    future: asyncio.Future[Any] | None = None
    then: Callable[[Any, bool], None] | None = None
    value: Any = None
    error: Exception | None = None


class Writer(Protocol):
    """Who commits."""

    async def submit(self, work: Work[T], then: Callable[[Any, bool], None] | None = None) -> T:
        """Run `work` on the connection inside a transaction; return its value once that is durable."""
        ...

    async def close(self) -> None: ...

    def abandon(self) -> None:
        """Stop as a killed process would."""
        ...


class _Void(Exception):
    """The transaction of the batch is no more, through one of its items."""


class Batches:
    """Commits batches on one connection; a refused item is not there, after a crash neither."""

    def __init__(
        self, connection: apsw.Connection, checkpointer: Checkpointer, on_fatal: Callable[[str], None]
    ) -> None:
        self._connection = connection
        self._checkpointer = checkpointer
        self._on_fatal = on_fatal

    def commit(self, items: list[Item]) -> None:
        """Give each item its value or error; nothing may be answered before this returns."""
        try:
            self._together(items)
        except _Void:
            for item in items:
                self._alone(item)

    def _together(self, items: list[Item]) -> None:
        execute = self._connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            for item in items:
                item.value, item.error = None, None
                execute("SAVEPOINT item")
                try:
                    item.value = item.work(self._connection)
                except (apsw.ConstraintError, StorageError, LookupError) as exc:
                    item.error = translated(exc)
                    execute("ROLLBACK TO item")
                execute("RELEASE item")
        except Exception as exc:
            self._roll_back()
            raise _Void from exc
        if not self._connection.in_transaction:
            raise _Void
        self._commit(items)

    def _alone(self, item: Item) -> None:
        item.value, item.error = None, None
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            item.value = item.work(self._connection)
        except Exception as exc:  # noqa: BLE001  (whatever it is, it is this item's answer)
            self._roll_back()
            item.error = translated(exc)
            if item.error is not exc:
                item.error.__cause__ = exc
            return
        self._commit([item])

    def _commit(self, items: list[Item]) -> None:
        """COMMIT. Raises _Void for a full disk when the items may do better one by one."""
        try:
            self._connection.execute("COMMIT")
        except apsw.FullError as exc:
            # The commit frame itself did not fit, so nothing of it can come back.
            self._roll_back()
            if len(items) > 1:
                raise _Void from exc
            self._refuse(items, exc)
        except Exception as exc:  # noqa: BLE001  (any failure here leaves the same doubt)
            self._roll_back()
            self._unwrite(exc)
            self._refuse(items, exc)
        else:
            self._checkpointer.committed()

    def _unwrite(self, exc: Exception) -> None:
        """The refused rows may stand whole in the WAL, unsynced, and come back after a crash: cut it off first."""
        if isinstance(exc, apsw.BusyError):
            return
        try:
            self._checkpointer.truncate(self._connection)
            # SQLite does not sync what it cuts off; the next commit writes and syncs a new header, which does it.
            self._connection.execute("UPDATE directory_version SET version = version + 1")
        except Exception as second:
            self._on_fatal(f"a commit failed ({exc}) and the log could not be cut off after it ({second})")
            raise Stopped from second

    def _refuse(self, items: list[Item], exc: Exception) -> None:
        for item in items:
            # An item that failed on its own keeps its own answer.
            if item.error is None:
                item.value = None
                item.error = translated(exc)
                item.error.__cause__ = exc

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except apsw.Error as exc:
                self._on_fatal(f"a transaction could not be rolled back ({exc})")
                raise Stopped from exc


class Stopped(BaseException):
    """The writer ended through `on_fatal`; nobody may be answered any more."""


class InlineWriter:
    """Commits each piece of work at once, on the caller's thread."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    async def submit(self, work: Work[T], then: Callable[[Any, bool], None] | None = None) -> T:
        item = Item(work, None, then)
        self._batches.commit([item])
        if then is not None:
            then(item.value, item.error is None)
        if item.error is not None:
            raise item.error
        return cast(T, item.value)

    async def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass


class ThreadWriter:
    """Commits on a thread of its own whatever has gathered while the last commit was under way."""

    def __init__(self, batches: Batches, loop: asyncio.AbstractEventLoop) -> None:
        self._batches = batches
        self._loop = loop
        self._items: SimpleQueue[Item | None] = SimpleQueue()
        self._room = asyncio.Semaphore(MAX_PENDING)
        self._closed = False
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._thread.start()

    async def submit(self, work: Work[T], then: Callable[[Any, bool], None] | None = None) -> T:
        try:
            await self._room.acquire()
            if self._closed:
                self._room.release()
                raise StorageBusy("the storage is closed")
        except BaseException:
            if then is not None:
                then(None, False)
            raise
        future: asyncio.Future[T] = self._loop.create_future()
        self._items.put(Item(work, future, then))
        return await future

    async def close(self) -> None:
        """Commit what was submitted, then end the thread."""
        if not self._closed:
            self._closed = True
            self._items.put(None)
        await asyncio.to_thread(self._thread.join)

    def abandon(self) -> None:
        self._closed = self._abandoned = True
        self._items.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while batch := self._take():
                self._batches.commit(batch)
                self._loop.call_soon_threadsafe(self._answer, batch)
        except Stopped:
            return
        except RuntimeError:
            # The loop was closed under us: nobody is left to be answered.
            if not self._loop.is_closed():
                raise

    def _take(self) -> list[Item]:
        """The next batch, at least one item; empty when the writer is closed and all is done."""
        first = self._items.get()
        if first is None or self._abandoned:
            return []
        batch = [first]
        while len(batch) < MAX_BATCH:
            try:
                item = self._items.get_nowait()
            except Empty:
                break
            if item is None:
                self._items.put(None)
                break
            batch.append(item)
        return batch

    def _answer(self, batch: list[Item]) -> None:
        for item in batch:
            self._room.release()
            if item.then is not None:
                item.then(item.value, item.error is None)
            future = item.future
            if future is None or future.done():
                continue
            if item.error is not None:
                future.set_exception(item.error)
            else:
                future.set_result(item.value)
