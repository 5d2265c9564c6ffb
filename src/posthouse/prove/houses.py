"""The house under test and its neighbour: how they are set up, broken, and started again."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

from posthouse.prove.faults import Fault, Step
from posthouse.prove.letters import END
from posthouse.prove.proxy import Proxy
from posthouse.prove.wire import until_greeted
from posthouse.trial.house import START_TIMEOUT_S, HouseDidNotStart, TrialHouse, free_ports

HOUSE, NEIGHBOUR = "house.test", "peer.test"
READERS = tuple(f"r{n}" for n in range(4))
NEIGHBOURS = ("n0", "n1")
SENDER = "sender"
"""Whose mail it is: at the neighbour, so that reports travel too."""
LIMIT_OCTETS = 1_000_000
GREETED_EVERY_S = 0.01
WORKER_DEATHS = 4
"""A house gives up at the fifth death of one worker, each soon after its start."""
_QUIT = re.compile(rb"QUIT\r\n")

_CONFIG = """\
hostname = "{name}"
data_dir = "."
postmaster = "{postmaster}"
workers = {workers}

[listen]
smtp = ["127.0.0.1:{smtp}"]
pop3 = ["127.0.0.1:{pop3}"]

[auth]
allow_cleartext = true

[reception]
trusted_networks = ["127.0.0.1"]
message_size_octets = {limit}

