"""What operators find, count and change by filters, on every engine."""

from __future__ import annotations

import dataclasses

import pytest

from posthouse.mail.acceptance import Destination, Forward, Sending
from posthouse.mail.address import Address, parse_address
from posthouse.mail.journey import Operated
from posthouse.mail.queue_filter import parse_filter
from posthouse.mail.spool import AT_ONCE, Action, Hold
from tests.storage.contract.engines import kill
from tests.storage.contract.world import DAY_S, FAR, House, operated, settlement

NEAR = Destination("", "mail.near.test")
PROVIDER = Destination("smtp.provider.test:587", "far.test")


async def filled(house: House) -> None:
    """Six recipients of three messages, of which the first was tried and the last is large and nobody's."""
    account = await house.account(parse_address("ada@here.test"))
    first = await house.acceptance(forwards=[house.forward(0), house.forward(1)])
    await house.storage.accept(first)
    claim = await house.claim()
    house.clock.time += 60
    plan = settlement(claim, house.clock.now() + 600)
    rows = (
        dataclasses.replace(plan.rows[0], last_reply="451 4.7.28 Too much mail"),
        dataclasses.replace(plan.rows[1], last_reply="450 4.7.1 Greylisted"),
    )
    assert await house.storage.settle(dataclasses.replace(plan, rows=rows))
    house.clock.time += 7200
    near = dataclasses.replace(house.forward(2, NEAR), forward_path=Address("Bob", "mail.near.test"))
    sending = Sending(account=account, login="ada@here.test", recipients_per_hour=0)
    second = await house.acceptance(forwards=[near, house.forward(3, PROVIDER)])
    await house.storage.accept(dataclasses.replace(second, sending=sending))
    third = await house.acceptance(b"x" * 3000, forwards=[house.forward(4), house.forward(5)], reverse_path=None)
    await house.storage.accept(third)
    house.clock.time += 30


async def found(house: House, *words: str) -> str:
    """The recipients' numbers in their local parts; `b` is Bob."""
    rows = await house.storage.spool.list(wanted=parse_filter(words))
    assert await house.storage.spool.count(parse_filter(words)) == len(rows)
    tally = await house.storage.spool.tally(parse_filter(words))
    assert tally.recipients == len(rows) == sum(each.recipients for each in tally.destinations)
    assert tally.messages == len({row.message.queue_id for row in rows})
    return "".join(row.forward_path.local_part.removeprefix("r")[0].lower() for row in rows)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "01b345"),
        ("to:@far.test", "01345"),
        ("to:BOB@mail.near.test", "b"),
        ("to:r1@far.test", "1"),
        ("from:@far.test", "01b3"),
        ("from:sender@far.test", "01b3"),
        ("from:other@far.test", ""),
        ("from:<>", "45"),
        ("account:ada@here.test", "b3"),
        ("domain:near.test", "b"),
        ("domain:ear.test", ""),
        ("via:smtp.provider.test", "3"),
        ("via:smtp.provider.test:587", "3"),
        ("via:smtp.provider.test:25", ""),
        ("older:1h", "01"),
        ("younger:1h", "b345"),
        ("older:1h younger:1h", ""),
        ("reply:451", "0"),
        ("reply:4.7.28", "0"),
        ("reply:4.7.2", ""),
        ("reply:4.7", "01"),
        ("reply:greyLISTED", "1"),
        ("reply:none", "b345"),
        ("attempts:>0", "01"),
        ("attempts:0", "b345"),
        ("size:>2K", "45"),
        ("size:<2K to:@far.test", "013"),
        ("held:no", "01b345"),
        ("held:", ""),
    ],
)
async def test_each_filter_finds_what_it_names(house: House, words: str, expected: str) -> None:
    await filled(house)
    assert await found(house, *words.split()) == expected


async def test_a_message_is_found_by_its_id(house: House) -> None:
    await filled(house)
    queue_id = (await house.storage.spool.list())[2].message.queue_id
    assert await found(house, queue_id) == "b3"
    assert await found(house, queue_id, "to:@far.test") == "3"


