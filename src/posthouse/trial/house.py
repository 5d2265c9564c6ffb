"""A throw-away house: a real one on loopback, a process of its own, so that it can be killed."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from posthouse.config import load
from posthouse.engines import open_storage
from posthouse.identity.hashes import hash_password
from posthouse.mail.address import parse_address
from posthouse.world import World

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
LOOK_EVERY_S = 0.02
PORTS = range(10_240, 32_768)


class HouseDidNotStart(Exception):
    """The process ended or stayed silent; the message holds what it said last."""


@dataclass(slots=True)
class TrialHouse:
    """One house: its folder, its three ports, its people with their passwords, its process while it runs."""

    name: str
    folder: Path
    smtp: int
    submission: int
    pop3: int
    passwords: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None

    @property
    def config(self) -> Path:
        return self.folder / "posthouse.toml"

    @property
    def log(self) -> Path:
        return self.folder / "house.log"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def build(self, config: str, people: tuple[str, ...]) -> None:
        """Folder, configuration, store, accounts."""
        self.folder.mkdir(mode=0o700)
        self.config.write_text(config, encoding="utf-8")
        world = World()
        storage = await open_storage(load(self.config), world, create=True)
        try:
            await storage.administration.add_domain(self.name)
            for person in people:
                password = f"{person}-{os.urandom(4).hex()}"
                self.passwords[person] = password
                await storage.administration.add_account(
                    parse_address(f"{person}@{self.name}"),
                    verifier=hash_password(password),
                    quota_octets=None,
                    now=world.clock.now(),
                )
        finally:
            await storage.close()

    async def begin(self) -> int:
        """Start the process; returns at once, with where its part of the log begins."""
        offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "posthouse.cli",
                "serve",
                "--until-eof",
                "--config",
                str(self.config),
                # It ends when this pipe does: so no house outlives whoever started it and was killed.
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C is for whoever started it, which then ends its houses itself.
                start_new_session=True,
            )
        return offset

    async def start(self) -> None:
        """Start the process and wait until its doors are open."""
        await self.until_open(await self.begin())

    async def until_open(self, offset: int) -> None:
        """Wait until the log says so, since `offset` octets. Raises HouseDidNotStart."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not self._is_open(offset):
                    self.require_life(offset)
                    await asyncio.sleep(LOOK_EVERY_S)
        except TimeoutError as exc:
            raise HouseDidNotStart(f"{self.name} was not ready in time: {self.last_words(offset)}") from exc

    def require_life(self, offset: int) -> None:
        """Raises HouseDidNotStart when the process has ended."""
        if not self.is_running:
            raise HouseDidNotStart(f"{self.name} did not start: {self.last_words(offset)}")

    async def kill(self) -> None:
        """End its processes as a power cut would: at once, wherever they are."""
        assert self.process is not None
        self.signal_all(signal.SIGKILL)
        await self.process.wait()
        await self.until_nobody_serves()

    async def stop(self) -> int | None:
        """End the process gracefully, if it runs; its exit status, None where it had to be killed."""
        if self.process is None:
            return 0
        if self.is_running:
            self.process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                return await self.process.wait()
        except TimeoutError:
            await self.kill()
            return None

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the process and its workers, which are a group of their own."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    async def until_nobody_serves(self) -> None:
        """Wait until the last of its processes let go of the folder. Raises TimeoutError."""
        descriptor = os.open(self.folder / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not _locked(descriptor):
                    await asyncio.sleep(LOOK_EVERY_S)
        finally:
            os.close(descriptor)

    def last_words(self, offset: int = 0) -> str:
        """The last line of its log since `offset` octets."""
        return self.last_lines(1, offset)[0]

    def last_lines(self, count: int, offset: int = 0) -> list[str]:
        """The last lines of its log since `offset` octets; one that says so where there are none."""
        octets = self.log.read_bytes()[offset:] if self.log.exists() else b""
        return octets.decode(errors="replace").strip().splitlines()[-count:] or ["it said nothing"]

    def _is_open(self, offset: int) -> bool:
        return any(line.get("event") == "house open" for line in self._log_lines(offset))

    def _log_lines(self, offset: int) -> list[dict[str, object]]:
        lines = []
        for line in self.log.read_bytes()[offset:].splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
        return lines


def free_ports(count: int) -> list[int]:
    """Ports that are free now. Fixed ones are needed, since a house keeps its ports over a restart.

    They are below those that systems give to outgoing connections: one of these could take the port of a house that is
    down, or meet itself there.
    """
    sockets: list[socket.socket] = []
    try:
        while len(sockets) < count:
            free = socket.socket()
            sockets.append(free)
            try:
                free.bind(("127.0.0.1", secrets.choice(PORTS)))
            except OSError:
                sockets.pop().close()
        return [int(free.getsockname()[1]) for free in sockets]
    finally:
        for free in sockets:
            free.close()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
