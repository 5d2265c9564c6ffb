"""The spool: due, claim, settle, and what operators do."""

from __future__ import annotations

import dataclasses

from posthouse.mail.acceptance import Destination
from posthouse.mail.spool import DueDestination
from tests.storage.contract.world import FAR, House, accepted, operated, settlement

NEAR = Destination("", "near.test")
PROVIDER = Destination("smtp.provider.test:587", "far.test")


async def test_due_destinations_come_longest_waiting_first(house: House) -> None:
    now = house.clock.now()
    rows = [
        house.forward(0, FAR, now - 5),
        house.forward(1, FAR, now - 9),
        house.forward(2, NEAR, now - 20),
        house.forward(3, PROVIDER, now - 1),
        house.forward(4, Destination("", "later.test"), now + 50),
    ]
    await house.storage.accept(await house.acceptance(forwards=rows))
    due = await house.storage.spool.due(now, 10)
    assert due == (
        DueDestination(NEAR, now - 20),
        DueDestination(FAR, now - 9),
        DueDestination(PROVIDER, now - 1),
    )
    assert await house.storage.spool.next_due() == now - 20
    assert await house.storage.spool.due(now - 30, 10) == ()


async def test_an_empty_spool_has_nothing_due(house: House) -> None:
    assert await house.storage.spool.due(house.clock.now(), 10) == ()
    assert await house.storage.spool.next_due() is None
    assert await house.storage.spool.claim(FAR, 10, house.clock.now()) is None
    assert await house.storage.spool.list() == ()
    assert await house.storage.spool.count() == 0


async def test_claims_are_exclusive_and_count_the_attempt(house: House) -> None:
    await house.accept(forwards=3)
    first = await house.claim(limit=2)
    second = await house.claim(limit=2)
    assert [row.recipient_number for row in (*first.rows, *second.rows)] == [0, 1, 2]
    assert {row.attempts for row in (*first.rows, *second.rows)} == {1}
    assert all(row.claimed for row in first.rows)
    assert await house.storage.spool.claim(FAR, 2, house.clock.now()) is None
    assert await house.storage.spool.next_due() is None
    assert await house.storage.spool.due(house.clock.now(), 9) == ()


async def test_rows_that_are_not_due_are_not_claimed(house: House) -> None:
    await house.storage.accept(await house.acceptance(forwards=[house.forward(not_before=house.clock.now() + 60)]))
    assert await house.storage.spool.claim(FAR, 5, house.clock.now()) is None
    assert await house.storage.spool.claim(FAR, 5, house.clock.now() + 60) is not None


async def test_settling_removes_or_defers(house: House) -> None:
    queue_id = await house.accept(forwards=2)
    claim = await house.claim()
    later = house.clock.now() + 300
    plan = settlement(claim, None)
    deferred = dataclasses.replace(plan.rows[1], not_before=later, last_reply="451 later", delay_notified=True)
    event = accepted(queue_id)
    assert await house.storage.settle(dataclasses.replace(plan, rows=(plan.rows[0], deferred), events=(event,)))
    (row,) = await house.storage.spool.list()
    assert (row.recipient_number, row.not_before, row.attempts) == (1, later, 1)
    assert (row.last_reply, row.delay_notified, row.claimed) == ("451 later", True, False)
    assert await house.storage.journey.read(queue_id) == (event,)
    again = await house.storage.spool.claim(FAR, 5, later)
    assert again is not None
    assert again.rows[0].attempts == 2
    assert await house.storage.settle(settlement(again, later))
    assert (await house.storage.spool.list())[0].delay_notified


async def test_a_lost_claim_changes_nothing(house: House) -> None:
    account = await house.account()
    await house.accept(forwards=2)
    claim = await house.claim()
    assert await house.storage.settle(settlement(claim, house.clock.now()))
    report = await house.acceptance(b"report", to=[account], reverse_path=None)
    assert not await house.storage.settle(settlement(claim, None, (report,)))
    assert await house.storage.spool.count() == 2
    assert len(await house.storage.maildrops.list(account)) == 0


async def test_one_foreign_row_makes_the_whole_settlement_lost(house: House) -> None:
    await house.accept(forwards=2)
    first, second = await house.claim(limit=1), await house.claim(limit=1)
    plan = settlement(first, None)
    plan = dataclasses.replace(plan, rows=plan.rows + settlement(second, None).rows)
    assert not await house.storage.settle(plan)
    assert await house.storage.spool.count() == 2


async def test_a_report_is_there_with_the_failure_that_caused_it(house: House) -> None:
    account = await house.account()
    await house.accept(forwards=1)
    report = await house.acceptance(b"report", to=[account], reverse_path=None)
    assert await house.storage.settle(settlement(await house.claim(), None, (report,)))
    assert (await house.storage.maildrops.list(account)).queue_ids == (report.queue_id,)
    assert await house.storage.spool.count() == 0


async def test_held_rows_are_not_due_until_released(house: House) -> None:
    queue_id = await house.accept(forwards=2)
    assert await house.storage.spool.hold(queue_id, operated(queue_id, "hold")) == 2
    assert await house.storage.spool.hold(queue_id, operated(queue_id, "hold")) == 0
    assert await house.storage.spool.due(house.clock.now(), 5) == ()
    assert await house.storage.spool.claim(FAR, 5, house.clock.now()) is None
    assert all(row.held for row in await house.storage.spool.list(queue_id=queue_id))
    assert await house.storage.spool.release(queue_id, operated(queue_id, "release")) == 2
    assert len((await house.claim()).rows) == 2
    actions = [event.action for event in await house.storage.journey.read(queue_id)]  # type: ignore[union-attr]
    assert actions == ["hold", "release"]


async def test_retry_makes_waiting_rows_due_now(house: House) -> None:
    now = house.clock.now()
    acceptance = await house.acceptance(forwards=[house.forward(not_before=now + 3600)])
    await house.storage.accept(acceptance)
    assert await house.storage.spool.retry(acceptance.queue_id, now, operated(acceptance.queue_id, "retry")) == 1
    assert await house.storage.spool.next_due() == now
    assert len((await house.claim()).rows) == 1
    assert await house.storage.spool.retry(acceptance.queue_id, now, operated(acceptance.queue_id, "retry")) == 0


async def test_remove_spares_claimed_rows(house: House) -> None:
    queue_id = await house.accept(forwards=3)
    claim = await house.claim(limit=1)
    assert await house.storage.spool.remove(queue_id, operated(queue_id, "remove")) == 2
    assert await house.storage.spool.count() == 1
    assert await house.storage.settle(settlement(claim, None))


async def test_list_is_bounded_and_by_message(house: House) -> None:
    first, second = await house.accept(forwards=2), await house.accept(forwards=2)
    assert [row.message.queue_id for row in await house.storage.spool.list(limit=3)] == [first, first, second]
    assert [row.message.queue_id for row in await house.storage.spool.list(queue_id=second)] == [second, second]


async def test_another_process_frees_no_living_claim(house: House) -> None:
    await house.accept(forwards=1)
    claim = await house.claim()
    other = await house.open_another()
    await other.sweep(house.clock.now())
    assert await other.spool.claim(FAR, 5, house.clock.now()) is None
    assert not await other.settle(settlement(claim, None))
    assert await house.storage.settle(settlement(claim, None))


async def test_a_closed_process_gives_its_claims_back(house: House) -> None:
    await house.accept(forwards=1)
    other = await house.open_another()
    assert await other.spool.claim(FAR, 5, house.clock.now()) is not None
    await other.close()
    assert (await house.claim()).rows[0].attempts == 2
