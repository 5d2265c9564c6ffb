from __future__ import annotations

import asyncio
import email
import email.policy
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from posthouse.forwarding.runner import POLL_S, ROWS_PER_CLAIM, RunnerLimits, by_message
from posthouse.mail.acceptance import Notify
from posthouse.mail.address import parse_address
from posthouse.mail.outcome import Deferred, Failed, Outcome
from posthouse.mail.reply import reply
from posthouse.mail.spool import SpoolRow
from posthouse.storage.errors import StorageBusy, StorageFull
from posthouse.storage.sqlite.storage import SqliteStorage
from tests.forwarding.rows import DAY_S, a_message, a_row
from tests.forwarding.runner_house import TAKEN, RunnerHouse, runner_house

LATER = Deferred(reply(451, "4.7.1", "Greylisted"))
NEVER = Failed(reply(550, "5.1.1", "No such user"))
REMOTE = parse_address("rob@elsewhere.test")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[RunnerHouse]:
    async with runner_house(tmp_path / "house") as opened:
        yield opened


def by_name(**answers: Outcome | Exception) -> Any:
    """Outcomes by local part; others are taken."""
    return lambda row: answers.get(row.forward_path.local_part, TAKEN)


async def test_what_is_taken_leaves_the_spool_and_stays_in_the_journey(house: RunnerHouse) -> None:
    queue_id = await house.queue("bob@there.test")
    assert await house.run_due() == 1
    assert await house.storage.spool.count() == 0
    (event,) = await house.attempted(queue_id)
    assert (event.outcome, event.reply, event.attempt) == ("delivered", "250 2.0.0 Taken", 1)
    assert await house.reports() == []


@pytest.mark.conformance("C96")
async def test_retries_come_at_their_times_until_expiry_and_one_report(house: RunnerHouse) -> None:
    house.relay.answer = lambda _row: LATER
    queue_id = await house.queue("bob@there.test", notify=frozenset({Notify.FAILURE}))
    expires_at = house.clock.now() + 5 * DAY_S
    while await house.storage.spool.count():
        assert await house.run_due() == 1
        next_due = await house.storage.spool.next_due()
        if next_due is None:
            break
        house.clock.advance(next_due - house.clock.now() - 1)
        assert await house.run_due() == 0
        house.clock.advance(1)
    events = await house.attempted(queue_id)
    assert len(events) > 100
    assert events[-1].at == expires_at
    assert [event.outcome for event in events] == ["deferred"] * (len(events) - 1) + ["failed"]
    assert [event.attempt for event in events] == list(range(1, len(events) + 1))
    (report,) = await house.reports()
    assert b"bob@there.test" in report
    assert b"Greylisted" in report


async def test_a_house_that_was_off_for_a_month_still_tries_once(house: RunnerHouse) -> None:
    await house.queue("bob@there.test")
    house.clock.advance(30 * DAY_S)
    assert await house.run_due() == 1
    assert await house.storage.spool.count() == 0
    assert await house.reports() == []


async def test_one_report_tells_of_all_that_failed_together(house: RunnerHouse) -> None:
    house.relay.answer = by_name(bob=NEVER, eve=NEVER, joe=LATER)
    queue_id = await house.queue("bob@there.test", "eve@there.test", "joe@there.test", "ann@there.test")
    await house.run_due()
    (report,) = await house.reports()
    parsed = email.message_from_bytes(report, policy=email.policy.default)
    assert parsed.get_content_type() == "multipart/report"
    assert parsed["To"] == "ada@here.test"
    status = list(parsed.iter_parts())[1].get_payload()
    assert [part["Final-Recipient"] for part in status[1:]] == ["rfc822; bob@there.test", "rfc822; eve@there.test"]
    (told,) = await house.reported(queue_id)
    assert told.forward_paths == ("bob@there.test", "eve@there.test")
    (waits,) = await house.storage.spool.list()
    assert str(waits.forward_path) == "joe@there.test"
    house.relay.answer = lambda _row: TAKEN
    house.clock.advance(400)
    await house.run_due()
    assert house.relay.attempts[-1] == ["joe@there.test"]


