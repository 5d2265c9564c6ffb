"""Lets each call of each act be struck, and compares what is left on the disk with what was answered."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from posthouse.mail.ids import QueueId
from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.sqlite.restore import restore_backup
from posthouse.storage.upkeep import tell_nobody
from tests.faults.driver import BACKUP, BEGINS, CALLS, ENDS, UPGRADE, Job, number_struck
from tests.faults.strace import Attached, injecting
from tests.faults.told import hear, tell
from tests.storage.crash.house import (
    FILE_OCTETS,
    SMALL_OCTETS,
    House,
    SeededRandom,
    SetClock,
    open_house,
    open_storage,
    recording,
)
from tests.storage.crash.ledger import Accept, Asked, Ledger, Settle, difference, draw
from tests.storage.crash.migrating import SCHEMA, complaint
from tests.storage.crash.recording import Recorder
from tests.storage.crash.recovery import recover
from tests.storage.sqlite.old import make_old

ROOT = Path(__file__).parents[2]
SEED = 20_261_202
_END = 1_000_000
"""A position after everything."""


@dataclass(frozen=True, slots=True)
class Struck:
    """What came of one job."""

    asked: tuple[Asked, ...]
    hit: bool
    """The call that was to be struck was one of the act's."""
    over: bool
    """The act came to its end, with a success or an error."""
    refused: str | None
    """Why it did not succeed."""
    pid: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Calls by name: of opening the storage and of what is done before an act, and of the act."""

    before: Counter[str] = field(default_factory=Counter)
    of_act: Counter[str] = field(default_factory=Counter)


class Driver:
    """The process under strace. Each call's `number_struck`th is struck in `what` way, in each fork."""

    def __init__(self, strace: Path, what: str, log: Path) -> None:
        self.log = log
        self._strace = strace
        injected = [each for call in CALLS for each in injecting(call, what, number_struck(call))]
        self._arguments = ["-e", f"trace={','.join(CALLS)}", *injected]

    def __enter__(self) -> Driver:
        self._socket, theirs = socket.socketpair()
        with theirs:
            path = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.driver", str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": path},
                pass_fds=[theirs.fileno()],
            )
        # Its own calls while it starts do not count.
        assert hear(self._socket) == ("ready",)
        self._attached = Attached(self._strace, self._process.pid, self.log, self._arguments)
        self._attached.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.wait(30)
        self._attached.__exit__()

    def do(self, job: Job) -> Struck:
        """Raises AssertionError for what only a bug can bring about."""
        tell(self._socket, job)
        asked: list[Asked] = []
        over, hit, refused = False, False, None
        modules: tuple[str, ...] = ()
        while True:
            match hear(self._socket):
                case ("begun", step):
                    asked.append(Asked(step, begun=_END + 2 * len(asked)))
                case ("answered", granted):
                    asked[-1].answered = asked[-1].begun + 1
                    asked[-1].granted = granted
                case ("over", modules):
                    over = True
                case ("refused", kind, why):
                    refused = f"{kind}: {why}"
                case ("hit",):
                    hit = True
                case ("missed",):
                    pass
                case ("bug", trace):
                    raise AssertionError(f"{job}: {trace}")
                case ("ended", status, pid):
                    tell(self._socket, modules)
                    assert status in (0, -9), (job, status)
                    # A killed process says no more: before it was over, the strike was in the act.
                    return Struck(tuple(asked), hit or not over, over, refused, pid)
                case other:
                    raise AssertionError(other)


@dataclass(frozen=True, slots=True)
class Template:
    """A folder to copy, and the house that filled it."""

    folder: Path
    house: House


@contextmanager
def templates(folder: Path) -> Iterator[Template]:
    """A house with a small letter, a large one, and two recipients that wait; beside it a database of old."""
    with recording(folder / "house") as recorder:
        (folder / "house").mkdir()
        make_old(folder / "old")
        yield Template(folder, asyncio.run(_furnished(recorder)))


async def _furnished(recorder: Recorder) -> House:
    # (Through the recorder's VFS nothing is synced; and here nothing has to be.)
    house = await open_house(recorder, SEED)
    await house.accept(SMALL_OCTETS, to=(0, 1), forwards=1)
    await house.accept(FILE_OCTETS, to=(0,))
    await house.accept(SMALL_OCTETS, to=(), forwards=1)
    await house.storage.close()
    for file in recorder.folder.glob("*.db*"):
        file.chmod(0o600)
    return house


