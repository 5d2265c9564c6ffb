"""Several processes of one house, for more than one core: they share the ports and the store.

The parent holds the folder's lock and the listening sockets, forks the workers, replaces one that dies or hangs, and
ends them all. It takes no mail itself and has no loop and no threads, so there is little in it that could fail, and
forking is safe. A worker begins with the configuration that the parent holds, whatever the file says by then; it
learns from the end of a pipe that the parent is no more.
"""

from __future__ import annotations

import fcntl
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from posthouse.log import Log
from posthouse.net.siblings import LEADER, line

READY = b"r"
"""What a worker says once its doors are open."""
ALIVE = b"."
"""What it says now and then after that, while it works."""
SAID_WHY = 1
"""The exit status of a worker that has told what stands in its way."""
FAILURES = 5
"""So many deaths of one worker, each soon after its start, end the house."""
SOON_S = 60.0
KILL_AFTER_S = 20.0
FIRST_START_S = 3600.0
"""How long the first worker may take to open its doors: it may have a database to migrate."""
START_S = 120.0
"""The same for the others, and for those that replace one."""
SILENT_S = 60.0
"""A worker that says nothing for so long hangs, and so badly that its own watchdog could not end it."""
TURN_S = 1.0
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class AlreadyServed(Exception):
    """Another process serves this data folder; the message says so."""


class WorkerFailed(Exception):
    """A worker could not be started, or dies again and again. `told`: it has said why, in its one line on stderr."""

    def __init__(self, text: str, *, told: bool = False) -> None:
        super().__init__(text)
        self.told = told


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Which of the house's `count` processes this is. Number 0 also forwards and sweeps.

    `doors`: listening sockets that were bound before; None: this process is all there is, and binds its own.
    """

    number: int = 0
    count: int = 1
    doors: Mapping[str, tuple[socket.socket, ...]] | None = None
    lines: Mapping[int, socket.socket] = field(default_factory=dict)
    """To other workers by their number (`net/siblings.py`): from the first one to each, from each to the first."""

    @property
    def leads(self) -> bool:
        """Whether it does what only one process must."""
        return self.number == 0

    def of(self, limit: int) -> int:
        """Its share of a limit of the whole house."""
        return max(1, limit // self.count)


@dataclass(frozen=True, slots=True)
class ToParent:
    """A worker's side. Signals that it is sent wait until it lets them come (`HANDLED` are blocked when it begins)."""

    ends: int
    """A descriptor that is readable when the parent is no more."""
    said: int

    def say(self, word: bytes) -> None:
        """READY or ALIVE."""
        with suppress(OSError):
            os.write(self.said, word)


Work = Callable[[Part, ToParent], int]
"""What a worker does in its process, until it returns the exit status."""


@dataclass(slots=True)
class _Worker:
    """The parent's view of one. Times are those of the monotonic clock."""

    number: int
    pid: int
    hears: int
    started_at: float
    limit_s: float
    heard_at: float
    ready: bool = False


