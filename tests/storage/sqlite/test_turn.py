"""Processes that write to one store take turns; one that never gives its turn up holds nobody for ever."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from posthouse.storage.errors import StorageBusy
from posthouse.storage.sqlite import writer
from posthouse.storage.sqlite.storage import SqliteStorage
from posthouse.storage.sqlite.turn import WriterTurn
from posthouse.world import SystemClock, SystemRandom


async def open_storage(folder: Path) -> SqliteStorage:
    return await SqliteStorage.open(folder, clock=SystemClock(), random=SystemRandom(), create=True)


@pytest.mark.parametrize("heavy", [False, True])
async def test_work_waits_for_the_turn_and_the_loop_does_not(tmp_path: Path, heavy: bool) -> None:
    storage = await open_storage(tmp_path)
    other = WriterTurn(tmp_path)
    other.take()
    here = threading.get_ident()
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(storage._writer.submit(lambda _: threading.get_ident(), heavy=heavy))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not writing.done()
        other.give()
        assert (await writing == here) is not heavy
    await storage.close()
    other.close()


async def test_the_turn_is_given_up_after_each_batch(tmp_path: Path) -> None:
    storage = await open_storage(tmp_path)
    other = WriterTurn(tmp_path)
    for heavy in (False, True):
        await storage._writer.submit(lambda _: None, heavy=heavy)
        assert other.try_take()
        other.give()
    await storage.close()
    other.close()


async def test_a_turn_that_is_never_given_up_is_a_busy_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = await open_storage(tmp_path)
    other = WriterTurn(tmp_path)
    other.take()
    monkeypatch.setattr(writer, "BUSY_TIMEOUT_MS", 1)
    for _ in range(2):
        with pytest.raises(StorageBusy, match="another process writes"):
            await storage._writer.submit(lambda _: None)
    other.give()
    monkeypatch.undo()
    # The timer that was set before may refuse once more.
    with suppress(StorageBusy):
        await storage._writer.submit(lambda _: None)
    assert await storage._writer.submit(lambda _: "written") == "written"
    await storage.close()
    other.close()


async def test_two_stores_in_one_folder_write_by_turns(tmp_path: Path) -> None:
    first, second = await open_storage(tmp_path), await open_storage(tmp_path)
    async with asyncio.TaskGroup() as group:
        for number in range(200):
            storage = (first, second)[number % 2]
            group.create_task(
                storage._writer.submit(
                    lambda connection: connection.execute("UPDATE directory_version SET version = version + 1"),
                    heavy=number % 3 == 0,
                )
            )
    found = first._readers.here.execute("SELECT version FROM directory_version").fetchall()
    assert found == [(201,)]
    await first.close()
    await second.close()
