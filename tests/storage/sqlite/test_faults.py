"""What SQLite's failures become: nobody is answered 250 for what is not there, and nothing refused comes back."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from posthouse.mail.ids import AccountId
from posthouse.storage.errors import AccountGone, StorageBusy, StorageFull
from posthouse.storage.sqlite.storage import SqliteStorage
from posthouse.storage.sqlite.writer import Stopped
from tests.storage.contract.world import House, SeededRandom, SetClock, settlement


class FaultyFile(apsw.VFSFile):
    """A file whose syncs fail while its VFS says so."""

    def __init__(self, vfs: FaultyVfs, name: Any, flags: list[int]) -> None:
        self._vfs = vfs
        self._is_wal = bool(flags[0] & apsw.SQLITE_OPEN_WAL)
        super().__init__(vfs.base, name, flags)

    def xSync(self, flags: int) -> None:
        if self._is_wal and self._vfs.failing_syncs:
            self._vfs.failing_syncs -= 1
            raise apsw.IOError("the disk does not answer")
        super().xSync(flags)


class FaultyVfs(apsw.VFS):
    """The system's files, with faults on demand."""

    base = ""

    def __init__(self) -> None:
        self.failing_syncs = 0
        super().__init__("faulty", self.base)

    def xOpen(self, name: Any, flags: list[int]) -> FaultyFile:
        return FaultyFile(self, name, flags)

    def excepthook(self, *_: Any) -> bool:
        return True


@pytest.fixture
def vfs() -> Iterator[FaultyVfs]:
    faulty = FaultyVfs()
    yield faulty
    faulty.unregister()


@pytest.fixture(params=[False, True], ids=["thread", "inline"])
async def house(request: pytest.FixtureRequest, tmp_path: Path, vfs: FaultyVfs) -> AsyncIterator[House]:
    clock, chance = SetClock(), SeededRandom(3)
    fatal: list[str] = []

    async def open_it() -> SqliteStorage:
        return await SqliteStorage.open(
            tmp_path / "data",
            clock=clock,
            random=chance,
            vfs="faulty",
            inline_writer=request.param,
            create=True,
            on_fatal=fatal.append,
        )

    storage = await open_it()
    house = House(storage, clock, chance, open_it)
    house.fatal = fatal  # type: ignore[attr-defined]
    yield house
    vfs.failing_syncs = 0
    storage.abandon() if fatal else await storage.close()


async def messages_after_a_crash(data: Path, tmp_path: Path, account: AccountId) -> int:
    """What a power cut at this moment would leave, seen by opening a copy of the files."""
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    again = await SqliteStorage.open(copy, clock=SetClock(), random=SeededRandom(9))
    try:
        return len(await again.maildrops.list(account))
    finally:
        await again.close()


@pytest.mark.conformance("C57", "S6")
async def test_a_failed_sync_is_answered_and_nothing_comes_back(house: House, tmp_path: Path, vfs: FaultyVfs) -> None:
    account = await house.account()
    await house.accept(to=[account])
    acceptance = await house.acceptance(to=[account])
    vfs.failing_syncs = 1
    with pytest.raises(StorageBusy):
        await house.storage.accept(acceptance)
    assert len(await house.storage.maildrops.list(account)) == 1
    assert await messages_after_a_crash(tmp_path / "data", tmp_path, account) == 1
    await house.storage.accept(acceptance)
    assert len(await house.storage.maildrops.list(account)) == 2


@pytest.mark.conformance("C57", "S6")
async def test_a_log_that_cannot_be_cut_off_ends_the_process(house: House, vfs: FaultyVfs) -> None:
    account = await house.account()
    acceptance = await house.acceptance(to=[account])
    vfs.failing_syncs = 1_000
    fatal: list[str] = house.fatal  # type: ignore[attr-defined]
    try:
        async with asyncio.timeout(0.3):
            await house.storage.accept(acceptance)
    except (Stopped, TimeoutError):
        pass
    else:
        pytest.fail("answered, though the log still holds it")
    assert len(fatal) == 1
    assert "could not be cut off" in fatal[0]


async def accept_together(house: House, plans: list[Any]) -> list[Exception | None]:
    """Hand all plans to the writer before it can take the first; the answers in order."""
    answers: list[Exception | None] = [None] * len(plans)

    async def one(number: int) -> None:
        try:
            await house.storage.accept(plans[number])
        except Exception as exc:
            answers[number] = exc

    async with asyncio.TaskGroup() as group:
        for number in range(len(plans)):
            group.create_task(one(number))
    return answers


async def test_one_bad_item_leaves_the_others_of_its_batch(house: House) -> None:
    account = await house.account()
    plans = [await house.acceptance(to=[account if number != 3 else AccountId(99)]) for number in range(8)]
    answers = await accept_together(house, plans)
    assert isinstance(answers.pop(3), AccountGone)
    assert answers == [None] * 7
    assert len(await house.storage.maildrops.list(account)) == 7


async def test_a_bug_in_one_item_leaves_the_others_of_its_batch(house: House) -> None:
    account = await house.account()
    plans = [await house.acceptance(to=[account]) for _ in range(5)]
    object.__setattr__(plans[2], "prefix", object())
    answers = await accept_together(house, plans)
    assert answers.pop(2) is not None
    assert answers == [None] * 4
    assert len(await house.storage.maildrops.list(account)) == 4


@pytest.mark.conformance("C57", "C290")
async def test_a_full_disk_refuses_what_does_not_fit_and_keeps_the_rest(house: House) -> None:
    account = await house.account()
    connection = house.storage._connection  # type: ignore[attr-defined]
    pages = connection.pragma("page_count")
    connection.pragma("max_page_count", pages + 12)
    plans = [await house.acceptance(b"x" * size, to=[account]) for size in (100, 100_000, 100, 100_000, 100)]
    answers = await accept_together(house, plans)
    assert [type(answer) for answer in answers] == [type(None), StorageFull, type(None), StorageFull, type(None)]
    assert len(await house.storage.maildrops.list(account)) == 3
    connection.pragma("max_page_count", pages + 1_000)
    await house.storage.accept(plans[1])
    assert len(await house.storage.maildrops.list(account)) == 4


async def test_a_failed_settlement_leaves_the_claim(house: House, vfs: FaultyVfs) -> None:
    await house.accept(forwards=1)
    claim = await house.claim()
    vfs.failing_syncs = 1
    with pytest.raises(StorageBusy):
        await house.storage.settle(settlement(claim, None))
    assert await house.storage.settle(settlement(claim, None))


async def test_a_proof_is_written_and_synced(house: House, vfs: FaultyVfs) -> None:
    await house.storage.prove()
    vfs.failing_syncs = 1
    with pytest.raises(StorageBusy):
        await house.storage.prove()
    await house.storage.prove()
