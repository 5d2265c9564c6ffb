"""The journey: events in order, found by party."""

from __future__ import annotations

from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Attempted, Refused
from tests.storage.contract.world import House, accepted


async def test_events_are_read_in_the_order_they_were_written(house: House) -> None:
    queue_id = house.queue_id()
    first = accepted(queue_id, "a@far.test", "Alice@house.test")
    second = Attempted(
        queue_id=queue_id,
        at=0.5,
        forward_path="Alice@house.test",
        outcome="deferred",
        reply="451 4.3.0 spät",
        from_peer=True,
        next_hop="mx.test",
        address="192.0.2.9",
        attempt=1,
        duration_s=0.25,
        next_at=9.0,
        transcript=("S: 220", "C: EHLO x"),
    )
    await house.storage.journey.append([first])
    await house.storage.journey.append([second, second])
    assert await house.storage.journey.read(queue_id) == (first, second, second)
    assert await house.storage.journey.read(QueueId("unknown")) == ()


async def test_journeys_are_found_by_party_newest_first(house: House) -> None:
    ids = [house.queue_id() for _ in range(3)]
    await house.storage.journey.append(
        [
            accepted(ids[0], "a@far.test", "alice@house.test", "bob@house.test"),
            accepted(ids[1], "b@far.test", "alice@house.test"),
            accepted(ids[2], "", "alice@house.test"),
        ]
    )
    find = house.storage.journey.find
    assert await find(forward_path="ALICE@House.test") == (ids[2], ids[1], ids[0])
    assert await find(forward_path="alice@house.test", limit=1) == (ids[2],)
    assert await find(reverse_path="B@far.test") == (ids[1],)
    assert await find(reverse_path="a@far.test", forward_path='"alice"@house.test') == (ids[0],)
    assert await find(reverse_path="a@far.test", forward_path="nobody@house.test") == ()
    assert await find(forward_path="not an address") == ()
    assert await find() == (ids[2], ids[1], ids[0])


async def test_refused_mail_has_a_journey(house: House) -> None:
    ids = [house.queue_id() for _ in range(2)]
    refused = Refused(
        queue_id=ids[1],
        at=1.0,
        command="RCPT",
        reply="550 5.1.1 no",
        peer="192.0.2.1",
        hello="x",
        reverse_path=None,
        forward_paths=("Alice@house.test", "<broken"),
    )
    await house.storage.journey.append([accepted(ids[0], "a@far.test", "alice@house.test"), refused])
    assert await house.storage.journey.find(refused=True) == (ids[1],)
    assert await house.storage.journey.find(refused=True, forward_path="alice@house.test") == (ids[1],)
    assert await house.storage.journey.find(refused=True, forward_path="<BROKEN") == (ids[1],)
    assert await house.storage.journey.find(refused=True, reverse_path="a@far.test") == ()
    assert await house.storage.journey.read(ids[1]) == (refused,)
