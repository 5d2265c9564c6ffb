"""A process that has imported the program once and forks: a house is open, or a command done, in a tenth of a second.

What runs in the fork is the same `posthouse serve` as anywhere; only the interpreter's start and the imports are
shared. Where the start itself is what a test is about, it does without.
"""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NoReturn

ROOT = Path(__file__).parents[2]
NEEDED = (
    "app",
    "cli.serve",
    "cli.queue",
    "cli.queue_actions",
    "cli.identities",
    "cli.store",
    "doors",
    "workers",
    "log",
)
"""Modules that the program imports only when it needs them."""
_MOST_OCTETS = 65_536


class Forked:
    """One run of the program; as much of `Popen` as its users need."""

    def __init__(self, zygote: Zygote, pid: int, stderr: IO[str]) -> None:
        self.pid = pid
        self.stderr = stderr
        self._zygote = zygote
        # (The zygote has not waited for it yet, so this number is still its own.)
        self._end = os.pidfd_open(pid)
        self._status: int | None = None

    def send_signal(self, number: signal.Signals) -> None:
        if self._status is None:
            signal.pidfd_send_signal(self._end, number)

    def wait(self, timeout: float) -> int:
        """The exit status, or minus the number of the signal that ended it. Raises TimeoutExpired."""
        if self._status is None:
            if not select.select([self._end], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            self._status = self._zygote.status_of(self.pid)
            os.close(self._end)
        return self._status


class Zygote:
    """`with Zygote() as zygote: zygote.run("queue", "list", …)`. Used by one thread at a time."""

    def __enter__(self) -> Zygote:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            path = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.house.zygote", str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": path},
                pass_fds=[theirs.fileno()],
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever still runs of it is killed."""
        self._socket.close()
        self._process.wait(30)

    def start(self, arguments: Sequence[str], stdout: int | None = None) -> Forked:
        """Run `posthouse ARGUMENTS`; what it writes to stderr is read from the result's."""
        reading, writing = os.pipe()
        rights = array.array("i", [writing, stdout if stdout is not None else writing])
        self._socket.sendmsg(
            [json.dumps(list(arguments)).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights.tobytes())]
        )
        pid = int(self._socket.recv(_MOST_OCTETS))
        os.close(writing)
        return Forked(self, pid, os.fdopen(reading, "r"))

    def run(self, *arguments: str, timeout_s: float = 60.0) -> tuple[int, str, str]:
        """Run a command to its end: its status, and what it wrote to stdout and to stderr."""
        with open(os.memfd_create("stdout"), "w+b") as stdout:
            forked = self.start(arguments, stdout.fileno())
            with forked.stderr:
                said = forked.stderr.read()
            status = forked.wait(timeout_s)
            stdout.seek(0)
            return status, stdout.read().decode(), said

    def status_of(self, pid: int) -> int:
        """Of a process that has ended."""
        self._socket.send(b"%d" % pid)
        return int(self._socket.recv(_MOST_OCTETS))


def _fork_on_demand(demands: socket.socket) -> None:
    """Until the other side is gone: fork for a list of arguments, wait for a process id."""
    alive: set[int] = set()
    while True:
        octets, ancillary, _flags, _address = demands.recvmsg(_MOST_OCTETS, socket.CMSG_SPACE(8))
        if not octets:
            break
        if not ancillary:
            pid = int(octets)
            _pid, status = os.waitpid(pid, 0)
            alive.discard(pid)
            demands.send(b"%d" % os.waitstatus_to_exitcode(status))
            continue
        descriptors = array.array("i")
        descriptors.frombytes(ancillary[0][2])
        pid = os.fork()
        if not pid:
            demands.close()
            _be_the_program(json.loads(octets), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        alive.add(pid)
        demands.send(b"%d" % pid)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _be_the_program(arguments: list[str], stderr: int, stdout: int) -> NoReturn:
    """What `python -m posthouse.cli` does, to the end of the process."""
    from posthouse.cli import main

    status = 1
    try:
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        os.close(stdout)
        os.close(stderr)
        sys.argv = ["posthouse", *arguments]
        main()
        status = 0
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _main() -> None:
    import gc
    from importlib import import_module

    import uvloop  # noqa: F401

    for name in NEEDED:
        import_module(f"posthouse.{name}")
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as demands:
        _fork_on_demand(demands)


if __name__ == "__main__":
    _main()
