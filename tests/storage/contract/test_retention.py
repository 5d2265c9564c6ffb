"""How long journeys are kept, by age and by number; what waits is never forgotten."""

from __future__ import annotations

from posthouse.mail.ids import QueueId, first_queue_id, new_queue_id
from posthouse.mail.journey import Refused
from posthouse.storage.upkeep import Retention
from tests.storage.contract.world import DAY_S, House, accepted, operated

KEEP = Retention(journeys_s=30 * DAY_S, refused_s=7 * DAY_S, refused_limit=10)


def refused(house: House, queue_id: QueueId, to: str = "nobody@house.test") -> Refused:
    return Refused(
        queue_id=queue_id,
        at=house.clock.now(),
        command="RCPT",
        reply="550 5.1.1 no",
        peer="192.0.2.1",
        hello="x",
        reverse_path="spam@far.test",
        forward_paths=(to,),
    )


async def known(house: House, *queue_ids: QueueId) -> list[bool]:
    return [bool(await house.storage.journey.read(queue_id)) for queue_id in queue_ids]


async def test_a_journey_goes_when_its_last_event_is_too_old(house: House) -> None:
    old, touched, young = (house.queue_id() for _ in range(3))
    start = house.clock.now()
    await house.storage.journey.append([accepted(one, "a@far.test", "alice@house.test") for one in (old, touched)])
    await house.storage.journey.append([operated(touched, "retry", start + 20 * DAY_S)])
    house.clock.time += 20 * DAY_S
    young = house.queue_id()
    await house.storage.journey.append([accepted(young, "a@far.test", "alice@house.test")])
    await house.storage.sweep(start + 31 * DAY_S, KEEP)
    assert await known(house, old, touched, young) == [False, True, True]
    assert await house.storage.journey.find(forward_path="alice@house.test") == (young, touched)
    await house.storage.sweep(start + 49 * DAY_S, KEEP)
    assert await known(house, touched, young) == [True, True]
    await house.storage.sweep(start + 51 * DAY_S, KEEP)
    assert await known(house, touched, young) == [False, False]
    assert await house.storage.journey.find(reverse_path="a@far.test") == ()


async def test_a_journey_is_kept_while_its_message_waits(house: House) -> None:
    acceptance = await house.acceptance(forwards=[house.forward()])
    await house.storage.accept(acceptance)
    await house.storage.journey.append([accepted(acceptance.queue_id)])
    await house.storage.sweep(house.clock.now() + 90 * DAY_S, KEEP)
    assert await known(house, acceptance.queue_id) == [True]
    await house.storage.spool.remove(acceptance.queue_id, operated(acceptance.queue_id, "remove"))
    await house.storage.sweep(house.clock.now() + 91 * DAY_S, KEEP)
    assert await known(house, acceptance.queue_id) == [False]


async def test_nothing_is_forgotten_without_being_told_to(house: House) -> None:
    queue_id = house.queue_id()
    await house.storage.journey.append([accepted(queue_id)])
    await house.storage.sweep(house.clock.now() + 900 * DAY_S)
    assert await known(house, queue_id) == [True]


async def test_refused_mail_is_forgotten_sooner(house: House) -> None:
    first, second = house.queue_id(), house.queue_id()
    await house.storage.journey.append([refused(house, first), accepted(second)])
    await house.storage.sweep(house.clock.now() + 6 * DAY_S, KEEP)
    assert await known(house, first, second) == [True, True]
    await house.storage.sweep(house.clock.now() + 8 * DAY_S, KEEP)
    assert await known(house, first, second) == [False, True]
    assert await house.storage.journey.find(refused=True) == ()


async def test_of_too_many_refused_the_oldest_go(house: House) -> None:
    kept = house.queue_id()
    await house.storage.journey.append([accepted(kept)])
    ids = [house.queue_id() for _ in range(150)]
    await house.storage.journey.append([refused(house, one, f"n{number}@x.test") for number, one in enumerate(ids)])
    await house.storage.sweep(house.clock.now(), KEEP)
    assert await house.storage.journey.find(refused=True) == tuple(reversed(ids[-10:]))
    assert await house.storage.journey.find(forward_path="n0@x.test") == ()
    assert await house.storage.journey.find(forward_path="n149@x.test") == (ids[-1],)
    assert await known(house, kept) == [True]


async def test_an_accepted_message_that_was_refused_in_part_keeps_its_journey(house: House) -> None:
    acceptance = await house.acceptance(forwards=[house.forward()])
    await house.storage.accept(acceptance)
    await house.storage.journey.append([accepted(acceptance.queue_id), refused(house, acceptance.queue_id)])
    await house.storage.sweep(house.clock.now() + 8 * DAY_S, KEEP)
    assert len(await house.storage.journey.read(acceptance.queue_id)) == 2


def test_the_first_queue_id_of_a_time_parts_the_earlier_from_the_later(house: House) -> None:
    at = 1_700_000_000.25
    assert new_queue_id(at - 0.001, house.chance) < first_queue_id(at) <= new_queue_id(at, house.chance)
    assert first_queue_id(-5.0) == first_queue_id(0.0)
