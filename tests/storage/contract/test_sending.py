"""What may have been sent through an identity's own server, and claims that nobody works on any more."""

from __future__ import annotations

import dataclasses

import pytest

from posthouse.mail.acceptance import Destination
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Attempted
from posthouse.mail.spool import Action, Claim, SpoolRow
from posthouse.storage.interfaces import Storage
from tests.storage.contract.engines import kill
from tests.storage.contract.world import FAR, House, operated, settlement

OWN = Destination("smtp.provider.test:587", "far.test")


def keys(claim: Claim) -> list[tuple[QueueId, int]]:
    return [(row.message.queue_id, row.recipient_number) for row in claim.rows]


async def rows_of(house: House, storage: Storage | None = None) -> tuple[SpoolRow, ...]:
    return await (storage or house.storage).spool.list()


async def sent_by(house: House, storage: Storage, count: int = 2, marked: int = 1) -> Claim:
    """Rows for an identity's own server, claimed by `storage`, the first `marked` of them marked."""
    forwards = [house.forward(number, OWN) for number in range(count)]
    await house.storage.accept(await house.acceptance(forwards=forwards))
    claim = await storage.spool.claim(OWN, count, house.clock.now())
    assert claim is not None
    assert await storage.spool.mark_sending(claim.token, keys(claim)[:marked], house.clock.now())
    return claim


async def test_a_mark_is_seen_and_is_of_its_row_only(house: House) -> None:
    await sent_by(house, house.storage)
    first, second = await rows_of(house)
    assert (first.sending_at, second.sending_at) == (house.clock.now(), None)
    assert not first.may_have_arrived
    assert (first.held, first.claimed) == (False, True)


@pytest.mark.parametrize("wrong", ["token", "row", "settled"])
async def test_nothing_is_marked_for_a_claim_that_was_lost(house: House, wrong: str) -> None:
    await house.accept(forwards=2)
    claim = await house.claim(limit=1)
    other = await house.claim(limit=1)
    token, wanted = claim.token, keys(claim)
    if wrong == "token":
        token = other.token
    elif wrong == "row":
        wanted += keys(other)
    else:
        assert await house.storage.settle(settlement(claim, house.clock.now() + 60))
    assert not await house.storage.spool.mark_sending(token, wanted, house.clock.now())
    assert [row.sending_at for row in await rows_of(house)] == [None, None]


async def test_another_process_cannot_mark(house: House) -> None:
    await house.accept(forwards=1)
    claim = await house.claim()
    other = await house.open_another()
    assert not await other.spool.mark_sending(claim.token, keys(claim), house.clock.now())


@pytest.mark.parametrize("death", ["killed", "closed", "idle"])
async def test_a_mark_whose_claim_ends_holds_the_row_and_says_so(house: House, death: str) -> None:
    other = house.storage if death == "idle" else await house.open_another()
    claim = await sent_by(house, other, count=3, marked=2)
    if death == "killed":
        kill(other)
        await house.storage.sweep(house.clock.now())
    elif death == "closed":
        await other.close()
    else:
        assert await house.storage.spool.free_idle(set) == 3
    first, second, third = await rows_of(house)
    for row in (first, second):
        assert row.may_have_arrived
        assert row.last_reply is not None
        assert "may have arrived" in row.last_reply
    assert (third.held, third.claimed, third.last_reply) == (False, False, None)
    events = await house.storage.journey.read(first.message.queue_id)
    assert [(event.outcome, event.forward_path, event.next_at) for event in events if isinstance(event, Attempted)] == [
        ("uncertain", "r0@far.test", None),
        ("uncertain", "r1@far.test", None),
    ]
    again = await house.claim(limit=9, destination=OWN)
    assert keys(again) == keys(claim)[2:]
    assert not await house.storage.settle(settlement(claim, None))


async def test_a_settled_mark_is_gone(house: House) -> None:
    claim = await sent_by(house, house.storage)
    assert await house.storage.settle(settlement(claim, house.clock.now()))
    assert [row.sending_at for row in await rows_of(house)] == [None, None]
    assert len((await house.claim(destination=OWN)).rows) == 2


async def test_an_uncertain_outcome_is_held_with_its_reply(house: House) -> None:
    claim = await sent_by(house, house.storage)
    before = claim.rows[0].not_before
    plan = settlement(claim, None)
    held = dataclasses.replace(plan.rows[0], held=True, last_reply="451 4.4.2 may have arrived")
    assert await house.storage.settle(dataclasses.replace(plan, rows=(held, plan.rows[1])))
    (row,) = await rows_of(house)
    assert (row.held, row.may_have_arrived, row.claimed) == (True, True, False)
    assert (row.last_reply, row.not_before) == ("451 4.4.2 may have arrived", before)
    assert await house.storage.spool.claim(OWN, 9, house.clock.now() + 9e9) is None


@pytest.mark.parametrize("action", ["release", "retry"])
async def test_sending_again_is_somebodys_decision_and_clears_the_mark(house: House, action: str) -> None:
    await sent_by(house, house.storage, marked=2)
    await house.storage.spool.free_idle(set)
    queue_id = (await rows_of(house))[0].message.queue_id
    event = operated(queue_id, action)
    changed = (
        house.storage.spool.release(queue_id, event)
        if action == "release"
        else house.storage.spool.retry(queue_id, house.clock.now(), event)
    )
    assert await changed == 2
    assert [(row.held, row.sending_at) for row in await rows_of(house)] == [(False, None)] * 2
    assert len((await house.claim(destination=OWN)).rows) == 2


async def test_retry_leaves_what_an_operator_held(house: House) -> None:
    queue_id = await house.accept(forwards=1)
    await house.storage.spool.hold(queue_id, operated(queue_id, "hold"))
    assert await house.storage.spool.retry(queue_id, house.clock.now(), operated(queue_id, "retry")) == 0


