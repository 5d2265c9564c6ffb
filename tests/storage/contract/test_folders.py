"""Flags, folders, deleting for good."""

from __future__ import annotations

import dataclasses

import pytest

from posthouse.mail.folders import ANSWERED, ARCHIVE, INBOX, SEEN, TRASH, FolderSummary
from posthouse.mail.ids import AccountId, Uid
from posthouse.mail.journey import Deleted
from posthouse.mail.maildrop import Listing
from posthouse.storage.errors import AccountGone
from tests.storage.contract.engines import kill
from tests.storage.contract.world import House, whole


async def filled(house: House, count: int = 3) -> AccountId:
    account = await house.account()
    for _ in range(count):
        await house.accept(to=[account])
    return account


async def listed(house: House, account: AccountId, folder: str = INBOX) -> Listing:
    return await house.storage.maildrops.list(account, folder)


async def sound(house: House) -> bool:
    return not [flaw async for flaw in house.storage.check()]


async def test_folders_are_counted(house: House) -> None:
    account = await filled(house)
    assert await house.storage.folders.flag(account, INBOX, [Uid(2)], add=[SEEN]) == 1
    octets = sum((await listed(house, account)).sizes_octets)
    assert await house.storage.folders.all(account) == (FolderSummary(INBOX, 3, octets, 2),)
    assert await house.storage.folders.all(AccountId(77)) == ()


async def test_flags_come_and_go(house: House) -> None:
    account = await filled(house, 4)
    folders = house.storage.folders
    assert await folders.flag(account, INBOX, [Uid(1), Uid(2), Uid(99)], add=[SEEN]) == 2
    assert await folders.flag(account, INBOX, [Uid(2), Uid(3)], add=[ANSWERED], remove=[SEEN]) == 2
    assert (await listed(house, account)).flags == (SEEN, ANSWERED, ANSWERED, "")
    assert await folders.flag(account, INBOX, [Uid(2)], add=[ANSWERED]) == 0
    assert await folders.flag(account, "None", [Uid(2)], add=[SEEN]) == 0
    # One has what the other gets.
    assert await folders.flag(account, INBOX, [Uid(1), Uid(2)], add=[SEEN, ANSWERED]) == 2
    assert await folders.flag(account, INBOX, [Uid(1), Uid(4)], remove=[ANSWERED], add=[SEEN]) == 2
    assert (await listed(house, account)).flags == (SEEN, f"{ANSWERED} {SEEN}", ANSWERED, SEEN)


async def test_an_entry_moves_with_its_uidl(house: House) -> None:
    account = await filled(house)
    before = await listed(house, account)
    octets = await whole(house.storage.maildrops.read(account, Uid(2)))
    assert await house.storage.folders.move(account, INBOX, [Uid(2), Uid(77)], ARCHIVE) == 1
    kill(house.storage)
    house.storage = await house.open_another()
    inbox, archive = await listed(house, account), await listed(house, account, ARCHIVE)
    assert inbox.uids == (1, 3)
    assert archive.uidls == before.uidls[1:2]
    assert await whole(house.storage.maildrops.read(account, archive.uids[0], ARCHIVE)) == octets
    assert await house.storage.folders.move(account, ARCHIVE, archive.uids, INBOX) == 1
    assert (await listed(house, account)).uids == (1, 3, 4)
    assert sorted((await listed(house, account)).uidls) == sorted(before.uidls)
    assert await sound(house)


async def test_many_entries_move_in_order(house: House) -> None:
    account = await house.account()
    first = await house.acceptance(to=[account])
    await house.storage.accept(first)
    for _ in range(1200):
        again = await house.acceptance(to=[account])
        await house.storage.accept(dataclasses.replace(again, events=()))
    before = await listed(house, account)
    assert await house.storage.folders.move(account, INBOX, before.uids, TRASH) == 1201
    assert (await listed(house, account, TRASH)).uidls == before.uidls
    assert not await listed(house, account)
    assert await sound(house)


async def test_nothing_moves_to_where_it_is_or_from_nowhere(house: House) -> None:
    account = await filled(house)
    before = await listed(house, account)
    assert await house.storage.folders.move(account, INBOX, before.uids, INBOX) == 0
    assert await house.storage.folders.move(account, "None", before.uids, INBOX) == 0
    assert await listed(house, account) == before


async def test_nothing_moves_in_an_account_that_is_gone(house: House) -> None:
    account = await filled(house)
    await house.storage.administration.remove_account("alice@house.test", keep_mail=True, now=1.0)
    with pytest.raises(AccountGone):
        await house.storage.folders.move(account, INBOX, [Uid(1)], ARCHIVE)
    assert (await listed(house, account)).uids == (1, 2, 3)


async def test_what_is_removed_is_gone_with_its_event(house: House) -> None:
    account = await filled(house)
    queue_id = (await listed(house, account)).queue_ids[0]
    event = Deleted(queue_id=queue_id, at=2.0, login="alice", uidl=queue_id, peer="")
    await house.storage.folders.move(account, INBOX, [Uid(1)], TRASH)
    await house.storage.folders.remove(account, TRASH, [Uid(1), Uid(9)], [event])
    assert not await listed(house, account, TRASH)
    assert await house.storage.journey.read(queue_id) == (event,)
    await house.storage.folders.remove(account, "None", [Uid(1)])
    assert await sound(house)
