"""One simulated world: some houses, the outside, people, adversities; all of it drawn from one seed.

A run has three parts: a time in which mail is sent and read and things go wrong; then all is healed, and what was
acknowledged has to reach an end within the schedule; then everything is read and looked at.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from posthouse.net.dns import MxHost
from tests.simulation import faults
from tests.simulation.faults import DAY_S, HOUR_S, Adversity
from tests.simulation.house import SimulatedHouse, at_once, make_config, quick, template
from tests.simulation.ledger import Ledger, Violation, audit
from tests.simulation.loop import SimulatedLoop
from tests.simulation.network import Host, Network
from tests.simulation.outside import Names, OutsideHost, SimulatedResolver, Taken
from tests.simulation.people import Dialogue, Gone, Letter, Manner, read, send
from tests.simulation.places import (
    ACCOUNTS,
    CLIENT,
    DEAD,
    DEAD_ADDRESS,
    GOOD,
    NULL,
    ODD,
    OUTSIDE,
    STRANGER,
    address_of,
    domain_of,
    recipients,
)

BUSY_LEAP_S = 150.0
"""While a connection is open or an attempt under way, no timer is later than this."""
SLOW_LEAP_S = 20.0
"""Where something is due and waits for a place."""
LAST_EVENTS = 80

SCHEDULES: tuple[tuple[tuple[str, ...], float], ...] = (
    (("5m", "10m", "20m", "40m", "1h", "2h", "4h"), 4 * HOUR_S),
    (("30m", "6h"), 6 * HOUR_S),
    *[(("15m", "2h", "12h"), 12 * HOUR_S)] * 3,
    *[(("5m", "1h", "1d"), DAY_S)] * 6,
)
"""Retry intervals, and the longest of them."""


@dataclass(slots=True)
class Summary:
    """What one seed covered."""

    seed: int
    sent: int = 0
    accepted: int = 0
    taken_outside: int = 0
    deaths: int = 0
    connections: int = 0
    steps: int = 0
    audits: int = 0
    days: float = 0.0
    trace: str = ""


class Failed(AssertionError):
    """A seed that broke a promise, with what there is to see it again."""


@dataclass(slots=True, kw_only=True)
class Options:
    """How a world is run; `until`: stop at this time (seconds of the simulation) and look."""

    without: frozenset[Adversity] = frozenset()
    until: float = float("inf")
    trace: Callable[[str], None] | None = None
    hashed: bool = False


class Simulation:
    def __init__(self, seed: int, folder: Path, options: Options) -> None:
        self.seed = seed
        self.options = options
        self.folder = folder
        self.loop = SimulatedLoop()
        self.events: deque[tuple[Any, ...]] = deque(maxlen=LAST_EVENTS)
        self._hash = hashlib.sha256() if options.hashed else None
        self.network = Network(self.loop, self.chance("network"), self.tell)
        self.names = Names(self.loop)
        self.ledger = Ledger()
        self.outside: dict[str, OutsideHost] = {}
        self.houses: list[SimulatedHouse] = []
        self.is_healed = False
        self.audits = self.sent = self.deaths = self._people = 0
        self.broken: list[str] = []
        chance = self.chance("shape")
        self.kinds = faults.enabled(chance) - options.without
        self.active_s = chance.choice([HOUR_S, 12 * HOUR_S, 2 * DAY_S]) * chance.uniform(0.3, 1.0)
        self._schedule, self._longest_s = chance.choice(SCHEDULES)
        self._settle(chance)

    def chance(self, purpose: str) -> Random:
        """Chance for one purpose: what one uses up changes nothing for another."""
        return Random(f"{self.seed} {purpose}")

    def tell(self, *event: Any) -> None:
        line = (round(self.loop.time(), 6), *event)
        self.events.append(line)
        if self._hash is not None:
            self._hash.update(repr(line).encode())
        if self.options.trace is not None:
            self.options.trace(show(line))

    def at(self, when: float, callback: Callable[[], None]) -> None:
        self.loop.at(when, callback)

    def part(self, one: str, other: str) -> None:
        if not self.is_healed:
            self.tell("net", "parted", one, other)
            self.network.part(one, other)

    def join(self, one: str, other: str) -> None:
        self.network.parted -= {(one, other), (other, one)}

    def run(self) -> Summary:
        """Raises Violation, or whatever went wrong."""
        try:
            with quick():
                self.loop.drive(self._run())
        finally:
            self._close()
        return Summary(
            seed=self.seed,
            sent=self.sent,
            accepted=sum(map(len, self.ledger.accepted.values())),
            taken_outside=sum(len(host.taken) for host in self.outside.values()),
            deaths=self.deaths,
            connections=self.network.connections,
            steps=sum(house.steps for house in self.houses),
            audits=self.audits,
            days=self.loop.time() / DAY_S,
            trace=self._hash.hexdigest() if self._hash is not None else "",
        )

    # Making the world.

    def _settle(self, chance: Random) -> None:
        count = chance.choice([2, 2, 3])
        terms: dict[str, object] = {"retry": list(self._schedule), "delay_notice_after": "4h"}
        if chance.random() < 0.2:
            terms["reports_per_minute"] = 1
        if chance.random() < 0.2:
            terms["concurrency_per_destination"] = 1
        for number in range(count):
            own = dict(terms)
            if number == 0 and chance.random() < 0.2:
                # A house that hands everything to its neighbour.
                own["routes"] = {"*": f"mx.{domain_of(1)}:25"}
            host = self.network.host(domain_of(number), address_of(number))
            with quick():
                state = template(number, count, self.folder)
            house = SimulatedHouse(
                number,
                make_config(number, count, own),
                state,
                host,
                SimulatedResolver(self.names),
                self.loop,
                self.tell,
                self._unplanned,
            )
            house.chance = self.chance(f"house {number}")
            house.on_death = self._died
            self.houses.append(house)
            self._name(domain_of(number), address_of(number))
        for name, address in OUTSIDE.items():
            host = self.network.host(name, address)
            self.outside[name] = OutsideHost(
                name, host, self.loop, self.tell, pipelining=chance.random() < 0.5, dsn=chance.random() < 0.3
            )
            self.outside[name].on_taken = self._taken
            self.outside[name].on_told = self._told
            self._name(name, address)
        self._name(DEAD, DEAD_ADDRESS)
        self.names.mail_exchangers[NULL] = (MxHost(0, ""),)
        self.names.addresses["ship.test"] = (OUTSIDE[GOOD],)
        self.clients = [self.network.host("client", CLIENT), self.network.host("stranger", STRANGER)]

    def _name(self, domain: str, address: str) -> None:
        self.names.mail_exchangers[domain] = (MxHost(10, f"mx.{domain}"),)
        self.names.addresses[f"mx.{domain}"] = (address,)

    # The run.

    async def _run(self) -> None:
        self.loop.leap = self._leap
        self.loop.set_exception_handler(self._unhandled)
        for house in self.houses:
            house.start(self.folder / str(self.seed))
        chance = self.chance("people")
        for number in range(chance.randint(1, 5)):
            self._plan_letter(number, chance)
        for _ in range(chance.randint(1, 3)):
            self._plan_reader(chance)
        faults.plan(self, self.kinds)
        await self._pass(self.active_s)
        await self._heal()
        await self._drain()
        await self._read_everything()
        for house in self.houses:
            audit(self, house, everything=True)
        self._look()

    async def _pass(self, seconds: float) -> None:
        ends = self.loop.time() + seconds
        if ends > self.options.until:
            await self.loop.pause(max(0.0, self.options.until - self.loop.time()))
            for house in self.houses:
                audit(self, house)
            raise Violation("stopped at the time that was asked for")
        await self.loop.pause(seconds)
        self._look()

    async def _heal(self) -> None:
        self.tell("world", "healed")
        self.is_healed = True
        self.network.heal()
        self.names.trouble = lambda _name: ""
        for host in self.outside.values():
            host.mood = lambda: ""
            host.host.is_off = False
        for house in self.houses:
            house.dies_in, house.clock.wrong_s, house.trouble = None, 0.0, None
            house.loses_claims_in = None
        # Whoever died is started again within some minutes; sessions of before are over when their limits are.
        await self._pass(2 * HOUR_S)
        for house in self.houses:
            house.dies_in = None
            if house.house is None:
                raise Violation(f"{house.name} does not start again")

    async def _drain(self) -> None:
        """Wait until no recipient waits; within the schedule."""
        hops = len(self.houses) + 1
        limit = self.loop.time() + 5 * DAY_S + hops * (1.1 * self._longest_s + 4 * HOUR_S)
        while any(at_once(house.storage.spool.count()) for house in self.houses):
            if self.loop.time() > limit:
                waiting = [str(row) for house in self.houses for row in at_once(house.storage.spool.list())]
                raise Violation(f"the queue does not drain: {waiting}")
            await self._pass(6 * HOUR_S)

    async def _read_everything(self) -> None:
        """Every message is what was sent, and gone once it was deleted."""
        for house in self.houses:
            for name in ACCOUNTS:
                login = f"{name}@{house.domain}"
                dialogue = await Dialogue.open(self.network, self.clients[0], house.host.address, 110)
                seen = await read(dialogue, login, self.chance("end"), everything=True)
                self.ledger.note_read(login, seen)
                if seen.ended != "deleted" or len(seen.shown) != len(seen.listed):
                    raise Violation(f"{login} cannot be read: {seen.ended}")
                self._compare(login, seen.shown)

    def _compare(self, login: str, shown: tuple[tuple[str, bytes], ...]) -> None:
        for uidl, octets in shown:
            for message_id, letter in self.ledger.letters.items():
                own = f"\r\nMessage-ID: <{message_id}>\r\n".encode()
                if own in octets and b"multipart/report" not in octets and not octets.endswith(letter.content):
                    raise Violation(f"{login}: {uidl} is not what was sent as {message_id}")

    def _look(self) -> None:
        if self.broken:
            raise Violation("; ".join(self.broken))

    # People.

    def _plan_letter(self, number: int, chance: Random) -> None:
        house = self.houses[chance.randrange(len(self.houses))]
        index = self.houses.index(house)
        host = self.clients[chance.random() < 0.25]
        senders = [f"ann@{house.domain}", f"bob@{house.domain}", f"friend@{GOOD}", f"nobody@{ODD}", ""]
        reverse_path = senders[chance.choice([0, 0, 1, 2, 2, 3, 4])]
        whom = recipients(index, len(self.houses))
        forward_paths = tuple(dict.fromkeys(chance.choices(whom, k=chance.choice([1, 1, 2, 4]))))
        manner = Manner(chance.random() < 0.5, chance.random() < 0.08)
        size = chance.choice([100, 100, 2000, 2000, 6000, 150_000 if chance.random() < 0.2 else 300])
        began, tries = chance.uniform(0.0, self.active_s), chance.choice([1, 3, 3])
        seed = chance.getrandbits(64)

        async def sending() -> None:
            for attempt in range(tries):
                letter = make_letter(f"{number}.{attempt}", reverse_path, forward_paths, size, Random(seed))
                if not await self._send(host, house, letter, manner):
                    return
                await self.loop.pause(1800.0)

        self.at(began, lambda: self._person(sending()))

    async def _send(self, host: Host, house: SimulatedHouse, letter: Letter, manner: Manner) -> bool:
        """Whether to try again."""
        try:
            dialogue = await Dialogue.open(self.network, host, house.host.address, 25)
        except Gone:
            return True
        self.sent += 1
        self.ledger.letters[letter.message_id] = letter
        answer = await send(dialogue, letter, manner)
        self.tell("client", letter.message_id, answer.code, answer.dot, answer.queue_id, *answer.taken)
        self.ledger.note_sent(house, letter, answer)
        return (answer.code == 0 and not manner.leaves_early) or 400 <= answer.code < 500

    def _plan_reader(self, chance: Random) -> None:
        house = self.houses[chance.randrange(len(self.houses))]
        login, began = f"{chance.choice(ACCOUNTS)}@{house.domain}", chance.uniform(0.0, self.active_s * 1.1)
        own = Random(chance.getrandbits(64))

        async def reading() -> None:
            try:
                dialogue = await Dialogue.open(self.network, self.clients[0], house.host.address, 110)
            except Gone:
                return
            seen = await read(dialogue, login, own)
            self.tell("reader", login, seen.ended, *seen.marked)
            self.ledger.note_read(login, seen)

        self.at(began, lambda: self._person(reading()))

    def _taken(self, taken: Taken) -> None:
        try:
            self.ledger.note_taken(self._sender(taken), taken)
        except Violation as exc:
            self.broken.append(str(exc))

    def _told(self, taken: Taken) -> None:
        self.ledger.note_told(self._sender(taken), taken)

    def _sender(self, taken: Taken) -> SimulatedHouse:
        return next(house for house in self.houses if house.host.address == taken.source)

    def _person(self, coroutine: Any) -> None:
        async def guarded() -> None:
            self._people += 1
            try:
                await coroutine
            except Violation as exc:
                self.broken.append(str(exc))
            finally:
                self._people -= 1

        self.loop.create_task(guarded())

    # What happens to houses.

    def _died(self, house: SimulatedHouse) -> None:
        self.deaths += 1
        chance = house.chance
        downtime = chance.choice([1.0, 60.0, 3600.0]) if not self.is_healed else 60.0

        def start() -> None:
            if not house.is_alive:
                house.start(self.folder / str(self.seed))
                self.loop.after(1.0, lambda: self._audit(house))

        self.loop.after(downtime, start)

    def _audit(self, house: SimulatedHouse) -> None:
        try:
            audit(self, house)
        except Violation as exc:
            self.broken.append(str(exc))

    def _unplanned(self, event: str, broken: BaseException) -> None:
        self.broken.append(f"{event}: {broken!r}")

    def _unhandled(self, _loop: object, context: dict[str, Any]) -> None:
        task = context.get("task")
        if not any(task in house.ghosts for house in self.houses):
            self.broken.append(f"{context['message']}: {context.get('exception')!r}")

    def _leap(self, until: float) -> float:
        now = self.loop.time()
        limit = now + BUSY_LEAP_S if self.network.is_busy else float("inf")
        for house in self.houses:
            if house.house is None:
                continue
            if house.is_at_work:
                limit = min(limit, now + BUSY_LEAP_S)
            due = at_once(house.storage.spool.next_due())
            if due is not None:
                limit = min(limit, max(due - house.clock.now() + 1.0, SLOW_LEAP_S) + now)
        return max(until, limit) if limit < float("inf") else max(until, self.loop.next_mark)

    def _close(self) -> None:
        from tests.simulation.house import Death

        for house in self.houses:
            house.on_death = lambda _house: None
            house.die(Death.KILLED)

        async def bury() -> None:
            left = asyncio.all_tasks(self.loop) - {asyncio.current_task(self.loop)}
            for task in sorted(left, key=hash):
                task.cancel()
            limit = self.loop.time() + DAY_S
            while any(not task.done() for task in left):
                await self.loop.pause(1.0)
                if self.loop.time() > limit:
                    raise Violation(f"does not end: {[task for task in left if not task.done()]}")

        self.loop.leap = lambda until: until
        self.loop.drive(bury())
        self.loop.close()
        shutil.rmtree(self.folder / str(self.seed), ignore_errors=True)


def make_letter(name: str, reverse_path: str, forward_paths: tuple[str, ...], size: int, chance: Random) -> Letter:
    message_id = f"{name}@client.test"
    lines = [f"Message-ID: <{message_id}>", "From: someone@client.test", "Subject: hello", ""]
    lines += [chance.choice(["", ".", "."]) + chance.randbytes(30).hex() for _ in range(size // 62 + 1)]
    content = "\r\n".join([*lines, ""]).encode()
    return Letter(message_id=message_id, reverse_path=reverse_path, forward_paths=forward_paths, content=content)


def show(line: tuple[Any, ...]) -> str:
    at, who, *what = line
    return f"{at:14.3f} {who!s:10} " + " ".join(str(each) for each in what)


def simulate(seed: int, folder: Path, options: Options | None = None) -> Summary:
    """Run one seed. Raises Failed, which says how to see it again."""
    world = Simulation(seed, folder, options or Options())
    try:
        return world.run()
    except Exception as exc:
        last = "\n".join(show(line) for line in world.events)
        kinds = " ".join(sorted(kind.value for kind in world.kinds))
        raise Failed(
            f"seed {seed} ({kinds}): {exc}\nthe last events:\n{last}\n"
            f"again with: scripts/simulate --seed {seed} --trace"
        ) from exc
