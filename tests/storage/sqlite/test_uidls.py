"""UIDLs over very many deliveries and deletions, restarts, a migration, and a backup that is restored."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from posthouse.mail.ids import AccountId
from posthouse.mail.maildrop import MaildropLock
from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.sqlite.restore import restore_backup
from posthouse.storage.sqlite.storage import SqliteStorage
from posthouse.storage.upkeep import Order, tell_nobody
from tests.storage.contract.world import DAY_S, House, SeededRandom, SetClock

SHAPE = re.compile(r"[\x21-\x7e]{1,70}\Z")
TOGETHER = 100


async def open_house(data: Path, clock: SetClock, seed: int) -> House:
    # (What is durable is proven elsewhere; here each of a hundred thousand commits would only wait for the disk.)
    storage = await SqliteStorage.open(data, clock=clock, random=SeededRandom(seed), create=True)
    storage._connection.execute("PRAGMA synchronous=OFF")
    return House(storage, clock, SeededRandom(seed + 1_000), pytest.fail)


async def deliver(house: House, account: AccountId, count: int) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(house.accept(b"Subject: x\r\n\r\nhello\r\n", to=[account]))


async def cycle(house: House, account: AccountId, kept: int) -> set[str]:
    """Deliver TOGETHER, delete all but the first `kept` of the maildrop; the UIDLs that were new."""
    before = set((await house.storage.maildrops.list(account)).uidls)
    await deliver(house, account, TOGETHER)
    listing = await house.storage.maildrops.list(account)
    assert len(listing) == len(before) + TOGETHER
    lock = await house.storage.maildrops.lock(account)
    assert isinstance(lock, MaildropLock)
    assert await house.storage.maildrops.expunge(lock, listing.uids[kept:], [])
    await house.storage.maildrops.unlock(lock)
    return set(listing.uidls) - before


async def run(folder: Path, cycles: int) -> None:
    clock, used = SetClock(), set[str]()
    data = folder / "data"
    house = await open_house(data, clock, 1)
    account = await house.account()
    await deliver(house, account, 5)
    kept = (await house.storage.maildrops.list(account)).uidls
    used |= set(kept)
    for number in range(cycles // TOGETHER):
        new = await cycle(house, account, len(kept))
        assert not new & used, "a UIDL was used twice"
        assert all(SHAPE.match(uidl) for uidl in new)
        used |= new
        if number % 100 == 99 or number == cycles // TOGETHER - 1:
            clock.time += 2 * DAY_S
            await house.storage.sweep(clock.now())
            await house.storage.close()
            house = await open_house(data, clock, 2 + number)
            assert (await house.storage.maildrops.list(account)).uidls == kept
    await house.storage.backup(folder / "backup", Order(hostname="mx.house.test"))
    new = await cycle(house, account, len(kept))
    used |= new
    await house.storage.close()
    again = folder / "again"
    again.mkdir()
    restore_backup(folder / "backup", again, now=clock.now(), disk=RealFileSystem(), tell=tell_nobody)
    house = await open_house(again, clock, 999_999)
    assert (await house.storage.maildrops.list(account)).uidls == kept
    assert not await cycle(house, account, len(kept)) & used, "a restored house used a UIDL again"
    assert [flaw async for flaw in house.storage.check()] == []
    await house.storage.close()
    assert len(used) >= cycles


@pytest.mark.conformance("C251")
@pytest.mark.parametrize("cycles", [1_000, pytest.param(100_000, marks=pytest.mark.long)])
async def test_no_uidl_is_ever_used_again_and_none_changes(tmp_path: Path, cycles: int) -> None:
    await run(tmp_path, cycles)