@dataclass(slots=True)
class Workers:
    """The parent's side: `run` until a signal, or until standard input ends where `until_eof`."""

    work: Work
    count: int
    doors: Mapping[str, tuple[socket.socket, ...]]
    log: Log
    reload: Callable[[], bool] = lambda: True
    """Called for SIGHUP; the workers are told when it returns true."""
    stopping: Callable[[], None] = lambda: None
    turn: Callable[[], None] = lambda: None
    """Called about each TURN_S."""
    until_eof: bool = False
    _lines: dict[int, tuple[socket.socket, socket.socket]] = field(default_factory=dict)
    _living: dict[int, _Worker] = field(default_factory=dict)
    _failures: dict[int, int] = field(default_factory=dict)
    _due: dict[int, float] = field(default_factory=dict)
    _opened: bool = False
    _kill_at: float | None = None
    _life: tuple[int, int] = (-1, -1)
    _wake: tuple[int, int] = (-1, -1)

    def run(self, ready: Callable[[], None]) -> None:
        """Start all workers, call `ready`, and keep their number up. Raises WorkerFailed."""
        self._life = os.pipe()
        self._lines = {number: line() for number in range(1, self.count)}
        with self._signals():
            try:
                # What is imported and parsed by now is shared, as long as no collection touches it.
                gc.collect()
                gc.freeze()
                # The first one alone: what is wrong with the store is said once, and mended or migrated by one.
                self._start(0, FIRST_START_S)
                while self._living or (self._due and self._kill_at is None):
                    self._wait()
                    self._open_next(ready)
                    self._look()
                    self.turn()
            finally:
                self._end()
                for descriptor in self._life:
                    os.close(descriptor)
                for end in (end for ends in self._lines.values() for end in ends):
                    end.close()

    def stop(self) -> None:
        """Take no more connections, and ask every worker to end gracefully."""
        if self._kill_at is not None:
            return
        self._kill_at = time.monotonic() + KILL_AFTER_S
        self._due.clear()
        for sockets in self.doors.values():
            for opened in sockets:
                opened.close()
        self.stopping()
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        for worker in self._living.values():
            with suppress(ProcessLookupError):
                os.kill(worker.pid, number)

    def _start(self, number: int, limit_s: float) -> None:
        hears, said = os.pipe()
        part = Part(number=number, count=self.count, doors=self.doors, lines=self._lines_of(number))
        # Until the worker is ready for them, for a signal's own effect is the end; ours would be taken by its copy.
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        pid = os.fork()
        if not pid:
            os.close(hears)
            self._be_worker(part, ToParent(self._life[0], said))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
        os.close(said)
        now = time.monotonic()
        self._living[number] = _Worker(number, pid, hears, now, limit_s, heard_at=now)

    def _lines_of(self, number: int) -> dict[int, socket.socket]:
        """The ends that a worker gets: the first one those to all others, any other the one to the first."""
        if number == LEADER:
            return {other: ends[0] for other, ends in self._lines.items()}
        return {LEADER: self._lines[number][1]}

    def _be_worker(self, part: Part, to_parent: ToParent) -> None:
        """In the new process: let go of what is the parent's, work, and never come back."""
        status = 70
        try:
            signal.set_wakeup_fd(-1)
            for number in HANDLED:
                signal.signal(number, signal.SIG_DFL)
            for descriptor in (*self._wake, self._life[1], *(worker.hears for worker in self._living.values())):
                os.close(descriptor)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os.close(nothing)
            status = self.work(part, to_parent)
        except BaseException:  # noqa: BLE001  (above this frame is the parent's code)
            sys.excepthook(*sys.exc_info())
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals are octets on a pipe, which `_wait` waits for."""
        self._wake = os.pipe()
        for descriptor in self._wake:
            os.set_blocking(descriptor, False)
        before = {number: signal.signal(number, lambda *_: None) for number in HANDLED}
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            for descriptor in self._wake:
                os.close(descriptor)

    def _wait(self) -> None:
        """Sleep until something happens, at most TURN_S, and take note of it."""
        poll = select.poll()
        workers = {worker.hears: worker for worker in self._living.values()}
        for descriptor in (self._wake[0], *workers):
            poll.register(descriptor, select.POLLIN)
        if self.until_eof and self._kill_at is None:
            poll.register(0, select.POLLIN)
        for descriptor, _events in poll.poll(TURN_S * 1000):
            if descriptor == self._wake[0]:
                self._take_signals(os.read(descriptor, 4096))
            elif descriptor in workers:
                self._hear(workers[descriptor])
            else:
                # Whoever holds the other end of our standard input is no more, or speaks.
                self.stop()

    def _take_signals(self, numbers: bytes) -> None:
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self.stop()
        elif signal.SIGHUP in numbers and self.reload():
            self._send(signal.SIGHUP)

    def _hear(self, worker: _Worker) -> None:
        said = os.read(worker.hears, 4096)
        worker.heard_at = time.monotonic()
        if said:
            worker.ready = worker.ready or READY in said
            return
        os.close(worker.hears)
        del self._living[worker.number]
        self._died(worker, os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1]))

    def _died(self, worker: _Worker, status: int) -> None:
        """Have it replaced. Raises WorkerFailed when there is no use in that."""
        if self._kill_at is not None:
            return
        if not self._opened and not worker.ready:
            text = f"worker {worker.number} ended with status {status} before it was ready"
            raise WorkerFailed(text, told=status == SAID_WHY)
        now, number = time.monotonic(), worker.number
        failures = self._failures.get(number, 0) + 1 if now - worker.started_at < SOON_S else 1
        self._failures[number] = failures
        self.log.error("worker died", worker=number, status=status, failures=failures)
        if failures >= FAILURES:
            raise WorkerFailed(f"worker {number} died {failures} times, each time soon after its start")
        self._due[number] = now + 0.1 * 4 ** (failures - 1)

    def _open_next(self, ready: Callable[[], None]) -> None:
        """Start the next of the first ones when those before are ready; after the last one the house is open."""
        if self._opened or self._kill_at is not None or self._due:
            return
        if not all(worker.ready for worker in self._living.values()):
            return
        if len(self._living) < self.count:
            self._start(len(self._living), START_S)
        else:
            self._opened = True
            ready()

    def _look(self) -> None:
        """Start what is due; kill what does not start, hangs, or does not end. Nothing acknowledged is lost by that."""
        now = time.monotonic()
        for number in [number for number, at in self._due.items() if at <= now]:
            del self._due[number]
            self._start(number, START_S)
        for worker in self._living.values():
            late = now - worker.heard_at >= (SILENT_S if worker.ready else worker.limit_s)
            if late and self._kill_at is None:
                self.log.error("worker hangs", worker=worker.number, ready=worker.ready)
            if late or (self._kill_at is not None and now >= self._kill_at):
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)

    def _end(self) -> None:
        """However it came to the end, no worker stays behind."""
        self.stop()
        while self._living:
            self._wait()
            self._look()


def lock_folder(data_dir: Path) -> int:
    """The descriptor of a lock that a `serve`, `upgrade`, `rollback` or `restore` holds while its processes live.

    Raises AlreadyServed.
    """
    path = data_dir / "serve.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise AlreadyServed(f"{path} cannot be opened: {exc.strerror}; make the house with: posthouse init") from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(descriptor)
        raise AlreadyServed(f"another process serves {data_dir} already (look: posthouse service status)") from exc
    _give_to_owner(descriptor, data_dir)
    return descriptor


def _give_to_owner(descriptor: int, data_dir: Path) -> None:
    """What root has just made in another's folder belongs to that one, whose commands lock it too."""
    made, owner = os.fstat(descriptor), data_dir.stat()
    # (With a second name it would be a file from elsewhere.)
    if os.geteuid() == 0 == made.st_uid and owner.st_uid != 0 and made.st_nlink == 1 and not made.st_size:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
