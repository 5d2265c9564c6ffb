"""Orphaned files go when nobody can want them any more; a backup holds the sweep of every process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from posthouse.mail.content import ContentFacts
from posthouse.mail.ids import ContentId
from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.sqlite.hold import SweepLock
from posthouse.storage.sqlite.snapshots import KEPT_S, snapshot_path
from posthouse.storage.sqlite.storage import TIDY_EVERY_S, SqliteStorage
from tests.storage.contract.world import DAY_S, House, SeededRandom, SetClock, whole

LARGE = b"x" * 200_000


class NoRemoval(RealFileSystem):
    """Files stay while `broken`."""

    broken = False

    def remove(self, path: Path) -> None:
        if self.broken:
            raise OSError(5, "Input/output error")
        super().remove(path)


async def open_house(data: Path, disk: RealFileSystem | None = None, seed: int = 1) -> House:
    clock = SetClock()
    storage = await SqliteStorage.open(
        data, clock=clock, random=SeededRandom(seed), create=True, inline_writer=True, file_system=disk
    )
    return House(storage, clock, SeededRandom(seed + 100), pytest.fail)


def files(data: Path) -> list[Path]:
    return sorted((data / "content").rglob("*-*"))


async def test_our_own_orphan_goes_and_our_drafts_stay(tmp_path: Path) -> None:
    disk = NoRemoval()
    house = await open_house(tmp_path, disk)
    account = await house.account()
    await house.accept(LARGE, to=[account])
    given_up = await house.storage.content.draft()
    await given_up.write(LARGE)
    disk.broken = True
    with pytest.raises(Exception, match="Input/output error"):
        await given_up.discard()
    disk.broken = False
    draft = await house.storage.content.draft()
    await draft.write(LARGE)
    assert len(files(tmp_path)) == 3
    await house.storage.sweep(house.clock.now())
    assert len(files(tmp_path)) == 2
    sealed = await draft.seal(ContentFacts())
    await house.storage.sweep(house.clock.now() + TIDY_EVERY_S)
    assert sealed.size_octets == len(LARGE)
    assert len(files(tmp_path)) == 2
    await house.storage.close()
    assert len(files(tmp_path)) == 1


async def test_a_living_neighbours_draft_stays(tmp_path: Path) -> None:
    house = await open_house(tmp_path)
    neighbour = await open_house(tmp_path, seed=2)
    await neighbour.content(LARGE)
    await house.storage.sweep(house.clock.now())
    assert len(files(tmp_path)) == 1
    await neighbour.storage.close()
    await house.storage.close()


async def test_a_file_whose_row_went_alone_is_swept_later(tmp_path: Path) -> None:
    disk = NoRemoval()
    house = await open_house(tmp_path, disk)
    acceptance = await house.acceptance(LARGE)
    await house.storage.accept(acceptance)
    later = house.clock.now() + 2 * DAY_S
    disk.broken = True
    with pytest.raises(Exception, match="Input/output error"):
        await house.storage.sweep(later)
    disk.broken = False
    assert len(files(tmp_path)) == 1
    await house.storage.sweep(later)
    assert files(tmp_path) == []
    await house.storage.close()


async def test_nothing_is_swept_while_somebody_holds_the_sweep(tmp_path: Path) -> None:
    house = await open_house(tmp_path)
    acceptance = await house.acceptance(LARGE)
    await house.storage.accept(acceptance)
    later = house.clock.now() + 2 * DAY_S
    # Another process's: what counts is the file.
    async with SweepLock(tmp_path).held(), SweepLock(tmp_path).held():
        await house.storage.sweep(later)
        assert len(files(tmp_path)) == 1
    await house.storage.sweep(later)
    assert files(tmp_path) == []
    await house.storage.close()


async def test_who_wants_to_hold_the_sweep_waits_for_the_step_under_way(tmp_path: Path) -> None:
    lock = SweepLock(tmp_path)
    order: list[str] = []

    async def hold() -> None:
        async with lock.held():
            order.append("held")

    async with asyncio.TaskGroup() as group:
        with lock.sweeping() as allowed:
            assert allowed
            holding = group.create_task(hold())
            for _ in range(5):
                await asyncio.sleep(0)
            order.append("swept")
            assert not holding.done()
    assert order == ["swept", "held"]
    assert (tmp_path / "sweep.lock").stat().st_mode & 0o777 == 0o600


async def test_what_a_reader_listed_can_be_read_for_a_day(tmp_path: Path) -> None:
    house = await open_house(tmp_path)
    acceptance = await house.acceptance(LARGE)
    await house.storage.accept(acceptance)
    content = house.storage.content.open
    await house.storage.sweep(house.clock.now() + 23 * 3600)
    (file,) = files(tmp_path)
    assert file.stat().st_nlink == 1
    assert await whole(content(ContentId(1))) == LARGE
    await house.storage.close()


async def test_snapshots_go_when_their_upgrade_can_be_undone_no_more(tmp_path: Path) -> None:
    house = await open_house(tmp_path)
    now = house.clock.now()
    old, new = (snapshot_path(tmp_path, 3, now - age_s) for age_s in (KEPT_S + 1, KEPT_S - TIDY_EVERY_S))
    others = [tmp_path / name for name in ("posthouse-schema-3-later.snapshot", "mine.snapshot")]
    for path in (old, new, *others):
        path.write_bytes(b"SQLite format 3")
    assert await house.storage.sweep(now) == [old]
    assert [path.exists() for path in (old, new, *others)] == [False, True, True, True]
    assert await house.storage.sweep(now + TIDY_EVERY_S - 1) == ()
    assert await house.storage.sweep(now + TIDY_EVERY_S + 1) == [new]
    await house.storage.close()
