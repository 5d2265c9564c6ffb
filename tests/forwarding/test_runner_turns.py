"""Who gets the places: nobody starves, and next hops get as much as they bear."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from posthouse.forwarding import runner
from posthouse.forwarding.attempt import Attempt
from posthouse.forwarding.places import PAUSE_S
from posthouse.forwarding.runner import RunnerLimits
from posthouse.mail.acceptance import Notify
from posthouse.mail.outcome import Deferred, Failed, Uncertain
from posthouse.mail.reply import reply
from posthouse.mail.spool import SpoolRow
from tests.forwarding.rows import DAY_S
from tests.forwarding.runner_house import TAKEN, RunnerHouse, runner_house

LATER = Deferred(reply(451, "4.7.1", "Greylisted"))
SLOWER = reply(421, "4.7.0", "Too fast")
UNSURE = Uncertain(reply(451, "4.4.2", "Lost after the final dot"))
OWN = "relay.test:587"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[RunnerHouse]:
    async with runner_house(tmp_path / "house") as opened:
        yield opened


def dead(house: RunnerHouse, *domains: str) -> asyncio.Semaphore:
    """Hosts that nobody answers at; each attempt there takes until the semaphore lets it go."""
    gate = asyncio.Semaphore(0)
    house.relay.dead = set(domains)
    house.relay.answer = lambda row: LATER if row.destination.domain in house.relay.dead else TAKEN

    async def wait(rows: tuple[SpoolRow, ...]) -> None:
        if rows[0].destination.domain in house.relay.dead:
            await gate.acquire()

    house.relay.before = wait
    return gate


async def steps(house: RunnerHouse, group: asyncio.TaskGroup, count: int = 10) -> None:
    for _ in range(count):
        await house.runner.step(group)
        await asyncio.sleep(0)


async def test_more_due_destinations_than_are_looked_at_at_once_starve_nobody(
    house: RunnerHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The healthy ones come last in the order of the pages, and after everybody has waited longer."""
    monkeypatch.setattr(runner, "DUE_LIMIT", 10)
    house.limits = RunnerLimits(concurrency=4, per_destination=2)
    house.renew()
    gate = dead(house, *(f"dead{number:02}.test" for number in range(35)))
    for _ in range(2):
        await house.queue(*(f"r{number}@{domain}" for domain in sorted(house.relay.dead) for number in range(3)))
    house.clock.advance(10)
    await house.queue("bob@zz.test")
    async with asyncio.TaskGroup() as group:
        turns = 0
        while ["bob@zz.test"] not in house.relay.attempts and turns < 60:
            await steps(house, group, 1)
            gate.release()
            turns += 1
        for _ in range(500):
            gate.release()
    assert turns < 40, "each of the 35 dead ones had one turn before, not all of their rows"


async def test_a_new_destination_waits_for_one_round_of_the_others_at_most(house: RunnerHouse) -> None:
    house.limits = RunnerLimits(concurrency=2, per_destination=1)
    house.renew()
    for domain in ("a.test", "b.test"):
        for _ in range(3):
            await house.queue(*(f"r{number}@{domain}" for number in range(100)))
    served: list[str] = []

    async def note(rows: tuple[SpoolRow, ...]) -> None:
        served.append(rows[0].destination.domain)
        if len(served) == 3:
            await house.queue("bob@new.test")

    house.relay.before = note
    await house.run_due()
    assert "new.test" in served[:6]
    assert served.count("a.test") == served.count("b.test") == 3


async def test_destinations_that_failed_leave_half_of_the_places_to_others(house: RunnerHouse) -> None:
    house.limits = RunnerLimits(concurrency=8, per_destination=8)
    house.renew()
    domains = [f"dead{number}.test" for number in range(20)]
    gate = dead(house, *domains)
    for _ in range(20):
        gate.release()
    await house.queue(*(f"r@{domain}" for domain in domains))
    await house.run_due()
    house.clock.advance(3600)
    house.relay.attempts.clear()
    async with asyncio.TaskGroup() as group:
        await steps(house, group)
        assert len(house.relay.attempts) == 4, "half of the places"
        await house.queue(*(f"r@new{number}.test" for number in range(6)))
        await steps(house, group)
        tried = [paths[0].partition("@")[2] for paths in house.relay.attempts]
        assert {f"new{number}.test" for number in range(6)} <= set(tried)
        for _ in range(100):
            gate.release()


async def test_destinations_that_share_a_next_hop_share_its_places(house: RunnerHouse) -> None:
    gate = asyncio.Event()

    async def wait(_rows: tuple[SpoolRow, ...]) -> None:
        await gate.wait()

    house.relay.before = wait
    for number in range(10):
        await house.queue(f"r@d{number}.test", via=OWN)
    async with asyncio.TaskGroup() as group:
        await steps(house, group)
        assert len(house.relay.attempts) == 1
        gate.set()


