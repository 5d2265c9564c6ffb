"""How many recipients elsewhere an account sends to within an hour: what goes beyond is held."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from posthouse.mail.acceptance import Acceptance, LimitTold, Sending
from posthouse.mail.address import parse_address
from posthouse.mail.ids import AccountId, QueueId
from posthouse.mail.journey import Operated
from posthouse.mail.queue_filter import parse_filter
from posthouse.mail.spool import Action, Hold
from posthouse.storage.sqlite.storage import SqliteStorage
from tests.storage.contract.world import House, SeededRandom, SetClock

ADA = parse_address("ada@here.test")


async def sent(house: House, account: AccountId, recipients: int, limit: int = 10, uncounted: int = 0) -> QueueId:
    """Accept a message to so many, of whom `uncounted` came by an alias."""
    acceptance = await handed_in(house, account, recipients, limit, uncounted)
    await house.storage.accept(acceptance)
    return acceptance.queue_id


async def handed_in(house: House, account: AccountId, recipients: int, limit: int, uncounted: int = 0) -> Acceptance:
    forwards = [dataclasses.replace(house.forward(n), counted=n >= uncounted) for n in range(recipients)]
    acceptance = await house.acceptance(forwards=forwards)
    return dataclasses.replace(acceptance, sending=Sending(account=account, login=str(ADA), recipients_per_hour=limit))


async def held(house: House) -> int:
    return await house.storage.spool.count(parse_filter(["held:limit"]))


async def test_the_surplus_is_held_with_its_reason(house: House) -> None:
    account = await house.account(ADA)
    queue_id = await sent(house, account, 12)
    rows = await house.storage.spool.list()
    assert [row.held for row in rows] == [False] * 10 + [True] * 2
    assert (rows[11].hold, rows[11].held_by_restore) == (Hold.LIMIT, False)
    assert rows[11].last_reply == (
        "450 4.7.1 Held here: ada@here.test sent to more recipients elsewhere within an hour than it may"
    )
    (event,) = await house.storage.journey.read(queue_id)
    assert isinstance(event, Operated)
    assert (event.action, event.by) == ("limit", "ada@here.test")
    assert event.forward_paths == ("r10@far.test", "r11@far.test")
    assert len((await house.claim()).rows) == 10


async def test_messages_are_counted_together_within_an_hour(house: House) -> None:
    account = await house.account(ADA)
    await sent(house, account, 6)
    house.clock.time += 1800
    await sent(house, account, 6)
    assert await held(house) == 2
    # The first six are an hour old; what was held is not counted.
    house.clock.time += 1900
    await sent(house, account, 7)
    assert await held(house) == 3


async def test_who_is_not_limited_is_not_counted(house: House) -> None:
    account = await house.account(ADA)
    await house.accept(forwards=20)
    await sent(house, account, 20, limit=0)
    await sent(house, account, 20, uncounted=20)
    assert await held(house) == 0
    await sent(house, account, 14, uncounted=3)
    assert [row.recipient_number for row in await house.storage.spool.list(wanted=parse_filter(["held:"]))] == [13]


async def test_an_account_may_have_a_limit_of_its_own(house: House) -> None:
    account = await house.account(ADA)
    set_limit = house.storage.administration.set_recipients_per_hour
    await set_limit(ADA.key, 2)
    await sent(house, account, 3)
    assert await held(house) == 1
    await set_limit(ADA.key, 0)
    await sent(house, account, 30)
    assert await held(house) == 1
    assert [entry.recipients_per_hour for entry in await house.storage.administration.accounts()] == [0]
    await set_limit(ADA.key, None)
    await sent(house, account, 11)
    assert await held(house) == 4


async def test_accounts_are_counted_apart_and_the_count_outlives_a_restart(house: House) -> None:
    account, other = await house.account(ADA), await house.account(parse_address("bob@here.test"))
    await sent(house, account, 10)
    await sent(house, other, 10)
    assert await held(house) == 0
    again = House(await house.open_another(), house.clock, house.chance, house.open_another)
    house.others.append(again.storage)
    await sent(again, account, 1)
    assert await held(house) == 1


async def test_repeating_an_acceptance_counts_once(house: House) -> None:
    account = await house.account(ADA)
    acceptance = await handed_in(house, account, 6, 10)
    await house.storage.accept(acceptance)
    await house.storage.accept(acceptance)
    await sent(house, account, 4)
    assert await held(house) == 0


async def test_a_clock_that_was_wrong_limits_nobody_for_long(house: House) -> None:
    account = await house.account(ADA)
    house.clock.time += 1e8
    await sent(house, account, 10)
    house.clock.time -= 1e8
    await sent(house, account, 10)
    assert await held(house) == 0
    await sent(house, account, 1)
    assert await held(house) == 1


async def test_what_a_limit_holds_goes_on_when_an_operator_says_so(house: House) -> None:
    account = await house.account(ADA)
    await sent(house, account, 12)
    wanted = parse_filter(["held:limit", "account:ada@here.test"])
    assert await house.storage.spool.operate(Action.RELEASE, wanted, "ann") == 2
    assert len((await house.claim()).rows) == 12


async def test_postmaster_is_to_be_told_once_an_hour_and_of_what_is_new(house: House) -> None:
    account = await house.account(ADA)
    spool = house.storage.spool
    assert await spool.over_limit(house.clock.now()) == ()
    first = await sent(house, account, 12)
    house.clock.time += 1
    last = await sent(house, account, 3)
    (over,) = await spool.over_limit(house.clock.now())
    assert (over.login, over.recipients, over.messages) == ("ada@here.test", 5, 2)
    assert (over.first, over.last, over.own_limit) == (first, last, None)

    async def tell(up_to: QueueId) -> None:
        notice = await house.acceptance(to=[account], reverse_path=None)
        told = LimitTold(account=account, up_to=up_to)
        await house.storage.accept(dataclasses.replace(notice, limit_told=told))

    await tell(last)
    assert await spool.over_limit(house.clock.now()) == ()
    house.clock.time += 3601
    # Nothing came since.
    assert await spool.over_limit(house.clock.now()) == ()
    house.clock.time -= 3000
    again = await sent(house, account, 1)
    assert await spool.over_limit(house.clock.now()) == ()
    house.clock.time += 3000
    (over,) = await spool.over_limit(house.clock.now())
    assert (over.last, over.recipients) == (again, 6)
    # A clock that goes back does not silence it.
    assert len(await spool.over_limit(house.clock.now() - 1e6)) == 1


@settings(deadline=None, max_examples=5)
@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 8)), max_size=8))
def test_no_hour_sees_more_than_the_limit(messages: list[tuple[int, int]]) -> None:
    async def run() -> None:
        clock, chance = SetClock(), SeededRandom(1)
        with tempfile.TemporaryDirectory() as folder:
            storage = await SqliteStorage.open(
                Path(folder), clock=clock, random=chance, create=True, inline_writer=True
            )
            house = House(storage, clock, chance, lambda: None)  # type: ignore[arg-type,return-value]
            account = await house.account(ADA)
            gone: list[tuple[float, int]] = []
            for wait_s, recipients in messages:
                clock.time += wait_s
                before = await held(house)
                await sent(house, account, recipients)
                gone.append((clock.now(), recipients - (await held(house) - before)))
                recent = sum(number for at, number in gone if at > clock.now() - 3540)
                assert recent <= 10
                # Nothing is held for what was sent more than an hour ago.
                counted = sum(number for at, number in gone if at > clock.now() - 3601)
                assert counted == 10 or gone[-1][1] == recipients
            await storage.close()

    asyncio.run(run())
