"""One house of the simulated world: the product's own `House`, its machine, and its lives one after the other."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar, cast

import apsw
import argon2

from posthouse import app
from posthouse.app import House
from posthouse.config import Config, parse
from posthouse.forwarding import runner
from posthouse.identity import hashes
from posthouse.log import Log
from posthouse.mail.address import parse_address
from posthouse.storage.errors import StorageError
from posthouse.storage.sqlite.incarnation import free_claims
from posthouse.storage.sqlite.storage import SqliteStorage
from posthouse.storage.sqlite.writer import Stopped
from posthouse.watch import readiness
from posthouse.workers import Part
from posthouse.world import Disk, World
from tests.simulation.disk import SimulatedDisk, State
from tests.simulation.loop import SimulatedLoop
from tests.simulation.network import Door, End, Host, SimulatedConnector, Tell
from tests.simulation.places import ACCOUNTS, PASSWORD, TRUSTED, domain_of, kinds_of_alias
from tests.storage.crash.house import SeededRandom, SetClock
from tests.storage.crash.recording import Fault

if TYPE_CHECKING:
    from posthouse.net.dns import Resolver

START = 1_800_000_000.0
CHORES_EVERY_S = 4 * 3600.0
T = TypeVar("T")


class Death(Enum):
    """How a process ends."""

    KILLED = "killed"
    POWER_CUT = "power cut"


class SimulatedClock:
    """The loop's time; the wall clock may be set wrong."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self.wrong_s = 0.0

    def now(self) -> float:
        return START + self._loop.time() + self.wrong_s

    def monotonic(self) -> float:
        return 1000.0 + self._loop.time()


class Uncounted:
    """Metrics that count nothing: a tenth of the time."""

    def __getattr__(self, _name: str) -> Uncounted:
        return self

    def __call__(self, *_arguments: object, **_named: object) -> Uncounted:
        return self


class TracedLog:
    """A log of which each line becomes part of the trace. An exception that nobody planned is told apart."""

    def __init__(self, tell: Tell, name: str, unplanned: Callable[[str, BaseException], None]) -> None:
        self._tell = tell
        self._name = name
        self._unplanned = unplanned

    def bind(self, **_values: object) -> TracedLog:
        return self

    def debug(self, event: str, **values: object) -> None:
        values.pop("exc_info", None)
        self._tell(self._name, event, *values.values())

    info = warning = error = debug

    def exception(self, event: str, **values: object) -> None:
        self._tell(self._name, event, *values.values())
        broken = sys.exc_info()[1]
        if broken is not None and not isinstance(broken, StorageError | OSError):
            self._unplanned(event, broken)


