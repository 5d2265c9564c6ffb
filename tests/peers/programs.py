"""Real mail programs: those that `scripts/peers` unpacked into `.cache/peers`, else those of the machine."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30.0
"""How long a peer may take to do what it will do at once on an idle machine."""


@cache
def unpacked() -> Path | None:
    """The root of the unpacked packages of this machine's architecture, if they were fetched."""
    roots = sorted((ROOT / ".cache" / "peers").glob("*/root"))
    return roots[0] if roots else None


def folders(*patterns: str) -> list[str]:
    """The folders in the unpacked packages that match, relative patterns as in `Path.glob`."""
    root = unpacked()
    if root is None:
        return []
    return [str(path) for pattern in patterns for path in sorted(root.glob(pattern)) if path.is_dir()]


@cache
def environment() -> dict[str, str]:
    """The environment in which unpacked programs find their own libraries, and no settings of the user."""
    binaries = folders("usr/bin", "usr/sbin", "bin", "sbin")
    # Where Debian's own choice between alternatives would have led: nmap needs a BLAS.
    alternatives = ("usr/lib/*-linux-*/blas", "usr/lib/*-linux-*/lapack")
    libraries = folders("usr/lib/postfix", "usr/lib/dovecot", "usr/lib/*-linux-*", "lib/*-linux-*", *alternatives)
    modules = folders("usr/share/perl5", "usr/lib/*/perl5/*", "usr/share/perl/*", "usr/lib/*/perl/*")
    known = {name: os.environ[name] for name in ("TMPDIR", "TZ") if name in os.environ}
    data = {"NMAPDIR": folders("usr/share/nmap"), "TESTSSL_INSTALL_DIR": folders("etc/testssl")}
    known |= {name: found[0] for name, found in data.items() if found}
    return known | {
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": ":".join(libraries),
        "PATH": ":".join([*binaries, "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]),
        "PERL5LIB": ":".join(modules),
    }


def find(name: str) -> Path | None:
    found = shutil.which(name, path=environment()["PATH"])
    return Path(found) if found else None


@dataclass(frozen=True, slots=True)
class Program:
    """A program to be run once and waited for. In tests with an event loop: `await asyncio.to_thread(swaks, ...)`."""

    path: Path

    def __call__(
        self,
        *arguments: str | Path,
        content: bytes = b"",
        home: Path | None = None,
        timeout_s: float = PATIENCE_S,
        **variables: str,
    ) -> Run:
        """Run with `content` as standard input; `home` is where it looks for files of its user."""
        finished = subprocess.run(
            [self.path, *arguments],
            input=content,
            env=environment() | ({"HOME": str(home)} if home else {}) | variables,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        return Run(finished.returncode, finished.stdout, finished.stderr)

    def on_a_terminal(self, *arguments: str | Path, home: Path, timeout_s: float = PATIENCE_S) -> Run:
        """Run as `__call__` does, with a terminal, for programs that insist on one; its screen is the output."""
        controller, terminal = os.openpty()
        screen = bytearray()
        with subprocess.Popen(
            [self.path, *arguments],
            env=environment() | {"HOME": str(home), "TERM": "vt100"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        ) as process:
            os.close(terminal)
            deadline = time.monotonic() + timeout_s
            while select.select([controller], [], [], max(0.0, deadline - time.monotonic()))[0]:
                try:
                    screen += os.read(controller, 1 << 16)
                except OSError:  # what Linux says when the last user of the terminal has gone
                    break
            else:
                process.kill()
            os.close(controller)
        return Run(process.returncode, bytes(screen), b"")


@dataclass(frozen=True, slots=True)
class Run:
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def succeeded(self) -> bool:
        return self.status == 0

    def __str__(self) -> str:
        output = (self.stdout + self.stderr).decode("utf-8", "replace")
        return f"exit status {self.status}\n{output}"


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago, for programs that cannot pick one themselves."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], reason: str, timeout_s: float = PATIENCE_S) -> None:
    """Poll, for another process tells us nothing; raises TimeoutError, which names `reason`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(reason)
        time.sleep(0.02)


def accepts(port: int, address: str = "127.0.0.1") -> bool:
    """Whether something listens on this port of the loopback interface."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def spawn(command: Sequence[str | Path], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a program that stays, the leader of a process group of its own."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a spawned program and all of its group."""
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
