"""The one writer: sessions hand it work, it commits many pieces in one transaction with one fsync.

Two forms of one object: with a thread, and inline (on the caller's thread, deterministic, for simulation). An answer
is given only after COMMIT returned. What follows each failure stands in `Batches`.

The thread waits for the disk: COMMIT, locks, and `heavy` work. The statements of light work run on the loop: each
statement lets go of the interpreter lock, and two threads that pass it to and fro for every one of them took more
time than the statements (docs/decisions).
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar, cast

import apsw

from posthouse.storage.errors import StorageBusy, StorageError
from posthouse.storage.observer import Nobody, Observer
from posthouse.storage.sqlite.checkpoint import Checkpointer
from posthouse.storage.sqlite.connection import BUSY_TIMEOUT_MS
from posthouse.storage.sqlite.errors import translated
from posthouse.storage.sqlite.turn import WriterTurn

MAX_PENDING = 4096
"""Pieces of work waiting; more callers wait until there is room."""
MAX_BATCH = 512
GATHER_TURNS = 16
"""Turns of the loop that an opening transaction waits for sessions that are about to hand in work: nothing on an idle
loop, and on a busy one what halves the number of commits."""
STEP_ITEMS = 16
"""Light work done on the loop in one go: about 2 ms, then others have their turn."""
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
    heavy: bool = False
    value: Any = None
    error: Exception | None = None


class Writer(Protocol):
    """Who commits."""

    async def submit(self, work: Work[T], then: Callable[[Any, bool], None] | None = None, *, heavy: bool = True) -> T:
        """Run `work` on the connection inside a transaction; return its value once that is durable.

        Work that is not `heavy` is a dozen statements at most, on rows that are likely in memory.
        """
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
        self.observer: Observer = Nobody()

    def commit(self, items: list[Item]) -> None:
        """Give each item its value or error; nothing may be answered before this returns."""
        problem = self.begin()
        if problem is not None:
            self._refuse(items, problem)
            return
        try:
            for item in items:
                self.run(item)
        except _Void:
            self.decide(items, void=True)
        else:
            self.decide(items)

    def begin(self, *, wait: bool = True) -> apsw.Error | None:
        """Open the transaction; the error, with nothing open, when that failed or another process holds the lock."""
        if not wait:
            self._connection.set_busy_timeout(0)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except apsw.Error as exc:
            self._roll_back()
            return exc
        finally:
            if not wait:
                self._connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        return None

    def run(self, item: Item) -> None:
        """Do one item's work in the open transaction. Raises _Void, with nothing open, when all of it is void.

        Heavy work that is refused is undone alone. Light work is refused so seldom (an account was removed between
        RCPT and the end of content) that it pays for no savepoint of its own: all is void then, and repeated.
        """
        try:
            item.value, item.error = None, None
            if item.heavy:
                self._run_apart(item)
            else:
                item.value = item.work(self._connection)
        except Exception as exc:
            self._roll_back()
            raise _Void from exc
        if not self._connection.in_transaction:
            raise _Void

    def _run_apart(self, item: Item) -> None:
        execute = self._connection.execute
        execute("SAVEPOINT item")
        try:
            item.value = item.work(self._connection)
        except (apsw.ConstraintError, StorageError, LookupError) as exc:
            item.error = translated(exc)
            execute("ROLLBACK TO item")
        execute("RELEASE item")

    def decide(self, items: list[Item], *, void: bool = False) -> None:
        """Commit the open transaction; if it is void, repeat each item in one of its own."""
        try:
            if void:
                raise _Void
            self._commit(items)
        except _Void:
            for item in items:
                item.value, item.error = None, None
            for number, item in enumerate(items):
                problem = self.begin()
                if problem is not None:
                    # Each further item would wait as long for a lock that is not given.
                    self._refuse(items[number:], problem)
                    return
                self._alone(item)

    def _alone(self, item: Item) -> None:
        try:
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
        began = time.perf_counter()
        try:
            self._connection.execute("COMMIT")
        except apsw.FullError as exc:
            self.observer.commit_failed()
            # The commit frame itself did not fit, so nothing of it can come back.
            self._roll_back()
            if len(items) > 1:
                raise _Void from exc
            self._refuse(items, exc)
        except Exception as exc:  # noqa: BLE001  (any failure here leaves the same doubt)
            self.observer.commit_failed()
            self._roll_back()
            self._unwrite(exc)
            self._refuse(items, exc)
        else:
            self.observer.committed(len(items), time.perf_counter() - began)
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

    async def submit(self, work: Work[T], then: Callable[[Any, bool], None] | None = None, *, heavy: bool = True) -> T:
        item = Item(work, None, then, heavy)
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
    """Commits, with the help of a thread, whatever has gathered while the last commit was under way."""

    def __init__(self, batches: Batches, turn: WriterTurn, loop: asyncio.AbstractEventLoop) -> None:
        self._batches = batches
        self._turn = turn
        self._loop = loop
        self._waiting: deque[Item] = deque()
        self._gathered: list[Item] = []
        self._busy = False
        self._turns = 0
        self._overdue: asyncio.TimerHandle | None = None
        self._room = asyncio.Semaphore(MAX_PENDING)
        self._closed = False
        self._idle = asyncio.Event()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._thread.start()

    async def submit(self, work: Work[T], then: Callable[[Any, bool], None] | None = None, *, heavy: bool = True) -> T:
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
        self._waiting.append(Item(work, future, then, heavy))
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._begin)
        return await future

    async def close(self) -> None:
        """Commit what was submitted, then end the thread."""
        self._closed = True
        if self._busy:
            self._idle.clear()
            await self._idle.wait()
        self._jobs.put(None)
        # A process that has the turn and does not go on holds the thread for ever; it may not hold us.
        await asyncio.to_thread(self._thread.join, BUSY_TIMEOUT_MS / 1000)
        self._turn.close()

    def abandon(self) -> None:
        self._closed = True
        self._waiting.clear()
        self._gathered.clear()
        self._jobs.put(None)
        self._thread.join()
        self._turn.close()

    def _begin(self) -> None:
        """Gather, then get this process's turn to write: at once, or through the thread, which may wait for it."""
        if not self._waiting:
            self._rest()
        elif self._turns < GATHER_TURNS and len(self._waiting) < MAX_BATCH:
            self._turns += 1
            self._loop.call_soon(self._begin)
        elif self._turn.try_take():
            self._open()
        else:
            self._overdue = self._loop.call_later(BUSY_TIMEOUT_MS / 1000, self._refuse_waiting)
            self._jobs.put(self._await_turn)

    def _rest(self) -> None:
        self._busy = False
        self._idle.set()

    def _open(self) -> None:
        """Open a transaction, it being our turn: here for light work; with heavy work first, all on the thread."""
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        self._turns = 0
        self._gathered = []
        if not self._waiting:
            self._turn.give()
            self._rest()
        elif self._waiting[0].heavy or self._batches.begin(wait=False) is not None:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
            self._commit(batch, self._batches.commit)
        else:
            self._gather()

    def _gather(self) -> None:
        """Do some light work in the open transaction; when there is no more, let the thread commit it."""
        gathered, waiting = self._gathered, self._waiting
        try:
            for _ in range(STEP_ITEMS):
                if not waiting or waiting[0].heavy or len(gathered) >= MAX_BATCH:
                    self._commit(gathered, self._batches.decide)
                    return
                gathered.append(waiting.popleft())
                self._batches.run(gathered[-1])
        except _Void:
            self._commit(gathered, partial(self._batches.decide, void=True))
        else:
            self._loop.call_soon(self._gather)

    def _refuse_waiting(self) -> None:
        """Another process keeps its turn: nobody of ours waits longer than for SQLite's own lock."""
        self._overdue = self._loop.call_later(BUSY_TIMEOUT_MS / 1000, self._refuse_waiting)
        refused = list(self._waiting)
        self._waiting.clear()
        for item in refused:
            item.error = StorageBusy("another process writes and does not end")
        self._answer_all(refused)
        if self._closed:
            self._overdue.cancel()
            self._rest()

    def _commit(self, batch: list[Item], commit: Callable[[list[Item]], None]) -> None:
        """Have the thread decide a batch, after which others may have their turn."""

        def job() -> None:
            try:
                commit(batch)
            finally:
                self._turn.give()
            self._loop.call_soon_threadsafe(self._answer, batch)

        self._jobs.put(job)

    def _await_turn(self) -> None:
        self._turn.take()
        self._loop.call_soon_threadsafe(self._open)

    def _run(self) -> None:
        try:
            while job := self._jobs.get():
                job()
        except Stopped:
            return
        except RuntimeError:
            # The loop was closed under us: nobody is left to be answered.
            if not self._loop.is_closed():
                raise

    def _answer(self, batch: list[Item]) -> None:
        try:
            self._answer_all(batch)
        finally:
            # Whatever went wrong with an answer, the next batch must not wait for it.
            self._begin()

    def _answer_all(self, batch: list[Item]) -> None:
        for item in batch:
            self._room.release()
            self._answer_one(item)

    def _answer_one(self, item: Item) -> None:
        future = item.future
        if future is not None and not future.done():
            if item.error is not None:
                future.set_exception(item.error)
            else:
                future.set_result(item.value)
        if item.then is not None:
            try:
                item.then(item.value, item.error is None)
            except Exception as exc:  # noqa: BLE001  (told, and no other answer suffers)
                self._loop.call_exception_handler({"message": "after a commit", "exception": exc})
