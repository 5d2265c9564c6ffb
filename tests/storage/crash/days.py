"""What happens in a house before the power goes: acceptances, settles, expunges, sweeps and checkpoints."""

from __future__ import annotations

import asyncio

from tests.storage.crash.house import FILE_OCTETS, PAGES_OCTETS, SMALL_OCTETS, House

from posthouse.mail.spool import Action


async def a_short_day(house: House) -> None:
    """Every kind of step once or twice."""
    await house.accept(SMALL_OCTETS, to=(0, 1))
    await house.accept(FILE_OCTETS, to=(0,), forwards=1)
    await house.settle(await house.claim(), "deferred")
    house.checkpoint(truncate=False)
    await house.accept(PAGES_OCTETS, to=(1,), forwards=2)
    await house.expunge(0, 1)
    house.clock.time += 600
    await house.settle(await house.claim(), "failed")
    house.checkpoint(truncate=True)
    await house.expunge(0, 2)
    await house.accept(SMALL_OCTETS, to=(), forwards=2)
    for outcome in ("deferred", None):
        claim = await house.claim(limit=1)
        await house.mark(claim)
        if outcome is not None:
            await house.settle(claim, outcome)
    await house.sweep()


async def an_operators_day(house: House) -> None:
    """Orders that the house does before it claims or clears up; one follows another at once, one is left."""
    for _ in range(2):
        await house.accept(SMALL_OCTETS, to=(), forwards=3)
    await house.settle(await house.claim(), "deferred")
    await house.operate(Action.RETRY)
    house.checkpoint(truncate=True)
    await house.settle(await house.claim(limit=2), "deferred")
    await house.accept(SMALL_OCTETS, to=(0,), forwards=3)
    await house.operate(Action.RETRY)
    await house.operate(Action.REMOVE)
    await house.accept(SMALL_OCTETS, to=(), forwards=1)
    await house.sweep()
    await house.operate(Action.RETRY)


async def a_long_day(house: House) -> None:
    """Twenty acceptances, five settles, five QUITs, with sweeps and checkpoints between them."""
    sizes = (SMALL_OCTETS, PAGES_OCTETS, SMALL_OCTETS, FILE_OCTETS)
    outcomes = ("delivered", "failed", "deferred", "failed", "delivered")
    for round_number, outcome in enumerate(outcomes):
        for number, size in enumerate(sizes):
            to = ((0,), (0, 1, 2), (), (1,))[(number + round_number) % 4]
            await house.accept(size, to=to, forwards=2 if not to or number == 3 else 0)
        claim = await house.claim(limit=3)
        await house.settle(claim, outcome, report_to=(2,) if round_number == 1 else ())
        if round_number == 2:
            assert not await house.settle(claim, "delivered"), "a token was good twice"
            house.clock.time += 600
        house.checkpoint(truncate=round_number % 2 == 1)
        await house.expunge(round_number % 2, 2)
        if round_number in (1, 4):
            await house.sweep()


async def a_crowded_day(house: House) -> None:
    """Many sessions at once, so that one commit takes the mail of several."""
    for size in (SMALL_OCTETS, PAGES_OCTETS, SMALL_OCTETS):
        async with asyncio.TaskGroup() as sessions:
            for number in range(5):
                sessions.create_task(house.accept(size, to=(number % 3,), forwards=number % 2))
    house.checkpoint(truncate=False)
    async with asyncio.TaskGroup() as sessions:
        for who in range(3):
            sessions.create_task(house.expunge(who, 3))
            sessions.create_task(house.accept(FILE_OCTETS, to=(who,)))
