"""A house that runs keeps the index filled for those who read here, and for nobody else."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from posthouse import indexing
from posthouse.indexing import IndexRunner, bring_up_to_date, index_step
from posthouse.log import make_log
from posthouse.mail.found_by import FoundBy
from posthouse.mail.mail_query import MailQuery
from posthouse.mail.mime import Message
from posthouse.storage.errors import StorageBusy, StorageDamaged
from posthouse.storage.interfaces import Storage
from posthouse.storage.upkeep import Progress
from tests.storage.contract.engines import ENGINES, open_engine
from tests.storage.contract.world import House, SeededRandom, SetClock, bob


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock, chance = SetClock(), SeededRandom(7)

    async def another() -> Storage:
        return await open_engine(ENGINES[0], tmp_path / "data", clock, chance)

    house = House(await another(), clock, chance, another)
    yield house
    await house.storage.close()


async def run_until(house: House, monkeypatch: pytest.MonkeyPatch, looks: int) -> str:
    """Let the runner look so many times; what it logged."""
    out = io.StringIO()
    pauses = 0

    async def pause(seconds: float) -> None:
        nonlocal pauses
        pauses += seconds == indexing.LOOK_EVERY_S
        if pauses >= looks:
            raise asyncio.CancelledError

    monkeypatch.setattr(indexing.asyncio, "sleep", pause)
    with pytest.raises(asyncio.CancelledError):
        await IndexRunner(house.storage, make_log(out)).run()
    return out.getvalue()


async def test_only_who_reads_here_is_indexed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    account, other = await house.account(), await house.account(bob)
    for _ in range(indexing.SMALL_STEP + 1):
        await house.accept(to=[account, other])
    await house.storage.reading.begin(account)
    await run_until(house, monkeypatch, 1)
    assert await house.storage.reading.missing_count(account) == 0
    assert await house.storage.reading.missing_count(other) == indexing.SMALL_STEP + 1


async def test_a_store_that_is_busy_is_tried_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await house.account()
    await house.accept(to=[account])
    await house.storage.reading.begin(account)
    original, failures = indexing.index_step, iter([StorageBusy("busy")])

    async def failing(*given: object) -> int:
        for failure in failures:
            raise failure
        return await original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(indexing, "index_step", failing)
    assert "mail cannot be indexed" in await run_until(house, monkeypatch, 2)
    assert await house.storage.reading.missing_count(account) == 0


async def test_what_cannot_be_read_is_listed_all_the_same(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await house.account()
    for _ in range(3):
        await house.accept(to=[account])
    original, looked = indexing.found_by, iter([RuntimeError("a bug"), StorageDamaged("no file")])

    def breaking(message: Message, accepted_at: float) -> FoundBy:
        if message.fields:
            for failure in looked:
                raise failure
        return original(message, accepted_at)

    monkeypatch.setattr(indexing, "found_by", breaking)
    assert await bring_up_to_date(house.storage, account) == 3
    listed = await house.storage.reading.find(account, MailQuery(), 10)
    assert sorted(each.subject for each in listed) == ["", "", "x"]


async def test_what_goes_meanwhile_is_passed_over(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await house.account()
    await house.accept(to=[account])
    original = indexing.read_message

    async def deleting(*given: object) -> Message:
        await house.storage.folders.remove(account, "Inbox", [1])  # type: ignore[list-item]
        return await original(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(indexing, "read_message", deleting)
    assert await index_step(house.storage, account, 10) == 1
    assert await index_step(house.storage, account, 10) == 0
    assert await house.storage.reading.find(account, MailQuery(), 10) == ()


async def test_progress_is_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await house.account()
    monkeypatch.setattr(indexing, "STEP", 2)
    for _ in range(3):
        await house.accept(to=[account])
    told: list[Progress] = []
    await bring_up_to_date(house.storage, account, told.append)
    assert [(each.done, each.total) for each in told] == [(2, 3), (3, 3)]
