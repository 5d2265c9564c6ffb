"""Maildrops: the lock, expunging, reading what is gone."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from posthouse.mail.acceptance import Placement
from posthouse.mail.content import ContentFacts
from posthouse.mail.ids import AccountId, Uid
from posthouse.mail.journey import Deleted
from posthouse.mail.maildrop import InUse, Listing, MaildropLock
from posthouse.storage.errors import AccountGone
from tests.storage.contract.world import DAY_S, House, accepted, alice, whole


async def locked(house: House, account: AccountId) -> MaildropLock:
    lock = await house.storage.maildrops.lock(account)
    assert isinstance(lock, MaildropLock)
    return lock


async def test_a_maildrop_is_locked_once(house: House) -> None:
    account = await house.account()
    lock = await locked(house, account)
    assert await house.storage.maildrops.lock(account) == InUse()
    await house.storage.maildrops.unlock(lock)
    again = await locked(house, account)
    await house.storage.maildrops.unlock(lock)
    assert await house.storage.maildrops.lock(account) == InUse()
    await house.storage.maildrops.unlock(again)


async def test_locking_a_removed_account_fails(house: House) -> None:
    account = await house.account()
    await house.storage.administration.remove_account("alice@house.test", keep_mail=True, now=1.0)
    with pytest.raises(AccountGone):
        await house.storage.maildrops.lock(account)


async def test_expunge_removes_entries_and_tells_the_journey(house: House) -> None:
    account = await house.account()
    queue_ids = [await house.accept(to=[account]) for _ in range(3)]
    lock = await locked(house, account)
    event = Deleted(queue_id=queue_ids[1], at=2.0, login="alice", uidl=queue_ids[1], peer="p")
    assert await house.storage.maildrops.expunge(lock, [Uid(2), Uid(77)], [event])
    listing = await house.storage.maildrops.list(account)
    assert listing.uids == (1, 3)
    assert await house.storage.maildrops.used_octets(account) == sum(listing.sizes_octets)
    assert await house.storage.journey.read(queue_ids[1]) == (event,)
    with pytest.raises(KeyError):
        await whole(house.storage.maildrops.read(account, Uid(2)))
    assert await house.storage.maildrops.expunge(lock, [Uid(2)], [])


async def test_expunge_without_the_lock_changes_nothing(house: House) -> None:
    account = await house.account()
    queue_id = await house.accept(to=[account])
    lock = await locked(house, account)
    await house.storage.maildrops.unlock(lock)
    assert not await house.storage.maildrops.expunge(lock, [Uid(1)], [accepted(queue_id)])
    assert len(await house.storage.maildrops.list(account)) == 1
    assert await house.storage.journey.read(queue_id) == ()


async def test_uids_only_grow(house: House) -> None:
    account = await house.account()
    lock = await locked(house, account)
    for uid in (1, 2, 3):
        await house.accept(to=[account])
        assert (await house.storage.maildrops.list(account)).uids == (uid,)
        await house.storage.maildrops.expunge(lock, [Uid(uid)], [])


@pytest.mark.conformance("C204")
@pytest.mark.parametrize(
    ("smtputf8", "facts", "prefix", "entry_prefix", "internationalised"),
    [
        (True, ContentFacts(eight_bit_header=True), b"", b"", True),
        (True, ContentFacts(), "Received: für\r\n".encode(), b"", True),
        (True, ContentFacts(), b"", "Delivered-To: grün\r\n".encode(), True),
        (True, ContentFacts(eight_bit_body=True), b"Received: x\r\n", b"Delivered-To: y\r\n", False),
        (False, ContentFacts(eight_bit_header=True), "X: ü\r\n".encode(), "Y: ü\r\n".encode(), False),
    ],
)
async def test_the_listing_tells_what_needs_utf8(
    house: House, smtputf8: bool, facts: ContentFacts, prefix: bytes, entry_prefix: bytes, internationalised: bool
) -> None:
    account = await house.account()
    plain = await house.accept(to=[account])
    acceptance = replace(
        await house.acceptance(),
        prefix=prefix,
        content=await house.content(b"x\r\n", facts),
        placements=(Placement(account=account, forward_path=alice, prefix=entry_prefix),),
        smtputf8=smtputf8,
    )
    await house.storage.accept(acceptance)
    listing = await house.storage.maildrops.list(account)
    assert listing.queue_ids[0] == plain
    assert listing.internationalised == ({listing.uids[1]} if internationalised else set())
    # Again, with what came since; and without what is gone.
    await house.storage.accept(replace(acceptance, queue_id=house.queue_id(), content=await house.content(b"y", facts)))
    await house.accept(to=[account])
    again = await house.storage.maildrops.list(account)
    assert again.internationalised == (set(again.uids[1:3]) if internationalised else set())
    lock = await locked(house, account)
    await house.storage.maildrops.expunge(lock, again.uids[1:2], [])
    left = await house.storage.maildrops.list(account)
    assert left.internationalised == ({again.uids[2]} if internationalised else set())


async def test_an_empty_or_unknown_folder_lists_nothing(house: House) -> None:
    account = await house.account()
    assert await house.storage.maildrops.list(account) == Listing()
    assert await house.storage.maildrops.list(account, "Nowhere") == Listing()
    assert await house.storage.maildrops.list(AccountId(99)) == Listing()
    assert await house.storage.maildrops.used_octets(AccountId(99)) == 0


@pytest.mark.parametrize("size_octets", [100, 200_000])
async def test_sweep_removes_content_a_day_after_its_last_reference(house: House, size_octets: int) -> None:
    account = await house.account()
    await house.accept(b"x" * size_octets, to=[account], forwards=1)
    listing = await house.storage.maildrops.list(account)
    await house.storage.maildrops.expunge(await locked(house, account), listing.uids, [])
    await house.storage.sweep(house.clock.now() + 2 * DAY_S)
    assert len(await whole(house.storage.content.open(listing.content_ids[0]))) == size_octets
    claim = await house.claim()
    from tests.storage.contract.world import settlement

    await house.storage.settle(settlement(claim, None))
    await house.storage.sweep(house.clock.now() + 23 * 3600)
    assert len(await whole(house.storage.content.open(listing.content_ids[0]))) == size_octets
    await house.storage.sweep(house.clock.now() + 25 * 3600)
    with pytest.raises(KeyError):
        await whole(house.storage.content.open(listing.content_ids[0]))


async def test_a_message_that_nobody_got_is_swept(house: House) -> None:
    await house.accept()
    await house.storage.sweep(house.clock.now() + 2 * DAY_S)


@pytest.mark.conformance("C261")
async def test_nothing_expires_in_a_maildrop(house: House) -> None:
    """EXPIRE NEVER (RFC 2449 §6.7): what is kept is kept until its owner deletes it."""
    account = await house.account()
    await house.accept(b"x" * 200_000, to=[account])
    before = await house.storage.maildrops.list(account)
    house.clock.time += 10 * 365 * DAY_S
    await house.storage.sweep(house.clock.now())
    assert await house.storage.maildrops.list(account) == before
    assert len(await whole(house.storage.maildrops.read(account, before.uids[0]))) == before.sizes_octets[0]


@pytest.mark.long
@pytest.mark.conformance("C251", "S37")
async def test_no_uidl_is_used_twice_in_a_hundred_thousand_deliveries(house: House) -> None:
    account = await house.account()
    kept = await house.accept(to=[account])
    seen: set[str] = {kept}
    storage = house.storage
    for cycle in range(100):
        acceptances = [await house.acceptance(b"x\r\n", to=[account]) for _ in range(1000)]
        async with asyncio.TaskGroup() as group:
            for acceptance in acceptances:
                group.create_task(storage.accept(acceptance))
        listing = await storage.maildrops.list(account)
        assert listing.uidls[0] == kept
        uidls = set(listing.uidls[1:])
        assert len(uidls) == 1000
        assert not uidls & seen
        seen |= uidls
        lock = await locked(house, account)
        assert await storage.maildrops.expunge(lock, listing.uids[1:], [])
        await storage.maildrops.unlock(lock)
        if cycle % 25 == 24:
            await storage.sweep(house.clock.now())
            await storage.close()
            storage = house.storage = await house.open_another()
    assert (await storage.maildrops.list(account)).uidls == (kept,)