[forwarding]
routes = {{ "{neighbour}" = "127.0.0.1:{next_hop}", "*" = "127.0.0.1:1" }}
retry = ["1s", "2s", "4s"]
reports_per_minute = 6000
connect_timeout = "5s"
greeting_timeout = "8s"
command_timeout = "8s"
content_timeout = "8s"
final_timeout = "8s"
"""


@dataclass(slots=True)
class Town:
    """Both houses, and the proxies on the ways between them and their people."""

    folder: Path
    happened: Callable[[str], None]
    """Told of each fault."""
    house: TrialHouse = field(init=False)
    neighbour: TrialHouse = field(init=False)
    senders: Proxy = field(init=False)
    readers: Proxy = field(init=False)
    between: Proxy = field(init=False)
    recovered_s: list[float] = field(default_factory=list)
    """From the start of a process to its first 220, after kills."""
    processor_s: list[float] = field(default_factory=list)
    """Of that, what the processor worked for it: the rest is waiting, for a processor most of all."""
    troubles: list[str] = field(default_factory=list)
    """What went wrong and is none of the five counters, such as a house that ends by itself."""

    _worker_deaths: int = 0

    def __post_init__(self) -> None:
        a, b, c, d, e, f = free_ports(6)
        self.house = TrialHouse(HOUSE, self.folder / "house", smtp=a, submission=b, pop3=c)
        self.neighbour = TrialHouse(NEIGHBOUR, self.folder / "neighbour", smtp=d, submission=e, pop3=f)
        self.senders = Proxy(a, END, "senders", self.happened)
        self.readers = Proxy(c, _QUIT, "readers", self.happened)
        self.between = Proxy(d, END, "to the neighbour", self.happened)

    @property
    def proxies(self) -> tuple[Proxy, Proxy, Proxy]:
        return self.senders, self.readers, self.between

    @property
    def houses(self) -> tuple[TrialHouse, TrialHouse]:
        return self.house, self.neighbour

    async def build(self) -> None:
        """Folders, configurations, accounts, proxies. Nothing is started yet."""
        for proxy in self.proxies:
            await proxy.open()
        await self.house.build(self._config(self.house, self.between.port), READERS)
        await self.neighbour.build(self._config(self.neighbour, 1), (*NEIGHBOURS, SENDER))

    def _config(self, house: TrialHouse, next_hop: int, workers: int = 1) -> str:
        return _CONFIG.format(
            name=house.name,
            postmaster=f"{READERS[0] if house is self.house else SENDER}@{house.name}",
            workers=workers,
            smtp=house.smtp,
            pop3=house.pop3,
            limit=LIMIT_OCTETS,
            neighbour=NEIGHBOUR if house is self.house else "nowhere.test",
            next_hop=next_hop,
        )

    async def have_workers(self, workers: int) -> None:
        """So many processes from the next start on, which is made here where it matters."""
        config = self._config(self.house, self.between.port, workers)
        if self.house.config.read_text(encoding="utf-8") != config:
            self.house.config.write_text(config, encoding="utf-8")
            if self.house.is_running:
                await self._restart(self.house)

    async def start_all(self) -> None:
        """Start what does not run."""
        async with asyncio.TaskGroup() as group:
            for house in self.houses:
                if not house.is_running:
                    group.create_task(self._start(house))

    async def _start(self, house: TrialHouse, *, after_kill: bool = False) -> None:
        """Raises HouseDidNotStart."""
        began = time.monotonic()
        offset = await house.begin()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await until_greeted(house.smtp, GREETED_EVERY_S, lambda: house.require_life(offset))
        except TimeoutError as exc:
            raise HouseDidNotStart(f"{house.name} was not ready in time: {house.last_words(offset)}") from exc
        if after_kill:
            self.recovered_s.append(time.monotonic() - began)
            if (used_s := processor_s(house)) is not None:
                self.processor_s.append(used_s)
        if house is self.house:
            self._worker_deaths = 0
        # With workers the first one greets before the last one is there, and a start that loses one is given up.
        await house.until_open(offset)

    async def require_life(self) -> None:
        """A house that ended, though nobody ended it, is a trouble; it is started again."""
        for house in self.houses:
            if house.process is not None and not house.is_running:
                self.troubles.append(f"{house.name} ended by itself: {house.last_words()}")
                await house.until_nobody_serves()
                await self._start(house)

    async def stop_all(self) -> None:
        """End both, and the proxies."""
        for proxy in self.proxies:
            proxy.close()
        for house in self.houses:
            if house.is_running:
                house.signal_all(signal.SIGCONT)
            await house.stop()

    async def kill(self, *houses: TrialHouse, pause_s: float) -> None:
        """kill -9, and a new start after a while."""
        for house in houses:
            await house.kill()
        await asyncio.sleep(pause_s)
        for house in houses:
            await self._start(house, after_kill=True)

    async def inject(self, step: Step, chance: random.Random) -> None:
        """Do it, and undo it where it can be undone. Raises HouseDidNotStart."""
        if step.fault is not Fault.KILL_WORKER:
            self.happened(step.fault)
        pause_s = min(step.hold_s, 0.3)
        match step.fault:
            case Fault.KILL_HOUSE:
                await self.kill(self.house, pause_s=pause_s)
            case Fault.KILL_NEIGHBOUR:
                await self.kill(self.neighbour, pause_s=pause_s)
            case Fault.KILL_BOTH:
                await self.kill(*self.houses, pause_s=pause_s)
            case Fault.KILL_WORKER:
                workers = children(self.house)
                if workers and self._worker_deaths < WORKER_DEATHS:
                    self._worker_deaths += 1
                    self.happened(step.fault)
                    _signal(chance.choice(workers), signal.SIGKILL)
            case Fault.KILL_PARENT:
                assert self.house.process is not None
                self.house.process.kill()
                await self.house.process.wait()
                # The workers end by themselves: gracefully, as their sessions do.
                await self.house.until_nobody_serves()
                await self._start(self.house, after_kill=True)
            case Fault.STOP_NETWORK:
                async with asyncio.TaskGroup() as group:
                    for proxy in self.proxies:
                        group.create_task(proxy.stop_for(step.hold_s))
            case Fault.RESET_NETWORK:
                for proxy in self.proxies:
                    proxy.reset_all()
            case Fault.FREEZE_HOUSE:
                await _freeze(self.house, step.hold_s)
            case Fault.FREEZE_NEIGHBOUR:
                await _freeze(self.neighbour, step.hold_s)
            case Fault.RESTART_HOUSE:
                await self._restart(self.house)
            case Fault.RESTART_NEIGHBOUR:
                await self._restart(self.neighbour)
            case Fault.RELOAD_HOUSE:
                assert self.house.process is not None
                self.house.process.send_signal(signal.SIGHUP)
            case Fault.FULL_DISK:
                await self._fill(step.hold_s)
            case unknown:
                assert_never(unknown)

    async def _restart(self, house: TrialHouse) -> None:
        status = await house.stop()
        if status != 0:
            how = "did not end" if status is None else f"ended with status {status}"
            self.troubles.append(f"{house.name} {how} after SIGTERM: {house.last_words()}")
        await house.until_nobody_serves()
        await self._start(house)

    async def _fill(self, hold_s: float) -> None:
        """No file of the house may grow: what is written beyond its end fails, as on a full disk (EFBIG)."""
        process = self.house.process
        assert process is not None
        limit_octets = max(_octets(self.house.folder / name) for name in ("house.log", "posthouse.db-wal")) + 65_536
        before = limit_file_size(process.pid, limit_octets)
        try:
            await asyncio.sleep(hold_s)
        finally:
            if self.house.is_running:
                with suppress(ProcessLookupError):
                    limit_file_size(process.pid, before)
        if not self.house.is_running:
            # It ends rather than to promise what it cannot keep.
            self.happened("full disk: house ended, started again")
            await self.house.until_nobody_serves()
            await self._start(self.house, after_kill=True)


def children(house: TrialHouse) -> list[int]:
    """Process ids of a house's workers; none where it is one process."""
    assert house.process is not None
    pid = house.process.pid
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def processor_s(house: TrialHouse) -> float | None:
    """Seconds of the processor that a house's first process used by now; None where the system does not tell."""
    assert house.process is not None
    try:
        fields = Path(f"/proc/{house.process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def limit_file_size(pid: int, soft: int) -> int:
    """Give a running process another limit for the size of its files; the one it had before."""
    if sys.platform != "linux":
        raise NotImplementedError
    import resource

    before, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
    return before


async def _freeze(house: TrialHouse, hold_s: float) -> None:
    house.signal_all(signal.SIGSTOP)
    try:
        await asyncio.sleep(hold_s)
    finally:
        house.signal_all(signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _octets(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
