"""What a house is asked while its disk fails, one act at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.storage.crash.house import FILE_OCTETS, PAGES_OCTETS, SMALL_OCTETS, House

from posthouse.storage.errors import StorageBusy, StorageFull

Act = Callable[[House], Awaitable[object]]


async def accept_small(house: House) -> None:
    await house.accept(SMALL_OCTETS, to=(0, 1), forwards=1)


async def accept_pages(house: House) -> None:
    await house.accept(PAGES_OCTETS, to=(1,))


async def accept_file(house: House) -> None:
    await house.accept(FILE_OCTETS, to=(0,), forwards=1)


async def accept_together(house: House) -> None:
    """Five sessions at once, so that they share a commit; each of them takes its own answer."""

    async def session(number: int) -> None:
        try:
            await house.accept(SMALL_OCTETS, to=(number % 3,), forwards=number % 2)
        except (StorageBusy, StorageFull):
            pass

    async with asyncio.timeout(60), asyncio.TaskGroup() as sessions:
        for number in range(5):
            sessions.create_task(session(number))


async def settle_with_report(house: House) -> None:
    await house.settle(await house.claim(), "failed")


async def mark(house: House) -> None:
    await house.mark(await house.claim())


async def expunge(house: House) -> None:
    await house.expunge(0, 2)


async def expunge_and_sweep(house: House) -> None:
    await house.expunge(0, 2)
    await house.sweep()


ACTS: tuple[Act, ...] = (accept_small, accept_pages, accept_file, settle_with_report, mark, expunge, expunge_and_sweep)
