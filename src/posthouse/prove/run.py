"""`posthouse prove`: rounds of load and faults, each with a check at its end."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from posthouse.prove.checks import Inspector
from posthouse.prove.faults import Family, Fault, Round, plan, possible
from posthouse.prove.houses import HOUSE, NEIGHBOURS, READERS, Town
from posthouse.prove.ledger import Ledger
from posthouse.prove.readers import Reader
from posthouse.prove.report import Report
from posthouse.prove.senders import Sender
from posthouse.prove.wire import Gone, Unexpected
from posthouse.storage.errors import StorageError
from posthouse.trial.house import HouseDidNotStart

SENDERS = 4
DRAIN_S = 90.0
LAST_ROUND_S = 8.0
"""With less time left no round begins."""
SHOWN_FINDINGS = 5
SHOWN_EVERY_S = 0.5
_TROUBLES = (Gone, Unexpected, HouseDidNotStart, StorageError, TimeoutError, OSError)

Tell = Callable[[Report, float, str], None]
"""Told how far it is: the report so far, the part that is done (0 to 1), what happens now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What was asked for. `rounds`: so many, whatever the time; 0: as many as fit."""

    minutes: float
    seed: int
    families: frozenset[Family]
    rounds: int = 0
    keep: bool = False


@dataclass(slots=True)
class Trial:
    """One run, from the first house to the report."""

    order: Order
    folder: Path
    tell: Tell
    stop: asyncio.Event
    report: Report = field(init=False)
    town: Town = field(init=False)
    ledger: Ledger = field(init=False)
    inspector: Inspector = field(init=False)
    _began: float = field(default_factory=time.monotonic)
    _families: frozenset[Family] = frozenset()
    _now: str = "starting the houses"

    def __post_init__(self) -> None:
        self._families, left_out = possible(self.order.families)
        self.report = Report(self.order.seed, os.cpu_count() or 1, left_out=left_out)
        self.town = Town(self.folder, lambda kind: self.report.faults.update((kind,)))
        self.ledger = Ledger(HOUSE, troubles=self.town.troubles)
        self.inspector = Inspector(self.town, self.ledger)

    async def run(self) -> None:
        """All rounds, the last check, the end of the houses. What goes wrong stands in the report."""
        try:
            self._say(self._now)
            await self.town.build()
            await self.town.start_all()
            for number in self._numbers():
                if self.failed or self.stop.is_set():
                    break
                await self.one_round(plan(self.order.seed, number, self._families))
            if not self.failed:
                await self.drain()
        except* _TROUBLES as problems:
            self.town.troubles += _texts(problems)
        finally:
            self.report.interrupted = self.stop.is_set()
            await self.settle_report()
            await self.town.stop_all()

    @property
    def failed(self) -> bool:
        return bool(self.ledger.findings or self.town.troubles)

    def _numbers(self) -> Iterator[int]:
        """The rounds' numbers, as long as there is time, or as many as were asked for."""
        for number in itertools.count(1):
            if number > self.order.rounds if self.order.rounds else number > 1 and not self._has_time():
                return
            yield number

    def _has_time(self) -> bool:
        return time.monotonic() - self._began < self.order.minutes * 60 - LAST_ROUND_S

    async def one_round(self, planned: Round) -> None:
        """Load, faults, recovery, and a check of everything."""
        self.ledger.round = planned.number
        await self.town.have_workers(planned.workers)
        await self.town.start_all()
        for proxy, share in zip(self.town.proxies, planned.shares, strict=True):
            proxy.set_harm(share, planned.seed)
        loaded = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                for worker in self._load(planned.seed, loaded):
                    group.create_task(worker)
                group.create_task(self._break(planned, loaded))
        except* _TROUBLES as problems:
            self.town.troubles += _texts(problems)
        for proxy in self.town.proxies:
            proxy.set_harm(0.0, planned.seed)
        if self.town.troubles:
            return
        await self.town.require_life()
        self._say(f"round {planned.number}: checking")
        await self.look()
        self.ledger.forget()
        self.report.rounds = planned.number
        self._say(f"round {planned.number} checked")

    async def look(self) -> None:
        """Check everything, now."""
        await self.inspector.look()
        self.report.checks += 1

    def _load(self, seed: str, stopping: asyncio.Event) -> Iterator[Coroutine[None, None, None]]:
        """Senders, and a reader for each maildrop but that of reports."""
        for number in range(SENDERS):
            chance = random.Random(f"{seed}/sender {number}")
            yield Sender(self.ledger, self.town.senders.port, chance, stopping).run()
        houses = [(self.town.house, self.town.readers.port, READERS)]
        houses += [(self.town.neighbour, self.town.neighbour.pop3, NEIGHBOURS)]
        for house, port, people in houses:
            for person in people:
                chance = random.Random(f"{seed}/{person}")
                maildrop = f"{person}@{house.name}"
                yield Reader(self.ledger, port, maildrop, house.passwords[person], chance, stopping).run()

    async def _break(self, planned: Round, stopping: asyncio.Event) -> None:
        """The round's faults at their times; then the end of the load."""
        chance = random.Random(f"{planned.seed}/faults")
        began = time.monotonic()
        try:
            for step in planned.steps:
                if await self._stopped_within(began + step.at_s - time.monotonic()):
                    break
                self._say(f"round {planned.number}: {step.fault}")
                await self.town.inject(step, chance)
                await self.town.require_life()
            await self._stopped_within(began + planned.load_s - time.monotonic())
            if planned.ends_in_kill:
                self.report.faults.update((Fault.KILL_HOUSE,))
                await self.town.kill(self.town.house, pause_s=0.0)
        finally:
            stopping.set()
            if Family.NETWORK in self._families:
                for proxy in self.town.proxies:
                    proxy.reset_all()

    async def _stopped_within(self, seconds: float) -> bool:
        """Wait so long; true at once when the run is to end."""
        until = time.monotonic() + max(0.0, seconds)
        while (left_s := until - time.monotonic()) > 0 and not self.stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, SHOWN_EVERY_S)):
                    await self.stop.wait()
            self._say(self._now)
        return self.stop.is_set()

    async def drain(self) -> None:
        """Let all that waits go to the neighbour, and check for the last time."""
        deadline = time.monotonic() + DRAIN_S
        while left := await self.inspector.waiting():
            if time.monotonic() > deadline or self.stop.is_set():
                break
            self._say(f"{left} recipients wait for the neighbour")
            await self.inspector.hurry()
            await asyncio.sleep(1)
        self.report.counts["still waiting"] = left
        if not self.ledger.counts["acknowledged"] and not self.stop.is_set():
            self.town.troubles.append("nothing was acknowledged, so nothing was proven")
        if left and not self.stop.is_set():
            self.town.troubles.append(f"{left} recipients still wait, though the neighbour answers")
        self.ledger.round += 1
        await self.look()

    async def settle_report(self) -> None:
        report = self.report
        report.took_s = time.monotonic() - self._began
        report.counts |= self.ledger.counts
        report.findings, report.troubles = self.ledger.findings, self.town.troubles
        report.recovered_s, report.processor_s = self.town.recovered_s, self.town.processor_s
        report.stories = [
            "\n".join((finding.text, finding.entry, *await self.inspector.journey(finding.queue_id)))
            for finding in self.ledger.findings[:SHOWN_FINDINGS]
        ]

    def _say(self, text: str) -> None:
        self._now = text
        order, report = self.order, self.report
        report.counts["acknowledged"] = self.ledger.counts["acknowledged"]
        done = report.rounds / order.rounds if order.rounds else (time.monotonic() - self._began) / (60 * order.minutes)
        self.tell(report, min(1.0, done), text)


def _texts(problems: BaseExceptionGroup[BaseException]) -> Iterator[str]:
    """What happened, of each problem in a group of groups."""
    for problem in problems.exceptions:
        if isinstance(problem, BaseExceptionGroup):
            yield from _texts(problem)
        else:
            yield f"{type(problem).__name__}: {problem}"


async def prove(order: Order, tell: Tell) -> Report:
    """The whole run. Its folder stays where the report says so."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    folder = Path(tempfile.mkdtemp(prefix="posthouse-prove-"))
    trial = Trial(order, folder, tell, stop)
    try:
        await trial.run()
    finally:
        if order.keep or trial.failed:
            trial.report.kept = str(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return trial.report
