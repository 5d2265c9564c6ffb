"""Several processes of one house, for more than one core: they share the ports and the store.

The parent holds the folder's lock and the listening sockets, starts the workers, replaces one that dies, and ends them
all. It takes no mail itself, so there is little in it that could fail. A worker ends when its standard input does:
that is how it learns that the parent is no more.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from posthouse.log import Log
from posthouse.net.plain_socket import PlainSocket
from posthouse.net.siblings import LEADER, line

READY = b"ready\n"
"""What a worker says on standard output once its doors are open."""
FAILURES = 5
"""So many deaths of one worker, each soon after its start, end the house."""
SOON_S = 60.0
KILL_AFTER_S = 20.0


class AlreadyServed(Exception):
    """Another process serves this data folder; the message says so."""


class WorkerFailed(Exception):
    """A worker could not be started, or dies again and again. It has said why on stderr."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Which of the house's `count` processes this is. Number 0 also forwards and sweeps.

    `doors`: listening sockets that the parent has bound; None: this process is all there is, and binds its own.
    """

    number: int = 0
    count: int = 1
    doors: Mapping[str, tuple[socket.socket, ...]] | None = None
    lines: Mapping[int, socket.socket] = field(default_factory=dict)
    """To other workers by their number (`watch/siblings.py`): from the first one to each, from each to the first."""
    data_dir: Path | None = None
    """The folder whose lock the parent holds; the configuration may name another one by now."""

    @property
    def leads(self) -> bool:
        """Whether it does what only one process must."""
        return self.number == LEADER

    def of(self, limit: int) -> int:
        """Its share of a limit of the whole house."""
        return max(1, limit // self.count)

    @classmethod
    def from_argument(cls, argument: str) -> Part:
        """What `to_argument` wrote, in the worker: descriptors become sockets."""
        fields = json.loads(argument)
        doors = {
            door: tuple(PlainSocket(fileno=descriptor) for descriptor in descriptors)
            for door, descriptors in fields["doors"].items()
        }
        lines = {int(number): socket.socket(fileno=end) for number, end in fields["lines"].items()}
        return cls(
            number=fields["number"], count=fields["count"], doors=doors, lines=lines, data_dir=Path(fields["data_dir"])
        )

    def to_argument(self) -> str:
        """For the command line of the worker, which inherits the descriptors."""
        doors = {door: [opened.fileno() for opened in sockets] for door, sockets in (self.doors or {}).items()}
        lines = {number: end.fileno() for number, end in self.lines.items()}
        fields = {"number": self.number, "count": self.count, "doors": doors, "lines": lines}
        return json.dumps({**fields, "data_dir": str(self.data_dir)})

    @property
    def descriptors(self) -> list[int]:
        """What the worker inherits."""
        doors = [opened.fileno() for sockets in (self.doors or {}).values() for opened in sockets]
        return doors + [end.fileno() for end in self.lines.values()]


class Workers:
    """The parent's side: `run` until `stop`."""

    def __init__(
        self,
        command: Sequence[str],
        count: int,
        doors: Mapping[str, tuple[socket.socket, ...]],
        log: Log,
        *,
        data_dir: Path,
        lock: int,
    ) -> None:
        """`command` starts a worker when `--worker ARGUMENT` is put behind it. `lock`: see `lock_folder`.

        Workers inherit the lock, so that it is held until the last process of the house has ended, even where the
        parent was killed: who has it must not find mail being taken.
        """
        self._command = tuple(command)
        self._count = count
        self._doors = doors
        self._log = log
        self._data_dir = data_dir
        self._lock = lock
        self._lines: dict[int, tuple[socket.socket, socket.socket]] = {}
        self._processes: dict[int, Process] = {}
        self._ready: set[int] = set()
        self._reload_later: set[int] = set()
        self._stopping = asyncio.Event()

    async def run(self, ready: Callable[[], None]) -> None:
        """Start all workers, call `ready`, and keep their number up. Raises WorkerFailed."""
        self._lines = {number: line() for number in range(1, self._count)}
        try:
            # The first one alone: what is wrong with the store is said once, and mended or migrated by one.
            await self._start(0)
            for number in range(1, self._count):
                await self._start(number)
            if not self._stopping.is_set():
                ready()
            async with asyncio.TaskGroup() as group:
                for number in range(self._count):
                    group.create_task(self._keep(number))
        except* WorkerFailed as failures:
            raise failures.exceptions[0] from None
        finally:
            self.stop()
            await self._end()

    def stop(self) -> None:
        """Take no more connections, and ask every worker to end gracefully."""
        self._stopping.set()
        for sockets in self._doors.values():
            for opened in sockets:
                opened.close()
        self.send(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to each worker."""
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.send_signal(number)

    def reload(self) -> None:
        """Let each worker read the configuration again; one that is about to start, once it can."""
        for number, process in self._processes.items():
            if number in self._ready:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGHUP)
            else:
                # The signal would end it, and it may have read the file before it changed.
                self._reload_later.add(number)

    async def _start(self, number: int) -> None:
        """Start one worker and wait until its doors are open. Raises WorkerFailed."""
        if self._stopping.is_set():
            return
        part = Part(
            number=number, count=self._count, doors=self._doors, lines=self._lines_of(number), data_dir=self._data_dir
        )
        descriptors = (*part.descriptors, self._lock)
        process = await asyncio.create_subprocess_exec(
            *self._command, "--worker", part.to_argument(), stdin=PIPE, stdout=PIPE, pass_fds=descriptors
        )
        self._processes[number] = process
        if self._stopping.is_set():
            process.terminate()
        assert process.stdout is not None
        if await process.stdout.readline() != READY and not self._stopping.is_set():
            raise WorkerFailed(f"worker {number} ended with status {await process.wait()} before it was ready")
        self._ready.add(number)
        if number in self._reload_later:
            self._reload_later.discard(number)
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGHUP)

    def _lines_of(self, number: int) -> dict[int, socket.socket]:
        """The ends that a worker gets: the first one those to all others, any other the one to the first."""
        if number == LEADER:
            return {other: ends[0] for other, ends in self._lines.items()}
        return {LEADER: self._lines[number][1]}

    async def _keep(self, number: int) -> None:
        """Replace the worker whenever it dies."""
        loop = asyncio.get_running_loop()
        failures = 0
        status: int | str
        while True:
            started = loop.time()
            try:
                if number not in self._processes:
                    await self._start(number)
                if number not in self._processes:
                    # Asked to end before it was started.
                    return
                status = await self._processes[number].wait()
            except WorkerFailed as exc:
                if self._stopping.is_set():
                    return
                status = str(exc)
            if self._stopping.is_set():
                return
            self._processes.pop(number, None)
            self._ready.discard(number)
            self._reload_later.discard(number)
            failures = failures + 1 if loop.time() - started < SOON_S else 1
            self._log.error("worker died", worker=number, status=status, failures=failures)
            if failures >= FAILURES:
                raise WorkerFailed(f"worker {number} died {failures} times, each time soon after its start")
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1 * 4 ** (failures - 1)):
                    await self._stopping.wait()

    async def _end(self) -> None:
        """Wait for the workers; what does not end by itself is killed. Nothing acknowledged is lost by that."""
        try:
            async with asyncio.timeout(KILL_AFTER_S):
                for process in self._processes.values():
                    await process.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            for process in self._processes.values():
                await process.wait()
        finally:
            for end in (end for ends in self._lines.values() for end in ends):
                end.close()


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
        raise AlreadyServed(f"another process serves {data_dir} already") from exc
    _give_to_owner(descriptor, data_dir)
    return descriptor


def _give_to_owner(descriptor: int, data_dir: Path) -> None:
    """What root has just made in another's folder belongs to that one, whose commands lock it too."""
    made, owner = os.fstat(descriptor), data_dir.stat()
    # (With a second name it would be a file from elsewhere.)
    if os.geteuid() == 0 == made.st_uid and owner.st_uid != 0 and made.st_nlink == 1 and not made.st_size:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