@dataclass(frozen=True, slots=True)
class Striker:
    driver: Driver
    template: Template
    scratch: Path

    def count(self, act: str) -> Counts:
        """Do the act without a strike, and count its calls."""
        came, wrong = self.strike(act, CALLS[0], 0)
        assert (came.refused, wrong) == (None, []), act
        counts = Counts()
        # What is not between the marks comes before them, or is the next day's.
        counter = counts.before
        for line in self.driver.log.read_text().splitlines():
            pid, _, call = line.partition(" ")
            if int(pid) != came.pid:
                continue
            if BEGINS in call:
                counter = counts.of_act
            elif ENDS in call:
                break
            else:
                counter[call.strip().partition("(")[0]] += 1
        return counts

    def strike(self, act: str, call: str, nth: int, already: int = 0) -> tuple[Struck, list[str]]:
        """Do it in a copy of the template; what came of it, and what is wrong with what it left."""
        with self._copy(act) as folder:
            struck = self.driver.do(Job(act, str(folder), call, nth, self._now(), already))
            if act == UPGRADE:
                wrong = complaint(folder, must_be=SCHEMA if struck.over and struck.refused is None else None)
                return struck, [wrong] if wrong else []
            return struck, asyncio.run(self._complaints(act, folder, struck))

    def _now(self) -> float:
        return self.template.house.clock.now() + 10

    @contextmanager
    def _copy(self, act: str) -> Iterator[Path]:
        folder = self.scratch / "struck"
        shutil.copytree(self.template.folder / ("old" if act == UPGRADE else "house"), folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def strike_each(self, act: str, call: str, counts: Counts, step: int = 1) -> int:
        """The n-th call, for every n or every `step`-th; how many were struck."""
        already, last = counts.before[call], counts.of_act[call]
        assert already + last < number_struck(call), f"{act} makes too many calls of {call}"
        chosen = range(1, last + 1, step)
        for nth in chosen:
            came, wrong = self.strike(act, call, nth, already)
            assert came.hit, f"{act}, {call} number {nth} was not struck"
            assert not wrong, f"{act}, {call} number {nth}, {came.refused}: {wrong}"
        return len(chosen)

    async def _complaints(self, act: str, folder: Path, struck: Struck) -> list[str]:
        house = self._house(struck)
        found = []
        if act == "back_up":
            promised = struck.over and struck.refused is None
            found += await self._of_backup(house, folder / BACKUP, promised=promised)
        return found + await recover(house, folder, 2 * _END)

    def _house(self, struck: Struck) -> House:
        """The house as it was, with what it was asked since."""
        before = self.template.house
        ledger = Ledger([*before.ledger.asked, *struck.asked], before.ledger.shown, before.ledger.accounts)
        ids = [*before.queue_ids, *(queue_id for asked in struck.asked for queue_id in _ids_in(asked.step))]
        clock = SetClock(max(before.clock.now(), *_times(struck), 0.0) + 10)
        return replace(before, ledger=ledger, queue_ids=ids, clock=clock, chance=SeededRandom(SEED + 5))

    async def _of_backup(self, house: House, backup: Path, *, promised: bool) -> list[str]:
        """It is there whole, or not at all; nothing came while it was made."""
        if not backup.exists():
            return ["the backup that was promised is gone"] if promised else []
        again = self.scratch / "again"
        again.mkdir()
        now = house.clock.now() + 60
        restore_backup(backup, again, now=now, disk=RealFileSystem(), tell=tell_nobody)
        storage = await open_storage(again, SetClock(now), SEED)
        try:
            seen = await draw(storage, house.accounts, house.queue_ids)
        finally:
            await storage.close()
            shutil.rmtree(again)
        (wanted,) = self.template.house.ledger.allowed(_END)
        return [f"restored: {line}" for line in difference(seen, wanted)]


def _ids_in(step: Any) -> list[QueueId]:
    """The queue ids that a step makes."""
    match step:
        case Accept(acceptance=acceptance):
            return [acceptance.queue_id, *(generated.queue_id for generated in acceptance.generated)]
        case Settle(settlement=settlement):
            return [generated.queue_id for generated in settlement.generated]
        case _:
            return []


def _times(struck: Struck) -> list[float]:
    return [asked.step.acceptance.accepted_at for asked in struck.asked if isinstance(asked.step, Accept)]