async def test_releasing_all_leaves_what_may_have_arrived(house: House) -> None:
    claim = await sent_by(house, house.storage)
    await house.storage.spool.free_idle(set)
    held = [await house.accept(forwards=1) for _ in range(3)]
    for queue_id in held:
        await house.storage.spool.hold(queue_id, operated(queue_id, "hold"))

    assert await house.storage.spool.operate(Action.RELEASE, (), "operator") == 3
    assert [row.message.queue_id for row in await rows_of(house) if row.held] == [claim.rows[0].message.queue_id]


async def test_hold_and_release_under_way_keep_the_mark(house: House) -> None:
    claim = await sent_by(house, house.storage)
    queue_id = claim.rows[0].message.queue_id
    await house.storage.spool.hold(queue_id, operated(queue_id, "hold"))
    await house.storage.spool.release(queue_id, operated(queue_id, "release"))
    await house.storage.spool.free_idle(set)
    assert [row.may_have_arrived for row in await rows_of(house)] == [True, False]


async def test_only_claims_that_nobody_works_on_are_freed(house: House) -> None:
    await house.accept(forwards=3)
    first, second = await house.claim(limit=1), await house.claim(limit=1)
    other = await house.open_another()
    others = await other.spool.claim(FAR, 1, house.clock.now())
    assert others is not None
    assert await house.storage.spool.free_idle(lambda: {first.token}) == 1
    assert [row.claimed for row in await rows_of(house)] == [True, False, True]
    assert not await house.storage.settle(settlement(second, None))
    assert await house.storage.settle(settlement(first, None))
    assert await other.settle(settlement(others, None))


async def died_with(house: House, deaths: int) -> None:
    """Let that many processes die, each with all rows of FAR claimed, as soon as they are due."""
    for _ in range(deaths):
        other = await house.open_another()
        house.clock.time = max(row.not_before for row in await rows_of(house))
        while await other.spool.claim(FAR, 100, house.clock.now()) is not None:
            pass
        kill(other)
        await house.storage.sweep(house.clock.now())


async def test_after_one_death_mail_goes_on_at_once(house: House) -> None:
    await house.accept(forwards=3)
    await died_with(house, 1)
    assert {row.deaths for row in await rows_of(house)} == {1}
    assert len((await house.claim()).rows) == 3


@pytest.mark.parametrize(("deaths", "wait_s"), [(2, 60), (3, 300), (4, 900), (5, 3600), (6, 3600)])
async def test_what_kills_its_process_is_put_off_ever_longer(house: House, deaths: int, wait_s: float) -> None:
    await house.accept(forwards=1)
    await died_with(house, deaths)
    (row,) = await rows_of(house)
    assert (row.deaths, row.attempts) == (deaths, deaths)
    assert row.not_before - house.clock.now() == wait_s


async def test_rows_that_died_together_are_not_due_together(house: House) -> None:
    for _ in range(4):
        await house.accept(forwards=1)
    await died_with(house, 2)
    waits = [row.not_before - house.clock.now() for row in await rows_of(house)]
    assert waits == [60, 75, 90, 105]


async def test_a_row_that_killed_twice_is_claimed_with_its_own_message_only(house: House) -> None:
    poison = await house.accept(forwards=2)
    await died_with(house, 2)
    house.clock.time += 120
    innocent = await house.accept(forwards=1)
    queue_ids = [[row.message.queue_id for row in (await house.claim()).rows] for _ in range(2)]
    assert sorted(queue_ids) == sorted([[poison, poison], [innocent]])


async def test_an_outcome_ends_the_count_of_deaths(house: House) -> None:
    await house.accept(forwards=1)
    await died_with(house, 2)
    house.clock.time += 120
    assert await house.storage.settle(settlement(await house.claim(), house.clock.now()))
    assert [row.deaths for row in await rows_of(house)] == [0]


async def test_an_orderly_end_counts_as_no_death(house: House) -> None:
    await house.accept(forwards=1)
    for _ in range(3):
        other = await house.open_another()
        assert await other.spool.claim(FAR, 5, house.clock.now()) is not None
        await other.close()
    assert [(row.deaths, row.not_before <= house.clock.now()) for row in await rows_of(house)] == [(0, True)]


@pytest.mark.conformance("C103")
async def test_a_clock_that_was_wrong_is_put_right(house: House) -> None:
    now = house.clock.now()
    waits = (now + 50, now + 5_000, now + 90_000, now + 9e6)
    forwards = [house.forward(number, FAR, not_before) for number, not_before in enumerate(waits)]
    await house.storage.accept(await house.acceptance(forwards=forwards))
    assert await house.storage.spool.make_due(now + 20_000, now) == 2
    assert [row.not_before for row in await rows_of(house)] == [now + 50, now + 5_000, now, now]


@pytest.mark.conformance("C103")
@pytest.mark.parametrize(("asked_s", "left_s"), [(None, 432_000.0), (50.0, 50.0), (9e9, 432_000.0)])
async def test_an_outcome_may_only_shorten_the_time_that_is_tried(
    house: House, asked_s: float | None, left_s: float
) -> None:
    now = house.clock.now()
    forward = dataclasses.replace(house.forward(0, FAR, now), expires_at=now + 432_000.0)
    await house.storage.accept(await house.acceptance(forwards=[forward]))
    claim = await house.claim()
    outcome = settlement(claim, now)
    expires_at = None if asked_s is None else now + asked_s
    rows = tuple(dataclasses.replace(settled, expires_at=expires_at) for settled in outcome.rows)
    assert await house.storage.settle(dataclasses.replace(outcome, rows=rows))
    assert [row.expires_at for row in await rows_of(house)] == [now + left_s]
