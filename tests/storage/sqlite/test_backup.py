"""A backup is whole or not there; what is restored from it is what it was, with the spool held."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from posthouse import __version__
from posthouse.mail.ids import QueueId, Uid
from posthouse.mail.journey import Attempted, Operated
from posthouse.mail.maildrop import MaildropLock
from posthouse.mail.queue_filter import Held
from posthouse.mail.spool import Action, Hold
from posthouse.storage.errors import StorageBusy, StorageDamaged, StorageError
from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.sqlite.connection import DATABASE
from posthouse.storage.sqlite.copying import read_manifest
from posthouse.storage.sqlite.migrate import migrations
from posthouse.storage.sqlite.restore import restore_backup, restore_snapshot
from posthouse.storage.sqlite.storage import SqliteStorage
from posthouse.storage.upkeep import Flaw, Migrated, Order, Progress, Restored, tell_nobody
from tests.storage.contract.world import DAY_S, House, SeededRandom, SetClock, accepted, operated, whole
from tests.storage.sqlite.old import make_old

LARGE = b"x" * 200_000
ORDER = Order(hostname="mx.house.test")


async def open_house(data: Path, seed: int = 1, *, create: bool = True) -> House:
    clock = SetClock()
    storage = await SqliteStorage.open(data, clock=clock, random=SeededRandom(seed), create=create)
    return House(storage, clock, SeededRandom(seed + 50), pytest.fail)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = await open_house(tmp_path / "data")
    account = await house.account()
    await house.accept(to=[account], forwards=2)
    await house.accept(LARGE, to=[account])
    await house.accept(LARGE, forwards=1)
    await house.storage.journey.append([accepted(await house.accept(to=[account]))])
    yield house
    await house.storage.close()


def backup_of(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def restored_to(tmp_path: Path, *, now: float = 1_900_000_000.0) -> tuple[Path, Restored]:
    data = tmp_path / "again"
    data.mkdir()
    return data, restore_backup(backup_of(tmp_path), data, now=now, disk=RealFileSystem(), tell=tell_nobody)


async def seen(house: House) -> object:
    """All that anybody can see, but what a restore changes."""
    shown = []
    for account in await house.storage.administration.accounts():
        listing = await house.storage.maildrops.list(account.account)
        octets = [await whole(house.storage.maildrops.read(account.account, uid)) for uid in listing.uids]
        shown.append((account, listing.uids, listing.uidls, listing.sizes_octets, octets))
    rows = await house.storage.spool.list()
    contents = [await whole(house.storage.content.open(row.message.content_id)) for row in rows]
    waiting = [(row.message.queue_id, row.recipient_number, row.attempts, row.forward_path) for row in rows]
    return shown, waiting, contents, await house.storage.journey.find()


async def no_flaws(house: House) -> list[Flaw]:
    return [flaw async for flaw in house.storage.check()]


async def test_what_is_restored_is_what_was_there(house: House, tmp_path: Path) -> None:
    before = await seen(house)
    told: list[Progress] = []
    manifest = await house.storage.backup(backup_of(tmp_path), ORDER, told.append)
    assert {progress.step for progress in told} == {"database", "content files", "checksum"}
    assert (manifest.posthouse, manifest.schema) == (__version__, migrations()[-1][0])
    assert (manifest.counts.entries, manifest.counts.queued, manifest.counts.content_files) == (3, 3, 2)
    assert read_manifest(backup_of(tmp_path)) == manifest
    data, restored = restored_to(tmp_path)
    assert (restored.counts, restored.held, restored.made_at) == (manifest.counts, 3, manifest.made_at)
    again = await open_house(data, 2, create=False)
    assert await seen(again) == before
    assert await no_flaws(again) == []
    await again.storage.close()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["again", "backup", "data"]


async def test_after_a_restore_nothing_is_sent_until_it_is_released(house: House, tmp_path: Path) -> None:
    (by_hand, *_) = [row.message.queue_id for row in await house.storage.spool.list()]
    await house.storage.spool.hold(by_hand, operated(by_hand, "hold"))
    claim = await house.claim(1)
    await house.storage.backup(backup_of(tmp_path), ORDER)
    data, restored = restored_to(tmp_path)
    assert restored.held == 1
    again = await open_house(data, 2, create=False)
    spool = again.storage.spool
    assert await spool.due(again.clock.now() + DAY_S, 10) == ()
    assert [row.claimed for row in await spool.list()] == [False] * 3
    assert {row.held_by_restore for row in await spool.list(queue_id=by_hand)} == {False}

    def told(queue_id: QueueId, paths: tuple[str, ...]) -> Operated:
        return Operated(queue_id=queue_id, at=again.clock.now(), action="release", forward_paths=paths, by="operator")

    assert await spool.operate(Action.RELEASE, (Held(hold=Hold.RESTORE),), "operator") == 1
    due = claim.rows[0].message.queue_id
    assert [row.message.queue_id for row in await spool.list() if not row.held] == [due]
    assert [event for event in await again.storage.journey.read(due) if isinstance(event, Operated)] == [
        told(due, ("r0@far.test",))
    ]
    assert await spool.operate(Action.RELEASE, (), "operator") == 2
    assert await spool.operate(Action.RELEASE, (), "operator") == 0
    again.clock.time += 1
    assert len((await again.claim()).rows) == 3
    await again.storage.close()


async def test_what_may_have_been_sent_when_the_backup_was_made_is_not_sent_by_a_restore(
    house: House, tmp_path: Path
) -> None:
    claim = await house.claim(2)
    key = (claim.rows[0].message.queue_id, claim.rows[0].recipient_number)
    assert await house.storage.spool.mark_sending(claim.token, [key], house.clock.now())
    await house.storage.backup(backup_of(tmp_path), ORDER)
    data, restored = restored_to(tmp_path)
    assert restored.held == 3
    again = await open_house(data, 2, create=False)
    rows = await again.storage.spool.list()
    assert [(row.may_have_arrived, row.held_by_restore) for row in rows] == [
        (True, False),
        (False, True),
        (False, True),
    ]
    assert [event for event in await again.storage.journey.read(key[0]) if isinstance(event, Attempted)]
    assert await no_flaws(again) == []
    await again.storage.close()


async def test_uid_validities_are_raised(house: House, tmp_path: Path) -> None:
    await house.storage.backup(backup_of(tmp_path), ORDER)
    data, _ = restored_to(tmp_path, now=1_900_000_000.5)
    assert validity(tmp_path / "data") == 1_800_000_000
    assert validity(data) == 1_900_000_000
    await asyncio.to_thread(_remove_store, data)
    restore_backup(backup_of(tmp_path), data, now=5.0, disk=RealFileSystem(), tell=tell_nobody)
    assert validity(data) == 1_800_000_001, "a clock that is behind must not lower it"


def _remove_store(data: Path) -> None:
    for path in sorted(data.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def validity(data: Path) -> int:
    connection = apsw.Connection(str(data / DATABASE))
    ((found,),) = connection.execute("SELECT uid_validity FROM folders").fetchall()
    connection.close()
    return int(found)


async def test_content_is_linked_and_what_the_house_deletes_stays_in_the_backup(house: House, tmp_path: Path) -> None:
    await house.storage.backup(backup_of(tmp_path), ORDER)
    linked = [path for path in (backup_of(tmp_path) / "content").rglob("*-*") if path.stat().st_nlink == 2]
    assert len(linked) == 2
    (account,) = await house.storage.administration.accounts()
    lock = await house.storage.maildrops.lock(account.account)
    assert isinstance(lock, MaildropLock)
    await house.storage.maildrops.expunge(lock, [Uid(1), Uid(2), Uid(3)], [])
    await house.storage.sweep(house.clock.now() + 2 * DAY_S)
    data, _ = restored_to(tmp_path)
    again = await open_house(data, 2, create=False)
    assert len(await again.storage.maildrops.list(account.account)) == 3
    assert await no_flaws(again) == []
    await again.storage.close()


class NoLinks(RealFileSystem):
    """Another file system."""

    def link(self, source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")


async def test_content_is_copied_where_it_cannot_be_linked(house: House, tmp_path: Path) -> None:
    house.storage.content.file_system = NoLinks()  # type: ignore[misc]
    await house.storage.backup(backup_of(tmp_path), ORDER)
    copies = [path.stat().st_nlink for path in (backup_of(tmp_path) / "content").rglob("*-*")]
    assert copies == [1, 1]
    restored_to(tmp_path)


@pytest.mark.parametrize("step", ["database", "content files"])
async def test_a_backup_that_is_interrupted_ends_soon_and_is_none(house: House, tmp_path: Path, step: str) -> None:
    loop = asyncio.get_running_loop()
    reached = asyncio.Event()
    go_on = threading.Event()

    def tell(progress: Progress) -> None:
        if progress.step == step and not go_on.is_set():
            loop.call_soon_threadsafe(reached.set)
            assert go_on.wait(10)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(house.storage.backup(backup_of(tmp_path), ORDER, tell))
        await reached.wait()
        task.cancel()
        await asyncio.wait([task])
        go_on.set()
    assert task.cancelled()
    assert not backup_of(tmp_path).exists()
    await house.storage.backup(backup_of(tmp_path), ORDER)
    restored_to(tmp_path)
    assert [one.name for one in tmp_path.iterdir() if "partial" in one.name] == []


class ElsewhereLinks(RealFileSystem):
    """The backups are on a file system of their own."""

    def __init__(self, backups: Path) -> None:
        self._backups = backups
        self.copied: list[Path] = []

    def link(self, source: Path, target: Path) -> None:
        if self._backups not in source.parents:
            raise OSError(18, "Invalid cross-device link")
        super().link(source, target)

    def create(self, path: Path) -> int:
        if "content" in path.parts:
            self.copied.append(path)
        return super().create(path)


async def test_on_another_file_system_only_new_content_is_copied(house: House, tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    backups.mkdir()
    (backups / "no backup").mkdir()
    disk = ElsewhereLinks(backups)
    house.storage.content.file_system = disk  # type: ignore[misc]
    await house.storage.backup(backups / "first", ORDER)
    assert len(disk.copied) == 2
    (account,) = await house.storage.administration.accounts()
    house.storage.content.file_system = RealFileSystem()  # type: ignore[misc]
    await house.accept(LARGE, to=[account.account])
    house.storage.content.file_system = disk  # type: ignore[misc]
    disk.copied.clear()
    await house.storage.backup(backups / "second", ORDER)
    assert len(disk.copied) == 1
    # What was linked outlives the backup that it was linked from.
    await asyncio.to_thread(shutil.rmtree, backups / "first")
    data = tmp_path / "again"
    data.mkdir()
    restore_backup(backups / "second", data, now=1.9e9, disk=RealFileSystem(), tell=tell_nobody)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder to another user")
async def test_nothing_is_linked_from_another_users_backup(house: House, tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    backups.mkdir()
    disk = ElsewhereLinks(backups)
    house.storage.content.file_system = disk  # type: ignore[misc]
    await house.storage.backup(backups / "first", ORDER)
    os.chown(backups / "first", 65534, 65534)
    disk.copied.clear()
    await house.storage.backup(backups / "second", ORDER)
    assert len(disk.copied) == 2


async def test_the_sweep_waits_for_a_backup(house: House, tmp_path: Path) -> None:
    """A message that is deleted while its content is being linked is in the backup."""
    (account,) = await house.storage.administration.accounts()
    lock = await house.storage.maildrops.lock(account.account)
    assert isinstance(lock, MaildropLock)
    await house.storage.maildrops.expunge(lock, [Uid(1), Uid(2), Uid(3)], [])
    later = house.clock.now() + 2 * DAY_S
    loop = asyncio.get_running_loop()

    class SweepsMeanwhile(RealFileSystem):
        swept = False

        def link(self, source: Path, target: Path) -> None:
            if not self.swept:
                self.swept = True
                asyncio.run_coroutine_threadsafe(house.storage.sweep(later), loop).result(30)
            super().link(source, target)

    disk = SweepsMeanwhile()
    house.storage.content.file_system = disk  # type: ignore[misc]
    manifest = await house.storage.backup(backup_of(tmp_path), ORDER)
    assert disk.swept
    assert manifest.counts.content_files == 2
    restored_to(tmp_path)
    await house.storage.sweep(later)
    assert len(list((tmp_path / "data" / "content").rglob("*-*"))) == 1


@pytest.mark.conformance("S27", "S39")
async def test_a_backup_is_closed_to_others(house: House, tmp_path: Path) -> None:
    key = tmp_path / "data" / "self-signed.key"
    key.write_text("secret")
    before = os.umask(0)
    try:
        order = Order(hostname="mx.house.test", house={"self-signed.key": key})
        await house.storage.backup(backup_of(tmp_path), order)
        data, _ = restored_to(tmp_path)
    finally:
        os.umask(before)
    data.chmod(0o700)
    for root in (backup_of(tmp_path), data):
        for path in (root, *root.rglob("*")):
            assert path.stat().st_mode & 0o077 == 0, path
    assert (data / "self-signed.key").read_text() == "secret"


async def test_what_exists_is_not_overwritten(house: House, tmp_path: Path) -> None:
    target = backup_of(tmp_path)
    target.mkdir()
    await house.storage.backup(target, ORDER)
    with pytest.raises(StorageBusy, match="exists already"):
        await house.storage.backup(target, ORDER)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StorageBusy, match="exists already"):
        await house.storage.backup(tmp_path / "link", ORDER)
    with pytest.raises(StorageBusy, match="mkdir -p"):
        await house.storage.backup(tmp_path / "no" / "where", ORDER)
    with pytest.raises(StorageBusy, match=r"holds a store already.*mv"):
        restore_backup(target, tmp_path / "data", now=1.0, disk=RealFileSystem(), tell=tell_nobody)


async def test_what_a_backup_that_died_left_goes_with_the_next(house: House, tmp_path: Path) -> None:
    ruin = tmp_path / ".backup.partial-dead"
    (ruin / "content").mkdir(parents=True)
    await house.storage.backup(backup_of(tmp_path), ORDER)
    assert not ruin.exists()


def forgotten(backup: Path) -> None:
    (backup / "manifest.json").unlink()


def cut_manifest(backup: Path) -> None:
    os.truncate(backup / "manifest.json", 20)


def newer(backup: Path) -> None:
    path = backup / "manifest.json"
    schema = migrations()[-1][0]
    path.write_text(path.read_text().replace(f'"schema": {schema}', '"schema": 999').replace(__version__, "7.3.1"))


def other_database(backup: Path) -> None:
    with (backup / DATABASE).open("r+b") as file:
        file.seek(5_000)
        file.write(b"z")


def lost_content(backup: Path) -> None:
    next((backup / "content").rglob("*-*")).unlink()


def changed_content(backup: Path) -> None:
    file = next((backup / "content").rglob("*-*"))
    octets = bytearray(file.read_bytes())
    octets[70_000] ^= 1
    file.unlink()
    file.write_bytes(octets)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (forgotten, "this is not a backup"),
        (cut_manifest, "damaged"),
        (newer, "install posthouse 7.3.1"),
        (other_database, "not what the manifest says"),
        (lost_content, "is missing"),
        (changed_content, "is damaged"),
    ],
)
async def test_a_backup_that_is_not_whole_is_refused_and_nothing_is_left(
    house: House, tmp_path: Path, harm: Callable[[Path], None], words: str
) -> None:
    await house.storage.backup(backup_of(tmp_path), ORDER)
    harm(backup_of(tmp_path))
    with pytest.raises(StorageDamaged, match=words) as caught:
        restored_to(tmp_path)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "again").iterdir()) == []


@pytest.mark.parametrize("harm", [lost_content, changed_content])
async def test_one_damaged_file_does_not_cost_the_whole_backup(
    house: House, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    manifest = await house.storage.backup(backup_of(tmp_path), ORDER)
    harm(backup_of(tmp_path))
    data = tmp_path / "again"
    data.mkdir()
    restored = restore_backup(
        backup_of(tmp_path), data, now=1.9e9, disk=RealFileSystem(), tell=tell_nobody, leave_out_damaged=True
    )
    assert restored.dropped > 0
    assert restored.counts.content_files == manifest.counts.content_files - 1
    again = await open_house(data, 7)
    assert await no_flaws(again) == []
    await again.storage.close()


async def test_a_store_whose_content_is_lost_is_not_called_backed_up(house: House, tmp_path: Path) -> None:
    next((tmp_path / "data" / "content").rglob("*-*")).unlink()
    with pytest.raises(StorageDamaged, match=r"missing.*check --store"):
        await house.storage.backup(backup_of(tmp_path), ORDER)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["data"]


async def migrated(data: Path) -> Path:
    """The snapshot that bringing it up made."""
    told: list[Migrated] = []
    storage = await SqliteStorage.open(data, clock=SetClock(), random=SeededRandom(9), on_migrated=told.append)
    await storage.close()
    return told[0].snapshot


async def test_a_snapshot_is_returned_to_and_nothing_is_destroyed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_old(data)
    snapshot = await migrated(data)
    house = await open_house(data, 4)
    account = (await house.storage.administration.accounts())[0].account
    queue_id = await house.accept(LARGE, to=[account])
    await house.storage.close()
    restored = restore_snapshot(snapshot, data, now=1_900_000_000.0, disk=RealFileSystem(), tell=tell_nobody)
    aside = data / "replaced-20300317T174640Z"
    assert (restored.set_aside, restored.dropped, restored.counts.entries) == (aside, 0, 1)
    kept = apsw.Connection(str(aside / DATABASE))
    assert kept.execute("SELECT count(*) FROM entries WHERE queue_id = ?", (queue_id,)).fetchall() == [(1,)]
    kept.close()
    (content,) = (aside / "content").rglob("*-*")
    # The next start migrates again, and its sweep must not reach what was set aside.
    again = await migrated(data)
    assert again.exists()
    house = await open_house(data, 5)
    assert (await house.storage.maildrops.list(account)).uidls == ("01QUEUE",)
    await house.storage.sweep(house.clock.now() + 2 * DAY_S)
    assert content.stat().st_size == len(LARGE)
    assert await no_flaws(house) == []
    await house.storage.close()


@pytest.mark.parametrize("damage", [b"mail" * 5_000, b"SQLite format 3\0" + b"\0" * 9_000, b""])
async def test_a_damaged_database_is_set_aside_too(tmp_path: Path, damage: bytes) -> None:
    data = tmp_path / "data"
    make_old(data)
    snapshot = await migrated(data)
    (data / DATABASE).write_bytes(damage)
    restored = restore_snapshot(snapshot, data, now=1_900_000_000.0, disk=RealFileSystem(), tell=tell_nobody)
    assert restored.set_aside is not None
    assert (restored.set_aside / DATABASE).read_bytes().startswith(damage[:32])
    await migrated(data)


async def test_a_database_in_use_is_not_taken_away(tmp_path: Path) -> None:
    """A command or a worker that still writes would write into what was set aside."""
    data = tmp_path / "data"
    make_old(data)
    snapshot = await migrated(data)
    house = await open_house(data, 4)
    before = sorted(path.name for path in data.iterdir())
    with pytest.raises(StorageBusy, match="another process uses it"):
        restore_snapshot(snapshot, data, now=1_900_000_000.0, disk=RealFileSystem(), tell=tell_nobody)
    with pytest.raises(StorageBusy, match="in use"):
        restore_snapshot(data / DATABASE, data, now=1_900_000_000.0, disk=RealFileSystem(), tell=tell_nobody)
    assert sorted(path.name for path in data.iterdir()) == before
    await house.storage.close()


async def test_what_was_deleted_since_a_snapshot_is_left_out(tmp_path: Path) -> None:
    data = tmp_path / "data"
    house = await open_house(data)
    account = await house.account()
    await house.accept(LARGE, to=[account], forwards=1)
    await house.accept(to=[account])
    await house.storage.close()
    snapshot = data / "posthouse-schema-2-x.snapshot"
    connection = apsw.Connection(str(data / DATABASE))
    connection.execute("VACUUM INTO ?", (str(snapshot),))
    connection.close()
    snapshot.chmod(0o600)
    next((data / "content").rglob("*-*")).unlink()
    restored = restore_snapshot(snapshot, data, now=1_900_000_000.0, disk=RealFileSystem(), tell=tell_nobody)
    assert restored.dropped == 2
    house = await open_house(data, 2)
    assert len(await house.storage.maildrops.list(account)) == 1
    assert await no_flaws(house) == []
    await house.storage.close()


async def test_what_is_no_snapshot_is_refused(house: House, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(b"mail" * 5_000)
    other = tmp_path / "other.db"
    connection = apsw.Connection(str(other))
    connection.execute("CREATE TABLE theirs(x)")
    connection.close()
    before = await seen(house)
    for path in (noise, other, tmp_path / "nothing"):
        with pytest.raises(StorageError):
            restore_snapshot(path, tmp_path / "data", now=1.0, disk=RealFileSystem(), tell=tell_nobody)
    assert await seen(house) == before
