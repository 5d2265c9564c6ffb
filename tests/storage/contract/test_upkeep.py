"""Backup and restore, checking, and releasing what was held, on every engine."""

from __future__ import annotations

from pathlib import Path

from posthouse.mail.journey import Operated
from posthouse.mail.queue_filter import Held
from posthouse.mail.spool import Action, Hold
from posthouse.storage.interfaces import Storage
from posthouse.storage.upkeep import Order
from tests.storage.contract.engines import restore_engine
from tests.storage.contract.world import FAR, House, operated, whole

ORDER = Order(hostname="mx.house.test")


async def shown(storage: Storage) -> list[object]:
    """Every entry with its octets, and everything that waits."""
    found: list[object] = []
    for account in await storage.administration.accounts():
        listing = await storage.maildrops.list(account.account)
        found += [account, listing.uidls, listing.sizes_octets]
        found += [await whole(storage.maildrops.read(account.account, uid)) for uid in listing.uids]
    for row in await storage.spool.list():
        found += [(row.message.queue_id, row.recipient_number, row.forward_path)]
        found += [await whole(storage.content.open(row.message.content_id))]
    return found


async def test_a_restored_store_shows_what_the_store_showed(house: House, tmp_path: Path) -> None:
    account = await house.account(quota_octets=9_000_000)
    for octets in (b"small", b"x" * 300_000, b""):
        await house.accept(octets, to=[account], forwards=1)
    before = await shown(house.storage)
    manifest = await house.storage.backup(tmp_path / "backup", ORDER)
    assert (manifest.counts.entries, manifest.counts.queued) == (3, 3)
    await house.accept(to=[account])
    again, restored = await restore_engine(house, tmp_path / "backup", tmp_path / "again")
    assert restored.held == 3
    assert await shown(again) == before
    assert await again.spool.due(house.clock.now() + 9_000, 10) == ()
    assert await again.spool.operate(Action.RELEASE, (Held(hold=Hold.RESTORE),), "operator") == 3
    claim = await again.spool.claim(FAR, 10, house.clock.now() + 9_000)
    assert claim is not None
    assert len(claim.rows) == 3
    assert [flaw async for flaw in again.check()] == []


async def test_what_was_held_by_hand_is_released_with_all_only(house: House) -> None:
    queue_ids = [await house.accept(forwards=2) for _ in range(2)]
    for queue_id in queue_ids:
        assert await house.storage.spool.hold(queue_id, operated(queue_id, "hold")) == 2
    assert await house.storage.spool.operate(Action.RELEASE, (Held(hold=Hold.RESTORE),), "operator") == 0
    assert await house.storage.spool.operate(Action.RELEASE, (), "operator") == 4
    assert [
        event.action for event in await house.storage.journey.read(queue_ids[0]) if isinstance(event, Operated)
    ] == [
        "hold",
        "release",
    ]
    assert not any(row.held for row in await house.storage.spool.list())


async def test_used_octets_follow_every_operation(house: House) -> None:
    account = await house.account(quota_octets=1_000_000)
    maildrops = house.storage.maildrops
    assert await maildrops.used_octets(account) == 0
    for size in (10, 5_000, 200_000):
        await house.accept(b"x" * size, to=[account])
        listing = await maildrops.list(account)
        assert await maildrops.used_octets(account) == sum(listing.sizes_octets)
    lock = await maildrops.lock(account)
    await maildrops.expunge(lock, listing.uids[:2], [])  # type: ignore[arg-type]
    assert await maildrops.used_octets(account) == listing.sizes_octets[2]
    await house.storage.administration.remove_account("alice@house.test", keep_mail=False, now=house.clock.now())
    assert await maildrops.used_octets(account) == 0
    assert [flaw async for flaw in house.storage.check()] == []
