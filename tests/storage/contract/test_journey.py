"""The journey: events in order, found by party."""

from __future__ import annotations

import dataclasses

import pytest

from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Attempted, JourneyEvent, Refused
from posthouse.storage.upkeep import Retention
from tests.storage.contract.world import DAY_S, House, accepted

KEEP = Retention(journeys_s=30 * DAY_S, refused_s=7 * DAY_S, refused_limit=10)


def named(queue_id: QueueId, message_id: str, sender: str = "a@far.test", to: str = "bob@there.test") -> JourneyEvent:
    return dataclasses.replace(accepted(queue_id, sender, to), message_id=message_id)


def answered(queue_id: QueueId, reply: str, at: float = 1.0, to: str = "bob@there.test") -> Attempted:
    return Attempted(
        queue_id=queue_id,
        at=at,
        forward_path=to,
        outcome="deferred",
        reply=reply,
        from_peer=True,
        next_hop="mx.there.test",
        address="192.0.2.9",
        attempt=1,
        duration_s=0.25,
    )


def refused_for(queue_id: QueueId, reply: str) -> Refused:
    return Refused(
        queue_id=queue_id,
        at=1.0,
        command="RCPT",
        reply=reply,
        peer="192.0.2.1",
        hello="x",
        reverse_path=None,
        forward_paths=("Alice@house.test",),
    )


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


async def test_journeys_are_found_by_message_id(house: House) -> None:
    ids = [house.queue_id() for _ in range(4)]
    house.clock.time += 40 * DAY_S
    late = house.queue_id()
    await house.storage.journey.append(
        [
            named(ids[0], "<Tea@Laptop.test>"),
            named(ids[1], "<tea@laptop.test>", to="cy@there.test"),
            named(ids[2], "<tea@laptop.test.org>"),
            accepted(ids[3], "a@far.test", "bob@there.test"),
            answered(ids[1], "450 4.7.1 Greylisted"),
            named(late, "<tea@laptop.test>"),
        ]
    )
    find = house.storage.journey.find
    for spelled in ("<tea@laptop.test>", "TEA@laptop.test", " <tea@laptop.test> "):
        assert await find(message_id=spelled) == (late, ids[1], ids[0])
    assert await find(message_id="tea@laptop.test", limit=1) == (late,)
    assert await find(message_id="tea@laptop.test", forward_path="cy@there.test") == (ids[1],)
    assert await find(message_id="tea@laptop.test", forward_path="eve@there.test") == ()
    assert await find(message_id="tea@laptop.test", reply="greylisted") == (ids[1],)
    assert await find(message_id="tea@laptop.test", refused=True) == ()
    assert await find(message_id="tea@laptop.test", since=house.clock.now() - DAY_S) == (late,)
    assert await find(message_id="tea") == ()


async def test_journeys_are_found_by_words_of_replies(house: House) -> None:
    ids = [house.queue_id() for _ in range(4)]
    await house.storage.journey.append(
        [
            accepted(ids[0], "a@far.test", "bob@there.test"),
            answered(ids[0], "421 4.7.28 Too much mail from [192.0.2.1], try later.", at=5.0),
            answered(ids[0], "250 2.0.0 Ok: queued as 4Z7hKq1Lm2z", at=9.0),
            answered(ids[1], "450 4.7.1 Spät: try later", at=6.0),
            answered(ids[2], "450 4.7.1 Spät: try later", at=7.0, to="a@there.test"),
            answered(ids[2], "450 4.7.1 Spät: try later", at=7.0, to="b@there.test"),
            refused_for(ids[3], "550 5.1.1 There is no such mailbox here"),
        ]
    )
    find = house.storage.journey.find
    assert await find(reply="4.7.28") == (ids[0],)
    assert await find(reply="4z7hkq1lm2z") == (ids[0],)
    assert await find(reply="LATER Try") == (ids[2], ids[1], ids[0])
    assert await find(reply="try later", limit=2) == (ids[2], ids[1])
    assert await find(reply="spät") == (ids[2], ids[1])
    assert await find(reply="queued later") == ()
    assert await find(reply="7.28") == ()
    assert await find(reply="NOT later OR") == ()
    assert await find(reply='"') == ()
    assert await find(reply="mailbox") == await find(reply="mailbox", refused=True) == (ids[3],)
    assert await find(reply="later", refused=True) == ()
    assert await find(reply="later", forward_path="bob@there.test") == (ids[0],)
    assert await find(reply="later", since=6.0) == (ids[2], ids[1])
    assert await find(reply="later", forward_path="bob@there.test", since=6.0) == ()


async def test_journeys_are_found_by_when_they_began(house: House) -> None:
    old = house.queue_id()
    house.clock.time += 3600
    young = house.queue_id()
    await house.storage.journey.append([accepted(one, "a@far.test", "bob@there.test") for one in (old, young)])
    find, since = house.storage.journey.find, house.clock.now() - 60
    assert await find(since=since) == (young,)
    assert await find(since=since, forward_path="bob@there.test") == (young,)
    assert await find(since=since - 3600) == (young, old)
    assert await find(since=house.clock.now() + 60) == ()


async def test_journeys_are_found_by_the_beginning_of_their_id(house: House) -> None:
    first = house.queue_id()
    house.clock.time += DAY_S
    second = house.queue_id()
    await house.storage.journey.append([accepted(one, "a@far.test", "bob@there.test") for one in (first, second)])
    await house.storage.journey.append([answered(first, "450 later")])
    beginning = house.storage.journey.beginning_with
    assert await beginning(first) == await beginning(first[:12]) == (first,)
    assert await beginning(first[:2]) == (first, second)
    assert await beginning(first[:2], 1) == (first,)
    assert await beginning(first[:-1] + "_") == ()


async def test_who_has_it_now(house: House) -> None:
    account = await house.account()
    queue_id = await house.accept(to=[account])
    assert await house.storage.journey.holders(queue_id) == ("alice@house.test",)
    assert await house.storage.journey.holders(QueueId("unknown")) == ()


async def test_a_journey_that_is_forgotten_is_found_by_nothing(house: House) -> None:
    gone, kept = house.queue_id(), house.queue_id()
    for queue_id in (gone, kept):
        await house.storage.journey.append(
            [named(queue_id, "<tea@laptop.test>"), answered(queue_id, "450 4.7.1 later")]
        )
    await house.storage.journey.append([answered(kept, "250 ok", at=house.clock.now() + 20 * DAY_S)])
    await house.storage.sweep(house.clock.now() + 31 * DAY_S, KEEP)
    find = house.storage.journey.find
    assert await find(message_id="tea@laptop.test") == await find(reply="later") == (kept,)
    assert await find() == (kept,)
    assert [flaw async for flaw in house.storage.check()] == []


@pytest.mark.parametrize("reply", ["x" * 100_000, "w " * 100_000, "\x00\ud800", "a AND b NEAR(c) *", "ẞ ﬁ İ"])
async def test_any_reply_is_indexed_and_looked_for(house: House, reply: str) -> None:
    queue_id = house.queue_id()
    if "\ud800" not in reply:
        await house.storage.journey.append([answered(queue_id, reply)])
        assert await house.storage.journey.find(reply=reply[:500]) == (queue_id,)
    assert await house.storage.journey.find(reply="never " + reply) == ()
