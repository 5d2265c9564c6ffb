"""Maildrops and Spool against models that are too simple to be wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from posthouse.mail.acceptance import Destination
from posthouse.mail.ids import AccountId, QueueId, Uid
from posthouse.mail.maildrop import MaildropLock
from posthouse.mail.spool import Claim
from posthouse.storage.upkeep import Flaw
from tests.storage.contract.engines import ENGINES, kill, open_engine
from tests.storage.contract.world import (
    ENTRY_PREFIX,
    PREFIX,
    House,
    SeededRandom,
    SetClock,
    alice,
    bob,
    operated,
    settlement,
    whole,
)

DESTINATIONS = (Destination("", "a.test"), Destination("", "b.test"), Destination("via.test:587", "a.test"))
SETTINGS = settings(
    max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class StorageMachine(RuleBasedStateMachine):
    """One engine on a folder of its own, driven from rules that are not asynchronous."""

    engine = ENGINES[0]

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.Runner()
        self._folder = tempfile.TemporaryDirectory()
        clock, chance = SetClock(), SeededRandom(1)

        async def open_it() -> Any:
            return await open_engine(self.engine, Path(self._folder.name) / "data", clock, chance)

        self.house = House(self.run(open_it()), clock, chance, open_it)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run(work)

    def reopen(self, *, killed: bool = False) -> None:
        if killed:
            kill(self.house.storage)
        else:
            self.run(self.house.storage.close())
        self.house.storage = self.run(self.house.open_another())

    async def _flaws(self) -> list[Flaw]:
        return [flaw async for flaw in self.house.storage.check()]

    def teardown(self) -> None:
        # Whatever was done, counters and references are right.
        flaws = self.run(self._flaws())
        self.run(self.house.storage.close())
        assert flaws == []
        self._loop.close()
        self._folder.cleanup()


@dataclass
class ModelDrop:
    """What a maildrop should hold: uid to (uidl, octets)."""

    next_uid: int = 1
    entries: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    lock: MaildropLock | None = None


class MaildropsMachine(StorageMachine):
    """accept, expunge, lock and reopening, for two accounts."""

    @initialize()
    def accounts(self) -> None:
        self.drops: dict[AccountId, ModelDrop] = {
            self.run(self.house.account(address)): ModelDrop() for address in (alice, bob)
        }
        self.last: Any = None

    @rule(octets=st.binary(max_size=40), both=st.booleans(), first=st.booleans())
    def accept(self, octets: bytes, both: bool, first: bool) -> None:
        accounts = list(self.drops)
        to = accounts if both else [accounts[0 if first else 1]]
        self.last = self.run(self.house.acceptance(octets, to=to))
        self.run(self.house.storage.accept(self.last))
        for account in to:
            drop = self.drops[account]
            drop.entries[drop.next_uid] = (self.last.queue_id, ENTRY_PREFIX + PREFIX + octets)
            drop.next_uid += 1

    @precondition(lambda self: self.last is not None)
    @rule()
    def accept_again(self) -> None:
        self.run(self.house.storage.accept(self.last))

    @rule(first=st.booleans())
    def lock(self, first: bool) -> None:
        account = list(self.drops)[0 if first else 1]
        drop = self.drops[account]
        lock = self.run(self.house.storage.maildrops.lock(account))
        assert isinstance(lock, MaildropLock) == (drop.lock is None)
        drop.lock = drop.lock or lock

    @rule(first=st.booleans(), uids=st.lists(st.integers(1, 12), max_size=5))
    def expunge(self, first: bool, uids: list[int]) -> None:
        account = list(self.drops)[0 if first else 1]
        drop = self.drops[account]
        lock = drop.lock or MaildropLock(account, "never given")
        removed = self.run(self.house.storage.maildrops.expunge(lock, [Uid(uid) for uid in uids], ()))
        assert removed == (drop.lock is not None)
        if removed:
            for uid in uids:
                drop.entries.pop(uid, None)

    @rule(first=st.booleans())
    def unlock(self, first: bool) -> None:
        drop = self.drops[list(self.drops)[0 if first else 1]]
        if drop.lock is not None:
            self.run(self.house.storage.maildrops.unlock(drop.lock))
            drop.lock = None

    @rule(days=st.integers(0, 2))
    def sweep(self, days: int) -> None:
        self.house.clock.time += days * 86_400.0
        # An acceptance is repeated at once or never.
        self.last = None if days else self.last
        self.run(self.house.storage.sweep(self.house.clock.now()))

    @rule()
    def begin_anew(self) -> None:
        self.reopen()
        self.last = None
        for drop in self.drops.values():
            drop.lock = None

    @invariant()
    def everything_agrees(self) -> None:
        for account, drop in getattr(self, "drops", {}).items():
            listing = self.run(self.house.storage.maildrops.list(account))
            assert listing.uids == tuple(sorted(drop.entries))
            assert listing.uidls == tuple(drop.entries[uid][0] for uid in listing.uids)
            assert listing.sizes_octets == tuple(len(drop.entries[uid][1]) for uid in listing.uids)
            assert self.run(self.house.storage.maildrops.used_octets(account)) == sum(listing.sizes_octets)
            if listing.uids:
                uid = listing.uids[-1]
                assert self.run(whole(self.house.storage.maildrops.read(account, uid))) == drop.entries[uid][1]


@dataclass
class ModelRow:
    """What a spool row should be."""

    destination: Destination
    not_before: float
    attempts: int = 0
    held: bool = False
    token: str | None = None
    marked: bool = False
    deaths: int = 0

    @property
    def may_have_arrived(self) -> bool:
        return self.marked and self.token is None

    def freed(self) -> None:
        """Its claim ended without an outcome."""
        self.token = None
        self.held = self.held or self.marked


class SpoolMachine(StorageMachine):
    """accept, claim, settle, the operator's four, time and reopening."""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[tuple[QueueId, int], ModelRow] = {}
        self.claims: list[Claim] = []

    def due(self, destination: Destination | None = None) -> list[ModelRow]:
        now = self.house.clock.now()
        return [
            row
            for row in self.model.values()
            if not row.held and row.token is None and row.not_before <= now and destination in (None, row.destination)
        ]

    @rule(rows=st.lists(st.tuples(st.sampled_from(DESTINATIONS), st.integers(-5, 20)), min_size=1, max_size=4))
    def accept(self, rows: list[tuple[Destination, int]]) -> None:
        now = self.house.clock.now()
        forwards = [self.house.forward(n, destination, now + wait) for n, (destination, wait) in enumerate(rows)]
        acceptance = self.run(self.house.acceptance(forwards=forwards))
        self.run(self.house.storage.accept(acceptance))
        for number, (destination, wait) in enumerate(rows):
            self.model[acceptance.queue_id, number] = ModelRow(destination, now + wait)

    @rule(seconds=st.integers(0, 15))
    def wait(self, seconds: int) -> None:
        self.house.clock.time += seconds

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def mark(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        keys = [(row.message.queue_id, row.recipient_number) for row in claim.rows]
        ours = all(key in self.model and self.model[key].token == claim.token for key in keys)
        assert self.run(self.house.storage.spool.mark_sending(claim.token, keys, self.house.clock.now())) == ours
        for key in keys if ours else ():
            self.model[key].marked = True

    @rule(data=st.data())
    def free_idle(self, data: st.DataObject) -> None:
        tokens = sorted({row.token for row in self.model.values() if row.token is not None})
        used = set(data.draw(st.lists(st.sampled_from(tokens)))) if tokens else set()
        idle = [row for row in self.model.values() if row.token is not None and row.token not in used]
        assert self.run(self.house.storage.spool.free_idle(lambda: used)) == len(idle)
        for row in idle:
            row.freed()

    @rule(destination=st.sampled_from(DESTINATIONS), limit=st.integers(1, 3))
    def claim(self, destination: Destination, limit: int) -> None:
        claim = self.run(self.house.storage.spool.claim(destination, limit, self.house.clock.now()))
        due = self.due(destination)
        assert (claim is None) == (not due)
        if claim is None:
            return
        if all(row.deaths < 2 for row in due):
            assert [row.not_before for row in claim.rows] == sorted(row.not_before for row in due)[:limit]
        elif any(row.deaths >= 2 for row in claim.rows):
            assert len({row.message.queue_id for row in claim.rows}) == 1
        for row in claim.rows:
            model = self.model[row.message.queue_id, row.recipient_number]
            assert model in due
            model.token, model.attempts = claim.token, model.attempts + 1
            assert row.attempts == model.attempts
        self.claims.append(claim)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), wait=st.none() | st.integers(0, 20), forged=st.booleans())
    def settle(self, data: st.DataObject, wait: int | None, forged: bool) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        not_before = None if wait is None else self.house.clock.now() + wait
        keys = [(row.message.queue_id, row.recipient_number) for row in claim.rows]
        ours = all(key in self.model and self.model[key].token == claim.token for key in keys)
        plan = settlement(claim, not_before)
        plan = dataclasses.replace(plan, token="forged") if forged else plan
        assert self.run(self.house.storage.settle(plan)) == (ours and not forged)
        if not ours or forged:
            return
        for key in keys:
            if not_before is None:
                del self.model[key]
            else:
                model = self.model[key]
                model.token, model.not_before, model.marked, model.deaths = None, not_before, False, 0

    @precondition(lambda self: self.model)
    @rule(data=st.data(), action=st.sampled_from(["hold", "release", "retry", "remove"]))
    def operate(self, data: st.DataObject, action: str) -> None:
        queue_id = data.draw(st.sampled_from(sorted({key[0] for key in self.model})))
        rows = {key: row for key, row in self.model.items() if key[0] == queue_id}
        event = operated(queue_id, action, self.house.clock.now())
        spool = self.house.storage.spool
        if action == "retry":
            changed = [row for row in rows.values() if row.may_have_arrived or (not row.held and row.token is None)]
            assert self.run(spool.retry(queue_id, self.house.clock.now(), event)) == len(changed)
            for row in changed:
                row.not_before, row.held, row.marked = self.house.clock.now(), False, False
        elif action == "remove":
            gone = [key for key, row in rows.items() if row.token is None]
            assert self.run(spool.remove(queue_id, event)) == len(gone)
            for key in gone:
                del self.model[key]
        else:
            held = action == "hold"
            changed = [row for row in rows.values() if row.held is not held]
            assert self.run(getattr(spool, action)(queue_id, event)) == len(changed)
            for row in changed:
                row.held = held
                row.marked = row.marked and (held or row.token is not None)

    @rule(killed=st.booleans())
    def begin_anew(self, killed: bool) -> None:
        self.reopen(killed=killed)
        now = self.house.clock.now()
        stored = {
            (row.message.queue_id, row.recipient_number): row for row in self.run(self.house.storage.spool.list())
        }
        for key, row in self.model.items():
            claimed = row.token is not None
            row.freed()
            if not claimed or not killed or row.marked:
                continue
            row.deaths += 1
            if row.deaths > 1:
                wait_s = (60, 300, 900, 3600)[min(row.deaths, 5) - 2]
                assert now + wait_s <= stored[key].not_before < now + 2 * wait_s
                row.not_before = stored[key].not_before

    @invariant()
    def everything_agrees(self) -> None:
        spool = self.house.storage.spool
        stored = {(row.message.queue_id, row.recipient_number): row for row in self.run(spool.list())}
        assert stored.keys() == self.model.keys()
        for key, row in stored.items():
            model = self.model[key]
            assert (row.not_before, row.attempts, row.held) == (model.not_before, model.attempts, model.held)
            assert row.claimed == (model.token is not None)
            assert (row.sending_at is not None, row.deaths) == (model.marked, model.deaths)
        due = self.run(spool.due(self.house.clock.now(), 10))
        assert {found.destination for found in due} == {each for each in DESTINATIONS if self.due(each)}
        assert [found.oldest_not_before for found in due] == sorted(
            min(row.not_before for row in self.due(found.destination)) for found in due
        )
        waiting = [row.not_before for row in self.model.values() if not row.held and row.token is None]
        assert self.run(spool.next_due()) == min(waiting, default=None)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("machine", [MaildropsMachine, SpoolMachine])
def test_engines_behave_as_the_models(machine: type[StorageMachine], engine: str) -> None:
    named = type(machine.__name__, (machine,), {"engine": engine})
    run_state_machine_as_test(named, settings=SETTINGS)
