"""A power cut, or a disk that fails, at any moment of a backup: what has its name is whole, or it is not there."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from tests.storage.crash.disk import PowerCut, power_cuts, states, write_out
from tests.storage.crash.house import (
    FILE_OCTETS,
    SMALL_OCTETS,
    House,
    SeededRandom,
    SetClock,
    open_house,
    open_storage,
    recording,
)
from tests.storage.crash.ledger import difference, draw
from tests.storage.crash.recording import Fault, Recorder, Trouble
from tests.storage.crash.recovery import complaints, scratch_folder
from tests.storage.sqlite.old import make_old

from posthouse.storage.errors import StorageError
from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.sqlite.restore import restore_backup, restore_snapshot
from posthouse.storage.sqlite.storage import SqliteStorage
from posthouse.storage.upkeep import Order, tell_nobody

SEED = 20_261_124
ORDER = Order(hostname="mx.house.test")
MOST_OPERATIONS = 400


async def furnished(recorder: Recorder) -> House:
    house = await open_house(recorder, SEED)
    await house.accept(SMALL_OCTETS, to=(0,), forwards=1)
    await house.accept(FILE_OCTETS, to=(0, 1), forwards=1)
    return house


async def backup_complaints(house: House, cuts: list[PowerCut], promised_at: int | None) -> list[str]:
    """What is wrong with the backups that these power cuts leave, where they leave one."""
    found = []
    wanted = await draw(house.storage, house.accounts, house.queue_ids)
    with scratch_folder() as scratch:
        for cut, files in states(house.recorder.log, cuts):
            folder = scratch / "left"
            folder.mkdir()
            write_out(files, folder)
            backup = folder / "backup"
            if backup.exists():
                try:
                    again = scratch / "again"
                    again.mkdir()
                    restore_backup(backup, again, now=house.clock.now() + 60, disk=RealFileSystem(), tell=tell_nobody)
                    storage = await open_storage(again, SetClock(house.clock.now() + 60), cut.position)
                    try:
                        seen = await draw(storage, house.accounts, house.queue_ids)
                        found += [f"{cut}: {line}" for line in difference(seen, wanted)]
                    finally:
                        await storage.close()
                except StorageError as exc:
                    found.append(f"{cut}: {exc}")
                shutil.rmtree(again)
            elif promised_at is not None and cut.position >= promised_at:
                found.append(f"{cut}: the backup is gone")
            shutil.rmtree(folder)
    return found


async def test_a_power_cut_at_any_moment_of_a_backup() -> None:
    with scratch_folder() as folder, recording(folder) as recorder:
        house = await furnished(recorder)
        since = recorder.position
        await house.storage.backup(folder / "backup", ORDER)
        cuts = power_cuts(recorder.log, since=since, shuffles=1, seed=SEED)
        assert len(cuts) > 30
        assert await backup_complaints(house, cuts, recorder.position) == []
        # And the house itself is none the worse.
        some = sorted(random.Random(SEED).sample(cuts, 8), key=lambda cut: cut.position)
        assert await complaints(house, some) == []
        await house.storage.close()


@pytest.mark.conformance("C290")
@pytest.mark.parametrize(
    "trouble", [Trouble.FULL, *(pytest.param(one, marks=pytest.mark.long) for one in list(Trouble)[1:])]
)
async def test_a_disk_that_fails_at_any_moment_of_a_backup(trouble: Trouble) -> None:
    nth = 0
    with scratch_folder() as folder, recording(folder) as recorder:
        house = await furnished(recorder)
        while nth < MOST_OPERATIONS:
            recorder.fault = Fault(trouble, nth)
            said = ""
            try:
                await house.storage.backup(folder / "backup", ORDER)
            except StorageError as exc:
                said = str(exc)
            hit, recorder.fault = recorder.fault.hit, None
            if hit is None:
                break
            assert "nothing of it is left" in said, (nth, hit)
            assert "\n" not in said
            left = [path for path in folder.iterdir() if "backup" in path.name]
            assert left == [], (nth, hit)
            nth += 1
        assert nth > 20
        assert (folder / "backup" / "manifest.json").exists()
        await house.accept(SMALL_OCTETS, to=(0,))
        await house.storage.close()


class Failing(RealFileSystem):
    """The `nth` operation fails."""

    def __init__(self, nth: int, number: int) -> None:
        self._left = nth
        self._number = number
        self.hit = False

    def _count(self) -> None:
        self._left -= 1
        if self._left == -1:
            self.hit = True
            raise OSError(self._number, "the disk fails")

    def create(self, path: Path) -> int:
        self._count()
        return super().create(path)

    def write(self, descriptor: int, octets: bytes) -> None:
        self._count()
        super().write(descriptor, octets)

    def sync(self, descriptor: int) -> None:
        self._count()
        super().sync(descriptor)

    def sync_folder(self, folder: Path) -> None:
        self._count()
        super().sync_folder(folder)

    def sync_file(self, path: Path) -> None:
        self._count()
        super().sync_file(path)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        self._count()
        super().link(source, target)

    def make_folder(self, folder: Path) -> None:
        self._count()
        super().make_folder(folder)


@pytest.mark.conformance("C290")
@pytest.mark.parametrize("number", [28, 5, 24])
async def test_a_disk_that_fails_at_any_moment_of_a_restore(number: int) -> None:
    with scratch_folder() as folder, recording(folder) as recorder:
        house = await furnished(recorder)
        await house.storage.backup(folder / "backup", ORDER)
        await house.storage.close()
        nth, failing = 0, True
        while failing:
            again = folder / "again"
            again.mkdir()
            disk = Failing(nth, number)
            try:
                restore_backup(folder / "backup", again, now=1.0, disk=disk, tell=tell_nobody)
            except StorageError:
                assert list(again.iterdir()) == [], nth
            else:
                assert not disk.hit, nth
            failing = disk.hit
            shutil.rmtree(again)
            nth += 1
        assert nth > 10


async def opened(data: Path, seed: int) -> SqliteStorage:
    """As `serve` does it: an old one is brought up."""
    chance = SeededRandom(seed)
    return await SqliteStorage.open(
        data, clock=SetClock(), random=chance, inline_writer=True, on_migrated=lambda _: None
    )


async def test_a_disk_that_fails_while_a_snapshot_is_restored_leaves_a_way_on() -> None:
    nth, failing = 0, True
    while failing:
        with scratch_folder() as data:
            make_old(data)
            await (await opened(data, nth)).close()
            (snapshot,) = data.glob("*.snapshot")
            disk = Failing(nth, 5)
            try:
                restore_snapshot(snapshot, data, now=2_000_000_000.0, disk=disk, tell=tell_nobody)
            except StorageError:
                # The database is where it was, or set aside whole; trying again does it.
                kept = [*data.glob("posthouse.db"), *data.glob("replaced-*/posthouse.db")]
                assert kept, nth
                restore_snapshot(snapshot, data, now=2_000_000_060.0, disk=RealFileSystem(), tell=tell_nobody)
            failing = disk.hit
            storage = await opened(data, nth + 1000)
            assert [flaw async for flaw in storage.check() if not flaw.note] == []
            await storage.close()
        nth += 1
    assert nth > 8
