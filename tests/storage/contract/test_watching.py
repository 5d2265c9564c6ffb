"""What operators are told of a store: how deep its queue is, how large it is, whether it commits, what happened."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest

from posthouse.mail.acceptance import Placement
from posthouse.mail.ids import AccountId
from posthouse.mail.journey import JourneyEvent
from posthouse.storage.errors import AccountGone
from tests.storage.contract.world import ENTRY_PREFIX, FAR, House, accepted, alice, operated, settlement

LARGE = b"x" * 200_000


class Told:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[JourneyEvent] = []
        self.items = 0
        self.failures = 0
        self.syncs = 0

    def happened(self, events: Iterable[JourneyEvent]) -> None:
        self.events += events

    def committed(self, items: int, seconds: float) -> None:
        assert seconds >= 0
        self.items += items

    def commit_failed(self) -> None:
        self.failures += 1

    def content_synced(self, seconds: float) -> None:
        assert seconds >= 0
        self.syncs += 1


async def test_an_empty_queue(house: House) -> None:
    depth = await house.storage.spool.depth()
    assert (depth.waiting, depth.held, depth.claimed) == (0, 0, 0)
    assert depth.oldest_at is None
    assert depth.due_since is None


async def test_the_depth_of_a_queue_by_state(house: House) -> None:
    first = await house.acceptance(forwards=[house.forward(number) for number in range(2)])
    await house.storage.accept(first)
    await house.claim()
    house.clock.time += 10.0
    held = await house.accept(forwards=3)
    await house.storage.spool.hold(held, operated(held, "hold"))
    later = house.clock.now() + 300.0
    waits = await house.acceptance(forwards=[house.forward(number, not_before=later) for number in range(4)])
    await house.storage.accept(waits)
    depth = await house.storage.spool.depth()
    assert (depth.waiting, depth.held, depth.claimed) == (4, 3, 2)
    assert depth.oldest_at == first.accepted_at
    assert depth.due_since == later


async def test_a_held_recipient_that_is_claimed_counts_once(house: House) -> None:
    queue_id = await house.accept(forwards=1)
    await house.claim()
    await house.storage.spool.hold(queue_id, operated(queue_id, "hold"))
    depth = await house.storage.spool.depth()
    assert (depth.waiting, depth.held, depth.claimed) == (0, 0, 1)


async def test_proving_leaves_nothing_behind(house: House) -> None:
    await house.storage.prove()
    await house.storage.prove()
    another = await house.open_another()
    house.others.append(another)
    await another.prove()
    assert [flaw async for flaw in house.storage.check()] == []


async def test_proving_is_a_commit(house: House) -> None:
    told = Told()
    house.storage.observe(told)
    await house.storage.prove()
    assert told.items == 1


async def test_the_sizes_of_a_store(house: House) -> None:
    await house.accept(to=[await house.account()])
    sizes = await house.storage.sizes()
    assert sizes.database_octets > 0
    assert sizes.log_octets > 0
    assert sizes.content_octets == 0
    assert 0 < sizes.disk_free_octets < sizes.disk_octets


async def test_the_size_of_content_in_files_is_measured_now_and_then(house: House) -> None:
    account = await house.account()
    await house.accept(LARGE, to=[account])
    assert (await house.storage.sizes()).content_octets == len(LARGE)
    await house.accept(LARGE, to=[account])
    assert (await house.storage.sizes()).content_octets == len(LARGE)
    house.clock.time += 600.0
    assert (await house.storage.sizes()).content_octets == 2 * len(LARGE)


async def test_what_was_accepted_and_settled_is_told_with_its_reports(house: House) -> None:
    told = Told()
    house.storage.observe(told)
    report = await house.acceptance()
    report = dataclasses.replace(report, events=(accepted(report.queue_id),))
    acceptance = await house.acceptance(forwards=[house.forward()], generated=(report,))
    acceptance = dataclasses.replace(acceptance, events=(accepted(acceptance.queue_id),))
    await house.storage.accept(acceptance)
    assert told.events == [*acceptance.events, *report.events]
    told.events.clear()
    claim = await house.claim()
    second = await house.acceptance()
    second = dataclasses.replace(second, events=(accepted(second.queue_id),))
    event = operated(acceptance.queue_id, "retry")
    settled = dataclasses.replace(settlement(claim, None, (second,)), events=(event,))
    assert await house.storage.settle(settled)
    assert told.events == [event, *second.events]


async def test_a_settlement_of_a_lost_claim_is_not_told(house: House) -> None:
    await house.accept(forwards=1)
    claim = dataclasses.replace(await house.claim(), token="lost")
    told = Told()
    house.storage.observe(told)
    event = operated(claim.rows[0].message.queue_id, "retry")
    assert not await house.storage.settle(dataclasses.replace(settlement(claim, None), events=(event,)))
    assert told.events == []


async def test_what_was_not_accepted_is_not_told(house: House) -> None:
    told = Told()
    house.storage.observe(told)
    acceptance = await house.acceptance()
    placement = Placement(account=AccountId(77), forward_path=alice, prefix=ENTRY_PREFIX)
    events = (accepted(acceptance.queue_id),)
    with pytest.raises(AccountGone):
        await house.storage.accept(dataclasses.replace(acceptance, placements=(placement,), events=events))
    assert told.events == []


async def test_journeys_and_deletions_are_told(house: House) -> None:
    account = await house.account()
    queue_id = await house.accept(to=[account])
    told = Told()
    house.storage.observe(told)
    read, gone = operated(queue_id, "read"), operated(queue_id, "gone")
    await house.storage.journey.append((read,))
    lock = await house.storage.maildrops.lock(account)
    assert await house.storage.maildrops.expunge(lock, [1], (gone,))
    assert told.events == [read, gone]
    await house.storage.maildrops.unlock(lock)
    assert not await house.storage.maildrops.expunge(lock, [1], (gone,))
    assert told.events == [read, gone]


async def test_the_sync_of_a_file_is_told(house: House) -> None:
    told = Told()
    house.storage.observe(told)
    await house.accept(LARGE, to=[await house.account()])
    assert told.syncs == 1
    await house.accept(forwards=1)
    assert told.syncs == 1
    assert (await house.claim(destination=FAR)).rows