class SimulatedHouse:
    """A machine with a house on it, which dies and starts again."""

    def __init__(
        self,
        number: int,
        config: Config,
        state: State,
        host: Host,
        resolver: Resolver,
        loop: SimulatedLoop,
        tell: Tell,
        unplanned: Callable[[str, BaseException], None],
    ) -> None:
        self.name = "abc"[number]
        self.domain = domain_of(number)
        self.host = host
        self.clock = SimulatedClock(loop)
        self.lives = 0
        self.config = config
        self.house: House | None = None
        self.disk: SimulatedDisk | None = None
        self.dies_in: int | None = None
        """So many steps (changes of the disk, octets sent or received) until it dies, and how."""
        self.dies_by = Death.KILLED
        self.taken_over: set[str] = set()
        """Queue ids that were being tried when others took the claims: those may be sent again."""
        self.loses_claims_in: int | None = None
        """So many steps with attempts under way until another process takes their claims; then so many more."""
        self.loses_claims_next: list[int] = []
        self.steps = 0
        self.chance = Random()
        self.on_death: Callable[[SimulatedHouse], None] = lambda _house: None
        self._state = state
        self._resolver = resolver
        self._loop = loop
        self._tell = tell
        self._unplanned = unplanned
        self._task: asyncio.Task[None] | None = None
        self._trouble: Fault | None = None
        self.ghosts: set[asyncio.Task[None]] = set()
        host.on_traffic = self.step

    @property
    def is_alive(self) -> bool:
        return self._task is not None

    @property
    def is_at_work(self) -> bool:
        """Whether an attempt is under way, or a connection is kept for the next one."""
        return self.house is not None and bool(self.house.runner._running or self.house.runner._relay.pool._idle)

    @property
    def storage(self) -> SqliteStorage:
        assert self.house is not None
        return cast(SqliteStorage, self.house.storage)

    def start(self, folder: Path) -> None:
        """Begin another life, in a folder of its own."""
        assert self._task is None
        self.lives += 1
        self.host.is_off = False
        self.disk = disk = SimulatedDisk(
            folder / f"{self.name}{self.lives}", self._state, lambda _operation: self.step()
        )
        disk.fault = self._trouble
        doors = {"smtp": (Door(self.host, 25),), "pop3": (Door(self.host, 110),)}
        world = World(
            clock=self.clock,
            random=SeededRandom(self.chance.getrandbits(64)),
            connector=SimulatedConnector(self.host.network, self.host),
            resolver=self._resolver,
            disk=Disk(file_system=disk.file_system, vfs=disk.vfs, on_fatal=self._end),
        )
        config = self.config.model_copy(update={"data_dir": disk.folder})
        log = TracedLog(self._tell, self.name, self._broke)
        house = House(config, cast(Log, log), world, part=Part(doors=cast(Any, doors)))
        self._tell(self.name, "starts", self.lives)
        self._task = self._loop.create_task(self._live(house, disk))
        self._task.add_done_callback(lambda task: self._ended(task, disk))

    @property
    def trouble(self) -> Fault | None:
        """What its disk does not do."""
        return self._trouble

    @trouble.setter
    def trouble(self, trouble: Fault | None) -> None:
        self._trouble = trouble
        if self.disk is not None:
            self.disk.fault = trouble

    def step(self) -> None:
        """One more thing was done; perhaps the last one."""
        self.steps += 1
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in <= 0:
                self.die(self.dies_by)
        if self.loses_claims_in is not None and self.house is not None and self.house.runner._running:
            self.loses_claims_in -= 1
            if self.loses_claims_in <= 0:
                self.loses_claims_in = self.loses_claims_next.pop() if self.loses_claims_next else None
                self._loop.call_soon(self._lose_claims)

    def die(self, how: Death) -> None:
        """At this moment, whatever it is doing."""
        if self._task is None or self.disk is None:
            return
        self.dies_in = None
        if how is Death.KILLED:
            text, self._state = "", self.disk.killed()
        else:
            text, self._state = self.disk.cut(self.chance)
        self._tell(self.name, how.value, text)
        self.host.die(End.RESET if how is Death.KILLED else End.SILENCE)
        self.host.is_off = how is Death.POWER_CUT
        self.ghosts.add(self._task)
        self._loop.call_soon(self._bury, self._task, self.house)
        self._task, self.house, self.disk = None, None, None
        self.on_death(self)

    def end(self) -> None:
        """Stop in order."""
        if self.house is not None:
            self.house.stop()

    def reload(self) -> None:
        if self.house is not None:
            self.house.reload(
                lambda: self.config.model_copy(update={"data_dir": cast(House, self.house).config.data_dir})
            )

    async def _live(self, house: House, disk: SimulatedDisk) -> None:
        try:
            await house.start()
        except StorageError as exc:
            self._tell(self.name, "cannot start", type(exc).__name__)
            return
        if self.disk is disk:
            self.house = house
            changes = self.storage.changes
            wait, changes.wait = changes.wait, lambda timeout_s: self._wait(house, wait, timeout_s)  # type: ignore[method-assign]
        await house.serve()

    async def _wait(self, house: House, wait: Callable[[float], Coroutine[Any, Any, None]], timeout_s: float) -> None:
        """An idle house polls when something is due: polling each second would be most of the time."""
        if self.house is house and not self.is_at_work:
            due = at_once(self.storage.spool.next_due())
            idle_s = CHORES_EVERY_S if due is None else due - self.clock.now()
            timeout_s = max(timeout_s, min(idle_s, CHORES_EVERY_S))
        await wait(timeout_s)

    def _lose_claims(self) -> None:
        """As another process does that takes this one for dead (`storage/sqlite/sweep.py`)."""
        if self.house is not None:
            storage, name, now = self.storage, self.storage._incarnation.name, self.clock.now()
            rows = at_once(storage.spool.list())
            self.taken_over |= {row.message.queue_id for row in rows if row.claimed}
            try:
                freed = at_once(storage._writer.submit(lambda connection: free_claims(connection, name, now)))
            except (StorageError, Stopped):
                return
            self._tell(self.name, "loses claims", freed)
            storage.changes.notify()

    def _bury(self, task: asyncio.Task[None], house: House | None) -> None:
        """What the dead process would still do is done without its store, and heard by nobody."""
        if house is not None:
            cast(SqliteStorage, house.storage).abandon()
        task.cancel()

    def _ended(self, task: asyncio.Task[None], disk: SimulatedDisk) -> None:
        broken = None if task.cancelled() else task.exception()
        if task in self.ghosts:
            self.ghosts.discard(task)
        elif task is self._task:
            if broken is not None:
                self._broke("the house ended", broken)
            self._state = disk.killed()
            self._tell(self.name, "ended")
            self.host.die(End.CLOSE)
            self._task, self.house, self.disk = None, None, None
            self.on_death(self)
        disk.remove()

    def _end(self, why: str) -> None:
        """The house says that its process must end."""
        self._tell(self.name, "ends itself", why)
        self.die(Death.KILLED)

    def _broke(self, event: str, broken: BaseException) -> None:
        if self._trouble is not None and isinstance(broken, apsw.Error):
            # SQLite keeps what fails while it closes to itself; a VFS written in Python does not.
            return
        if asyncio.current_task() not in self.ghosts and self.is_alive:
            self._unplanned(f"{self.name}: {event}", broken)


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that never waits: all of the inline store's."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return cast(T, ended.value)
    raise AssertionError("it waits")