async def test_a_tally_tells_of_each_destination(house: House) -> None:
    await filled(house)
    await house.storage.spool.operate(Action.HOLD, parse_filter(["to:r4@far.test"]), "operator")
    tally = await house.storage.spool.tally()
    far = tally.destinations[0]
    assert (far.destination, far.recipients, far.held, far.claimed) == (FAR, 4, 1, 0)
    assert far.last_reply in ("451 4.7.28 Too much mail", "450 4.7.1 Greylisted")
    assert far.tried_at == pytest.approx(house.clock.now() - 7230.002)
    assert far.oldest_at == tally.oldest_at == (await house.storage.spool.list())[0].message.accepted_at
    assert [each.last_reply for each in tally.destinations[1:]] == [None, None]
    assert (await house.storage.spool.tally((), Action.RELEASE)).recipients == 1
    assert (await house.storage.spool.tally((), Action.HOLD)).recipients == 5


async def test_all_that_fits_is_changed_and_nothing_else(house: House) -> None:
    await filled(house)
    spool = house.storage.spool
    assert await spool.operate(Action.HOLD, parse_filter(["to:@far.test", "from:@far.test"]), "ann") == 3
    assert await found(house, "held:") == await found(house, "held:operator") == "013"
    assert await spool.operate(Action.RETRY, (), "ann") == 3
    assert await found(house, "held:") == "013"
    assert await spool.operate(Action.RELEASE, parse_filter(["reply:451"]), "ann") == 1
    assert await spool.operate(Action.REMOVE, parse_filter(["held:no"]), "ann") == 4
    assert await found(house) == "13"


async def test_each_message_tells_of_its_own_recipients(house: House) -> None:
    await filled(house)
    assert await house.storage.spool.operate(Action.HOLD, parse_filter(["to:@far.test"]), 'o"ann') == 5
    told = []
    for queue_id in dict.fromkeys(row.message.queue_id for row in await house.storage.spool.list()):
        events = await house.storage.journey.read(queue_id)
        told += [event for event in events if isinstance(event, Operated)]
    assert [(event.action, event.by, event.at) for event in told] == [("hold", 'o"ann', house.clock.now())] * 3
    assert [event.forward_paths for event in told] == [
        ("r0@far.test", "r1@far.test"),
        ("r3@far.test",),
        ("r4@far.test", "r5@far.test"),
    ]


async def test_what_is_removed_is_swept(house: House) -> None:
    await filled(house)
    assert await house.storage.spool.operate(Action.REMOVE, (), "ann") == 6
    house.clock.time += 86_400
    await house.storage.sweep(house.clock.now())
    assert [flaw async for flaw in house.storage.check()] == []


async def test_claimed_rows_are_neither_tried_nor_removed(house: House) -> None:
    await house.accept(forwards=3)
    claim = await house.claim(2)
    assert await house.storage.spool.operate(Action.RETRY, (), "ann") == 1
    assert await house.storage.spool.operate(Action.REMOVE, (), "ann") == 1
    assert await house.storage.spool.operate(Action.HOLD, (), "ann") == 2
    assert await house.storage.settle(settlement(claim, house.clock.now()))
    assert await house.storage.spool.claim(FAR, 9, house.clock.now()) is None


@pytest.mark.parametrize("action", [Action.RELEASE, Action.RETRY])
async def test_what_may_have_arrived_is_sent_only_when_it_is_named(house: House, action: Action) -> None:
    await house.storage.accept(await house.acceptance(forwards=[house.forward(n, PROVIDER) for n in range(2)]))
    claim = await house.claim(1, PROVIDER)
    assert await house.storage.spool.mark_sending(claim.token, [(claim.rows[0].message.queue_id, 0)], 5.0)
    assert await house.storage.spool.free_idle(set) == 1
    spool = house.storage.spool
    assert (await spool.list())[0].hold is Hold.UNCERTAIN
    assert await spool.operate(action, (), "ann") == (1 if action is Action.RETRY else 0)
    assert await found(house, "held:uncertain") == "0"
    assert await found(house, "held:operator") == ""
    assert await spool.operate(action, parse_filter(["held:uncertain"]), "ann") == 1
    assert await found(house, "held:") == ""


