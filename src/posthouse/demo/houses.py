"""The demo's houses: real ones, each a process of its own, so that one can be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

from posthouse.config import load
from posthouse.engines import open_storage
from posthouse.identity.hashes import hash_password
from posthouse.mail.address import parse_address
from posthouse.world import World

START_TIMEOUT_S = 30.0

_CONFIG = """\
hostname = "{name}"
data_dir = "."
postmaster = "{postmaster}"

[listen]
smtp = ["127.0.0.1:{smtp}"]
submission = ["127.0.0.1:{submission}"]
pop3 = ["127.0.0.1:{pop3}"]

[auth]
allow_cleartext = true            # a trial on loopback

[forwarding]
# Nothing leaves this computer: the neighbour is a route, everything else leads to a closed port.
routes = {{ "{neighbour}" = "127.0.0.1:{neighbour_port}", "*" = "127.0.0.1:1" }}
retry = ["1s", "2s", "5s", "10s"]
"""


class HouseDidNotStart(Exception):
    """The process ended or stayed silent; the message holds what it said last."""


@dataclass(slots=True)
class DemoHouse:
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

    async def build(self, neighbour: DemoHouse, people: tuple[str, ...]) -> None:
        """Folder, configuration, store, accounts."""
        self.folder.mkdir(mode=0o700)
        self.config.write_text(
            _CONFIG.format(
                name=self.name,
                postmaster=f"{people[0]}@{self.name}",
                smtp=self.smtp,
                submission=self.submission,
                pop3=self.pop3,
                neighbour=neighbour.name,
                neighbour_port=neighbour.smtp,
            ),
            encoding="utf-8",
        )
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

    async def start(self) -> None:
        """Start the process and wait until its doors are open."""
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
                # It ends when this pipe does: so no house outlives a demo that was killed.
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the demo, which then ends its houses itself.
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not self._is_open(offset):
                    if self.process.returncode is not None:
                        raise HouseDidNotStart(f"{self.name} did not start: {self.last_words(offset)}")
                    await asyncio.sleep(0.02)
        except TimeoutError as exc:
            raise HouseDidNotStart(f"{self.name} was not ready in time: {self.last_words(offset)}") from exc

    async def kill(self) -> None:
        """End the process as a power cut would: at once, wherever it is."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> None:
        """End the process gracefully, if it runs."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(15):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

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


def make_pair(folder: Path) -> tuple[DemoHouse, DemoHouse]:
    """North and South, on six free ports of this computer."""
    a, b, c, d, e, f = _free_ports(6)
    north = DemoHouse("north.test", folder / "north", smtp=a, submission=b, pop3=c)
    south = DemoHouse("south.test", folder / "south", smtp=d, submission=e, pop3=f)
    return north, south


def _free_ports(count: int) -> list[int]:
    """Ports that are free now. Fixed ones are needed, since a house keeps its ports over a restart."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [int(free.getsockname()[1]) for free in sockets]
    finally:
        for free in sockets:
            free.close()