async def test_a_next_hop_that_asks_to_slow_down_has_a_pause_and_fewer_places(house: RunnerHouse) -> None:
    for _ in range(20):
        await house.queue("first@there.test")
    await house.run_due()
    house.relay.attempts.clear()

    def slower(attempt: Attempt) -> Attempt:
        return replace(attempt, slow_down=SLOWER)

    house.relay.change = slower
    await house.queue("bob@there.test")
    await house.run_due()
    house.relay.change = lambda attempt: attempt
    await house.queue("eve@there.test")
    await house.queue("joe@other.test")
    await house.run_due()
    assert ["eve@there.test"] not in house.relay.attempts
    assert ["joe@other.test"] in house.relay.attempts
    told = [json.loads(line) for line in house.log.getvalue().splitlines()]
    (slowed,) = [line for line in told if line["event"] == "next hop asks to slow down"]
    assert (slowed["next_hop"], slowed["pause_s"], slowed["connections"]) == ("mx", PAUSE_S, 2)
    assert slowed["reply"] == str(SLOWER)
    house.clock.advance(PAUSE_S)
    await house.run_due()
    assert ["eve@there.test"] in house.relay.attempts


@pytest.mark.conformance("C98")
async def test_what_an_attempt_left_out_follows_at_once(house: RunnerHouse) -> None:
    def ten(attempt: Attempt) -> Attempt:
        return replace(attempt, rows=attempt.rows[:10], outcomes=attempt.outcomes[:10])

    house.relay.change = ten
    queue_id = await house.queue(*(f"r{number}@there.test" for number in range(25)))
    await house.run_due()
    assert [len(paths) for paths in house.relay.attempts] == [25, 15, 5]
    assert await house.storage.spool.count() == 0
    events = await house.attempted(queue_id)
    assert len({event.forward_path for event in events}) == len(events) == 25
    assert {event.attempt for event in events} == {1}


@pytest.mark.conformance("C97")
async def test_nobody_expires_because_a_dead_host_was_left_alone(house: RunnerHouse) -> None:
    house.relay.answer = lambda _row: LATER
    await house.queue("bob@there.test", notify=frozenset({Notify.FAILURE}))
    house.clock.advance(6 * DAY_S)
    until = house.clock.now() + 60
    house.relay.change = lambda attempt: replace(attempt, not_before=until)
    await house.run_due()
    (row,) = await house.storage.spool.list()
    assert row.not_before == until
    house.relay.change = lambda attempt: attempt
    house.clock.advance(60)
    await house.run_due()
    assert await house.storage.spool.count() == 0
    assert len(await house.reports()) == 1


@pytest.mark.conformance("C101")
async def test_after_a_partial_success_only_the_others_are_tried_also_after_a_restart(house: RunnerHouse) -> None:
    outcomes = {"bob": LATER, "joe": Failed(reply(550, "5.1.1", "Nobody"))}
    house.relay.answer = lambda row: outcomes.get(row.forward_path.local_part, TAKEN)
    await house.queue("ann@there.test", "bob@there.test", "joe@there.test")
    await house.run_due()
    await house.restart(killed=True)
    house.clock.advance(400)
    house.relay.answer = lambda _row: TAKEN
    house.relay.attempts.clear()
    await house.run_due()
    assert house.relay.attempts == [["bob@there.test"]]
    assert len(await house.reports()) == 1


async def test_an_identitys_message_that_may_have_arrived_waits_for_its_owner(house: RunnerHouse) -> None:
    house.relay.marks = True
    house.relay.answer = lambda _row: UNSURE
    queue_id = await house.queue("bob@there.test", via=OWN)
    await house.run_due()
    (row,) = await house.storage.spool.list()
    assert row.may_have_arrived
    (event,) = await house.attempted(queue_id)
    assert (event.outcome, event.next_at) == ("uncertain", None)
    house.clock.advance(30 * DAY_S)
    house.relay.answer = lambda _row: TAKEN
    assert await house.run_due() == 0
    assert await house.reports() == []
    await house.storage.spool.release(queue_id, event)
    assert await house.run_due() == 1
    assert await house.storage.spool.count() == 0


async def test_on_a_relay_it_is_tried_again_by_the_schedule(house: RunnerHouse) -> None:
    house.relay.answer = lambda _row: UNSURE
    await house.queue("bob@there.test")
    await house.run_due()
    house.clock.advance(400)
    assert await house.run_due() == 1


async def test_an_identitys_message_is_not_sent_twice_after_a_kill_behind_its_mark(house: RunnerHouse) -> None:
    queue_id = await house.queue("bob@there.test", via=OWN)
    (due,) = await house.storage.spool.due(house.clock.now(), 10)
    claim = await house.storage.spool.claim(due.destination, 10, house.clock.now())
    assert claim is not None
    session = house.relay.session(due.destination, lambda: None, _mark(house, claim.token))
    assert session.mark is not None
    assert await session.mark(claim.rows)
    await house.restart(killed=True)
    house.clock.advance(30 * DAY_S)
    assert await house.run_due() == 0
    (row,) = await house.storage.spool.list()
    assert row.may_have_arrived
    assert [event.outcome for event in await house.attempted(queue_id)] == ["uncertain"]


def _mark(house: RunnerHouse, token: str) -> object:
    async def mark(rows: tuple[SpoolRow, ...]) -> bool:
        keys = [(row.message.queue_id, row.recipient_number) for row in rows]
        return await house.storage.spool.mark_sending(token, keys, house.clock.now())

    return mark


async def test_claims_that_no_task_works_on_are_freed(house: RunnerHouse) -> None:
    await house.queue("bob@there.test")
    (due,) = await house.storage.spool.due(house.clock.now(), 10)
    assert await house.storage.spool.claim(due.destination, 10, house.clock.now())
    assert await house.run_due() == 0
    async with asyncio.TaskGroup() as group:
        await house.runner._look_after(group)
    house.clock.advance(3600)
    assert await house.run_due() == 1