async def test_long_work_is_done_in_steps_that_are_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.storage.sqlite.orders.STEP_ROWS", 4)
    monkeypatch.setattr("posthouse.storage.sqlite.orders.NOTED_ROWS", 8)
    forwards: list[Forward] = [house.forward(number) for number in range(11)]
    for _ in range(3):
        await house.storage.accept(await house.acceptance(forwards=forwards))
    told: list[int] = []
    tell = lambda progress: told.append(progress.done)  # noqa: E731
    assert await house.storage.spool.operate(Action.HOLD, (), "ann", tell) == 33
    assert told == [8, 16, 24, 32, 33]
    assert (await house.storage.spool.tally()).destinations[0].held == 33


async def test_what_one_process_ordered_no_other_sees_otherwise(house: House) -> None:
    """Whoever looks first after the order, and whatever for."""
    await house.accept(forwards=3)
    (first, *_) = await house.storage.spool.list()
    queue_id = first.message.queue_id
    other = await house.open_another()
    spool = house.storage.spool
    assert await spool.operate(Action.HOLD, (), "ann") == 3
    assert await other.spool.claim(FAR, 9, house.clock.now()) is None
    assert await spool.operate(Action.RELEASE, (), "ann") == 3
    assert await other.spool.hold(queue_id, operated(queue_id, "hold")) == 3
    assert await spool.operate(Action.RELEASE, (), "ann") == 3
    assert await other.spool.count(parse_filter(["held:no"])) == 3
    assert await spool.operate(Action.HOLD, (), "ann") == 3
    assert await other.spool.next_due() is None
    assert await spool.operate(Action.RELEASE, (), "ann") == 3
    assert [each.destination for each in await other.spool.due(house.clock.now(), 9)] == [FAR]
    assert await spool.operate(Action.RETRY, (), "ann") == 3
    assert {row.not_before for row in await other.spool.list()} == {AT_ONCE}
    assert await spool.operate(Action.REMOVE, (), "ann") == 3
    assert (await other.spool.tally()).recipients == 0
    told = [event.action for event in await other.journey.read(queue_id) if isinstance(event, Operated)]
    assert told == ["hold", "release", "hold", "release", "hold", "release", "retry", "remove"]


async def test_a_journey_tells_of_an_order_at_once(house: House) -> None:
    await house.accept(forwards=2)
    (first, *_) = await house.storage.spool.list()
    assert await house.storage.spool.operate(Action.REMOVE, (), "ann") == 2
    *_, last = await (await house.open_another()).journey.read(first.message.queue_id)
    assert isinstance(last, Operated)
    assert (last.action, last.forward_paths, last.by) == ("remove", ("r0@far.test", "r1@far.test"), "ann")


async def test_an_order_concerns_what_waited_then(house: House) -> None:
    await house.accept(forwards=2)
    assert await house.storage.spool.operate(Action.REMOVE, (), "ann") == 2
    await house.accept(forwards=1)
    assert [row.recipient_number for row in await house.storage.spool.list()] == [0]


async def test_one_order_may_follow_another_at_once(house: House) -> None:
    await house.accept(forwards=2)
    spool = house.storage.spool
    assert await spool.operate(Action.HOLD, (), "ann") == 2
    assert await spool.operate(Action.HOLD, (), "ann") == 0
    assert await spool.operate(Action.RETRY, (), "ann") == 0
    assert await spool.operate(Action.REMOVE, parse_filter(["held:operator"]), "ann") == 2
    assert await spool.operate(Action.RELEASE, (), "ann") == 0


@pytest.mark.parametrize("action", [Action.HOLD, Action.REMOVE])
async def test_the_death_of_whoever_ordered_changes_nothing(house: House, action: Action) -> None:
    await house.accept(forwards=3)
    claim = await house.claim(1)
    changed = await house.storage.spool.operate(action, (), "ann")
    assert changed == (3 if action is Action.HOLD else 2)
    kill(house.storage)
    house.storage = await house.open_another()
    house.clock.time += DAY_S
    again = await house.storage.spool.claim(FAR, 9, house.clock.now())
    # What was under way is held, too, or goes on.
    assert [row.recipient_number for row in again.rows] == [0] if again else action is Action.HOLD
    assert [row.recipient_number for row in claim.rows] == [0]
