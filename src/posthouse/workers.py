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
from dataclasses import dataclass
from pathlib import Path

from posthouse.log import Log

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

    @property
    def leads(self) -> bool:
        """Whether it does what only one process must."""
        return self.number == 0

    def of(self, limit: int) -> int:
        """Its share of a limit of the whole house."""
        return max(1, limit // self.count)

    @classmethod
    def from_argument(cls, argument: str) -> Part:
        """What `to_argument` wrote, in the worker: descriptors become sockets."""
        fields = json.loads(argument)
        doors = {
            door: tuple(socket.socket(fileno=descriptor) for descriptor in descriptors)
            for door, descriptors in fields["doors"].items()
        }
        return cls(number=fields["number"], count=fields["count"], doors=doors)

    def to_argument(self) -> str:
        """For the command line of the worker, which inherits the descriptors."""
        doors = {door: [opened.fileno() for opened in sockets] for door, sockets in (self.doors or {}).items()}
        return json.dumps({"number": self.number, "count": self.count, "doors": doors})


class Workers:
    """The parent's side: `run` until `stop`."""

    def __init__(
        self, command: Sequence[str], count: int, doors: Mapping[str, tuple[socket.socket, ...]], log: Log
    ) -> None:
        """`command` starts a worker when `--worker ARGUMENT` is put behind it."""
        self._command = tuple(command)
        self._count = count
        self._doors = doors
        self._log = log
        self._processes: dict[int, Process] = {}
        self._stopping = asyncio.Event()

    async def run(self, ready: Callable[[], None]) -> None:
        """Start all workers, call `ready`, and keep their number up. Raises WorkerFailed."""
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

    async def _start(self, number: int) -> None:
        """Start one worker and wait until its doors are open. Raises WorkerFailed."""
        part = Part(number=number, count=self._count, doors=self._doors)
        descriptors = [opened.fileno() for sockets in self._doors.values() for opened in sockets]
        if self._stopping.is_set():
            return
        process = await asyncio.create_subprocess_exec(
            *self._command, "--worker", part.to_argument(), stdin=PIPE, stdout=PIPE, pass_fds=descriptors
        )
        self._processes[number] = process
        if self._stopping.is_set():
            process.terminate()
        assert process.stdout is not None
        if await process.stdout.readline() != READY and not self._stopping.is_set():
            raise WorkerFailed(f"worker {number} ended with status {await process.wait()} before it was ready")

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
                status = await self._processes[number].wait()
            except WorkerFailed as exc:
                if self._stopping.is_set():
                    return
                status = str(exc)
            if self._stopping.is_set():
                return
            self._processes.pop(number, None)
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


def lock_folder(data_dir: Path) -> int:
    """The descriptor of a lock that one `serve`, `migrate` or `restore` holds, as long as its process lives.

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
    return descriptor