async def test_rows_of_one_message_keep_their_own_notify(house: RunnerHouse) -> None:
    house.relay.answer = lambda _row: NEVER
    await house.queue("bob@there.test", notify=frozenset({Notify.NEVER}))
    await house.run_due()
    assert await house.reports() == []
    assert await house.storage.spool.count() == 0


async def test_nothing_is_returned_to_the_null_path(house: RunnerHouse) -> None:
    house.relay.answer = lambda _row: NEVER
    queue_id = await house.queue("bob@there.test", reverse_path=None)
    await house.run_due()
    assert await house.storage.spool.count() == 0
    (told,) = await house.reported(queue_id)
    assert told.report_queue_id is None
    assert "null path" in told.reason


async def test_a_report_goes_to_a_sender_elsewhere_and_never_causes_another(house: RunnerHouse) -> None:
    house.relay.answer = lambda _row: NEVER
    await house.queue("bob@there.test", reverse_path=REMOTE)
    await house.run_due()
    assert house.relay.attempts == [["bob@there.test"], ["rob@elsewhere.test"]]
    assert await house.storage.spool.count() == 0


async def test_success_is_told_where_it_was_asked_for(house: RunnerHouse) -> None:
    await house.queue("bob@there.test", notify=frozenset({Notify.SUCCESS}))
    await house.run_due()
    (report,) = await house.reports()
    assert b"Action: relayed" in report


async def test_the_delay_notice_comes_once(house: RunnerHouse) -> None:
    house.relay.answer = lambda _row: LATER
    await house.queue("bob@there.test")
    for _ in range(24):
        house.clock.advance(3600)
        await house.run_due()
    (report,) = await house.reports()
    assert b"Action: delayed" in report


async def test_an_error_inside_defers_one_message_and_never_bounces(house: RunnerHouse) -> None:
    house.relay.answer = by_name(bad=RuntimeError("a bug"))
    queue_id = await house.queue("bad@there.test")
    await house.queue("bob@there.test")
    await house.run_due()
    (row,) = await house.storage.spool.list()
    assert (row.message.queue_id, row.claimed) == (queue_id, False)
    assert row.not_before > house.clock.now()
    assert await house.reports() == []
    assert ["bob@there.test"] in house.relay.attempts


async def test_what_fails_inside_until_expiry_is_told_in_the_end(house: RunnerHouse) -> None:
    house.relay.answer = by_name(bad=RuntimeError("a bug"))
    await house.queue("bad@there.test", notify=frozenset({Notify.FAILURE}))
    house.clock.advance(6 * DAY_S)
    await house.run_due()
    assert await house.storage.spool.count() == 0
    assert len(await house.reports()) == 1


async def test_a_report_about_damaged_content_still_goes(house: RunnerHouse, tmp_path: Path) -> None:
    house.relay.answer = lambda _row: NEVER
    await house.queue("bob@there.test", content=b"Subject: big\r\n\r\n" + b"x" * 70 * 3000 + b"\r\n")
    (file,) = (tmp_path / "house" / "content").glob("*/*")
    file.unlink()
    await house.run_due()
    assert await house.storage.spool.count() == 0
    assert len(await house.reports()) == 1