def make_config(number: int, count: int, terms: dict[str, object]) -> Config:
    """The configuration of one house; `terms` are keys of `[forwarding]`."""
    table: dict[str, Any] = {
        "hostname": domain_of(number),
        "data_dir": "unused",
        "auth": {"allow_cleartext": True},
        "listen": {"smtp": ["127.0.0.1:25"], "pop3": ["127.0.0.1:110"]},
        "reception": {"trusted_networks": [TRUSTED], "refuse_null_mx_senders": False},
        # Where a clock is a year wrong, they would be swept, and they are what is looked at.
        "journey": {"keep": "5000d", "refused_keep": "5000d"},
        "forwarding": {"allow_private_next_hops": True, "tls": "never", **terms},
    }
    return parse(table, Path("/posthouse.toml"))


@cache
def template(number: int, count: int, folder: Path) -> State:
    """What the disk of a house holds that has its accounts and no mail."""
    loop = SimulatedLoop()
    disk = SimulatedDisk(folder / f"template{number}{count}", {}, lambda _operation: None)

    async def make() -> None:
        storage = await SqliteStorage.open(
            disk.folder,
            clock=SetClock(START - 1.0),
            random=SeededRandom(number),
            file_system=disk.file_system,
            vfs=disk.vfs,
            inline_writer=True,
            create=True,
        )
        administration = storage.administration
        await administration.add_domain(domain_of(number))
        for name in ACCOUNTS:
            address = parse_address(f"{name}@{domain_of(number)}")
            verifier = hashes.rehash_password(PASSWORD)
            await administration.add_account(address, verifier=verifier, quota_octets=None, now=START - 1.0)
        for alias, targets in kinds_of_alias(number, count).items():
            address = parse_address(f"{alias}@{domain_of(number)}")
            await administration.add_alias(address, [parse_address(target) for target in targets])
        await storage.close()

    try:
        loop.drive(make())
        return disk.killed()
    finally:
        disk.remove()
        loop.close()


@contextmanager
def quick() -> Iterator[None]:
    """What would be most of the time, and is not what is simulated: slow hashes, and chores of each minute.

    A house leaps over hours in which nothing is due; its chores then need not be done once for each leap.
    """
    was = hashes._HASHER, app.SWEEP_EVERY_S, app.TELL_EVERY_S, app.NOTE_LOGINS_EVERY_S, runner.CLOCK_CHECK_S
    tick_s, readiness.TICK_S = readiness.TICK_S, CHORES_EVERY_S
    metrics, app.Metrics = app.Metrics, cast(Any, Uncounted)
    hashes._HASHER = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    app.SWEEP_EVERY_S = app.TELL_EVERY_S = app.NOTE_LOGINS_EVERY_S = runner.CLOCK_CHECK_S = CHORES_EVERY_S
    try:
        yield
    finally:
        readiness.TICK_S, app.Metrics = tick_s, metrics
        hashes._HASHER, app.SWEEP_EVERY_S, app.TELL_EVERY_S, app.NOTE_LOGINS_EVERY_S, runner.CLOCK_CHECK_S = was