async def test_an_outcome_is_written_again_and_not_attempted_again(
    house: RunnerHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.relay.answer = by_name(bob=NEVER)
    settle, failures = house.storage.settle, [StorageBusy("disk")] * 20

    async def busy(settlement: Any) -> bool:
        if failures:
            raise failures.pop()
        return await settle(settlement)

    monkeypatch.setattr(house.storage, "settle", busy)
    await house.queue("bob@there.test", "ann@there.test")
    await house.run_due()
    assert len(house.relay.attempts) == 1
    # However long it took: nothing was tried again, and the report was not given up.
    assert await house.storage.spool.count() == 0
    assert len(await house.reports()) == 1


async def test_a_report_that_does_not_fit_waits_and_the_served_are_served(
    house: RunnerHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.relay.answer = by_name(bob=NEVER)
    settle, full = house.storage.settle, [True]

    async def no_room(settlement: Any) -> bool:
        if full and settlement.generated:
            raise StorageFull("disk")
        return await settle(settlement)

    monkeypatch.setattr(house.storage, "settle", no_room)
    await house.queue("bob@there.test", "ann@there.test")
    await house.run_due()
    (row,) = await house.storage.spool.list()
    assert str(row.forward_path) == "bob@there.test"
    full.clear()
    house.clock.advance(400)
    await house.run_due()
    assert house.relay.attempts[-1] == ["bob@there.test"]
    assert len(await house.reports()) == 1


async def test_content_that_cannot_be_read_is_still_reported(
    house: RunnerHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.relay.answer = lambda _row: NEVER

    async def bad_sector(_content_id: Any) -> AsyncGenerator[bytes, None]:
        raise StorageBusy("EIO")
        yield b""

    await house.queue("bob@there.test")
    with monkeypatch.context() as patched:
        patched.setattr(house.storage.content, "open", bad_sector)
        await house.run_due()
    assert await house.storage.spool.count() == 0
    assert len(await house.reports()) == 1


async def test_a_lost_claim_changes_nothing_and_ends_the_claim(
    house: RunnerHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(_settlement: Any) -> bool:
        return False

    monkeypatch.setattr(house.storage, "settle", lost)
    queue_id = await house.queue("bob@there.test")
    await house.queue("eve@there.test")
    await house.run_due()
    assert len(house.relay.attempts) == 1
    assert await house.attempted(queue_id) == []
    assert await house.storage.spool.count() == 2


@pytest.mark.conformance("C103")
async def test_claims_of_a_killed_process_are_taken_over(house: RunnerHouse, tmp_path: Path) -> None:
    await house.queue("bob@there.test")
    (due,) = await house.storage.spool.due(house.clock.now(), 10)
    assert await house.storage.spool.claim(due.destination, 10, house.clock.now()) is not None
    assert await house.run_due() == 0
    house.storage.abandon()
    house.storage = await SqliteStorage.open(
        tmp_path / "house", clock=house.clock, random=house.random, inline_writer=True
    )
    house.renew()
    assert await house.run_due() == 1
    assert await house.storage.spool.count() == 0


async def test_dead_destinations_with_many_rows_starve_nobody(house: RunnerHouse) -> None:
    """Twenty-five dead destinations, more than there are places: the healthy one goes in its turn."""
    house.limits = RunnerLimits(concurrency=20, per_destination=5)
    house.renew()
    house.relay.dead = {f"dead{number}.test" for number in range(25)}
    gate = asyncio.Semaphore(0)

    async def wait(rows: tuple[SpoolRow, ...]) -> None:
        if rows[0].destination.domain in house.relay.dead:
            await gate.acquire()

    house.relay.before = wait
    house.relay.answer = lambda row: LATER if row.destination.domain in house.relay.dead else TAKEN
    for domain in house.relay.dead:
        await house.queue(*(f"r{number}@{domain}" for number in range(ROWS_PER_CLAIM + 50)))
    house.clock.advance(10)
    await house.queue("bob@there.test")
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            await house.runner.step(group)
            await asyncio.sleep(0)
        tried = Counter(paths[0].partition("@")[2] for paths in house.relay.attempts)
        assert max(tried.values()) == 1, "a dead destination holds one place"
        assert len(tried) == house.limits.unproven == 15
        for _ in range(12):
            gate.release()
            for _ in range(10):
                await asyncio.sleep(0)
            await house.runner.step(group)
            await asyncio.sleep(0)
        assert ["bob@there.test"] in house.relay.attempts
        for _ in range(100):
            gate.release()


async def test_memory_holds_a_few_claims_of_a_destination_not_all_its_rows(house: RunnerHouse) -> None:
    gate = asyncio.Event()

    async def wait(_rows: tuple[SpoolRow, ...]) -> None:
        await gate.wait()

    await grow(house, "there.test")
    house.relay.before = wait
    for _ in range(10):
        await house.queue(*(f"r{number}@there.test" for number in range(100)))
    async with asyncio.TaskGroup() as group:
        while await house.runner.step(group):
            await asyncio.sleep(0)
        assert sum(row.claimed for row in await house.storage.spool.list()) == 5 * ROWS_PER_CLAIM
        gate.set()


@pytest.mark.conformance("C103", "C304")
async def test_a_clock_that_was_wrong_keeps_nobody_waiting(house: RunnerHouse) -> None:
    house.relay.answer = lambda _row: LATER
    await house.queue("bob@there.test")
    await house.run_due()
    house.clock.jump(-365 * DAY_S)
    assert await house.run_due() == 0
    house.clock.advance(601)
    assert await house.run_due() == 1
    (row,) = await house.storage.spool.list()
    assert row.not_before - house.clock.now() < 3600


async def test_rows_that_wait_as_the_schedule_says_are_left_alone(house: RunnerHouse) -> None:
    house.relay.answer = lambda _row: LATER
    await house.queue("bob@there.test")
    await house.run_due()
    house.renew()
    assert await house.run_due() == 0


async def test_a_graceful_stop_finishes_the_message_under_way_and_begins_no_other(house: RunnerHouse) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_rows: tuple[SpoolRow, ...]) -> None:
        begun.set()
        await go_on.wait()

    house.relay.before = wait
    both = [await house.queue("bob@there.test"), await house.queue("eve@there.test")]
    async with asyncio.TaskGroup() as group:
        group.create_task(house.runner.run())
        await begun.wait()
        house.runner.stop()
        go_on.set()
    assert len(house.relay.attempts) == 1
    events = [event for queue_id in both for event in await house.attempted(queue_id)]
    assert [event.outcome for event in events] == ["delivered"]
    assert await house.storage.spool.count() == 1


async def test_the_loop_waits_when_every_place_is_taken(house: RunnerHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, waits = asyncio.Event(), []
    wait = house.storage.changes.wait

    async def counted(timeout_s: float) -> None:
        waits.append(timeout_s)
        if len(waits) == 20:
            go_on.set()
        await (wait(timeout_s) if go_on.is_set() else asyncio.sleep(0))

    async def hold(_rows: tuple[SpoolRow, ...]) -> None:
        await go_on.wait()

    monkeypatch.setattr(house.storage.changes, "wait", counted)
    house.relay.before = hold
    house.limits = RunnerLimits(concurrency=1, per_destination=1)
    house.renew()
    await house.queue("bob@there.test")
    await house.queue("eve@elsewhere.test")
    async with asyncio.TaskGroup() as group:
        group.create_task(house.runner.run())
        while await house.storage.spool.count():
            await asyncio.sleep(0)
        house.runner.stop()
    assert set(waits) == {POLL_S}
    assert len(house.relay.attempts) == 2


def test_one_transaction_has_one_message_and_one_reverse_path() -> None:
    one, other = a_message("q1"), a_message("q2")
    rows = (a_row("a", message=one), a_row("b", message=other), a_row("c", message=one, reverse_path=None))
    more = a_row("d", message=one, notify=frozenset({Notify.NEVER}))
    assert by_message((*rows, more)) == [(rows[0], more), (rows[1],), (rows[2],)]


async def grow(house: RunnerHouse, domain: str) -> None:
    """Deliver so many messages that the next hop has all the places that it can have."""
    for _ in range(20):
        await house.queue(f"first@{domain}")
    await house.run_due()
    house.relay.attempts.clear()


@pytest.mark.parametrize(("dead", "places"), [(True, 1), (False, 5)])
async def test_a_destination_has_one_place_until_it_took_some_messages(
    house: RunnerHouse, dead: bool, places: int
) -> None:
    gate = asyncio.Event()

    async def wait(_rows: tuple[SpoolRow, ...]) -> None:
        await gate.wait()

    house.relay.dead = {"there.test"} if dead else set()
    if dead:
        house.relay.answer = lambda _row: LATER
    await grow(house, "there.test")
    house.relay.before = wait
    for _ in range(8):
        await house.queue(*(f"r{number}@there.test" for number in range(ROWS_PER_CLAIM)))
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            await house.runner.step(group)
            await asyncio.sleep(0)
        assert len(house.relay.attempts) == places
        gate.set()
