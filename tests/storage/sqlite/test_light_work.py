"""Light work runs on the loop, heavy work on the thread; both are committed in order, and locks stop neither's loop."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import apsw
import pytest

from posthouse.storage.errors import AccountGone, StorageBusy
from posthouse.storage.sqlite.connection import DATABASE
from posthouse.storage.sqlite.storage import SqliteStorage
from posthouse.storage.sqlite.writer import Batches, Item
from posthouse.world import SystemClock, SystemRandom


@pytest.fixture
async def storage(tmp_path: Path) -> SqliteStorage:
    return await SqliteStorage.open(tmp_path, clock=SystemClock(), random=SystemRandom(), create=True)


async def test_light_work_is_done_on_the_loops_thread_and_heavy_work_is_not(storage: SqliteStorage) -> None:
    here = threading.get_ident()

    def where(_connection: apsw.Connection) -> int:
        return threading.get_ident()

    assert await storage._writer.submit(where, heavy=False) == here
    assert await storage._writer.submit(where, heavy=True) != here
    await storage.close()


async def test_light_and_heavy_work_keep_their_order(storage: SqliteStorage) -> None:
    done: list[int] = []
    async with asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(
                storage._writer.submit(lambda _, number=number: done.append(number), heavy=number % 7 == 3)
            )
    assert done == list(range(60))
    await storage.close()


async def test_the_loop_goes_on_while_another_process_holds_the_lock(storage: SqliteStorage, tmp_path: Path) -> None:
    other = apsw.Connection(str(tmp_path / DATABASE))
    other.execute("BEGIN IMMEDIATE")
    turns = 0
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(storage._writer.submit(lambda _: "written", heavy=False))
        for _ in range(100):
            await asyncio.sleep(0)
            turns += 1
        assert not writing.done()
        other.execute("COMMIT")
        assert await writing == "written"
    assert turns == 100
    other.close()
    await storage.close()


async def test_one_bad_item_among_light_work_spoils_no_other(storage: SqliteStorage) -> None:
    def bad(connection: apsw.Connection) -> None:
        connection.execute("INSERT INTO directory_version VALUES (1, 1)")

    async def submit(work: object) -> object:
        try:
            return await storage._writer.submit(work, heavy=False)  # type: ignore[arg-type]
        except Exception as exc:
            return type(exc).__name__

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(submit(bad if number == 5 else lambda _: "good")) for number in range(20)]
    assert [task.result() for task in tasks].count("good") == 19
    assert tasks[5].result() != "good"
    await storage.close()


@pytest.mark.parametrize("heavy", [False, True])
async def test_refused_work_leaves_nothing_and_takes_nothing_with_it(storage: SqliteStorage, heavy: bool) -> None:
    """Light work has no savepoint of its own: what it wrote before it was refused must be undone all the same."""

    def bump(connection: apsw.Connection) -> None:
        connection.execute("UPDATE directory_version SET version = version + 1")

    def bump_and_fail(connection: apsw.Connection) -> None:
        bump(connection)
        raise AccountGone("in the middle")

    async def submit(number: int) -> bool:
        try:
            await storage._writer.submit(bump_and_fail if number in (3, 11) else bump, heavy=heavy)
        except AccountGone:
            return False
        return True

    def version() -> int:
        return int(storage._connection.execute("SELECT version FROM directory_version").fetchall()[0][0])

    before = version()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(submit(number)) for number in range(20)]
    assert [number for number, task in enumerate(tasks) if not task.result()] == [3, 11]
    assert version() == before + 18
    await storage.close()


async def test_a_lock_that_is_not_given_is_waited_for_once_for_the_whole_batch(
    storage: SqliteStorage, tmp_path: Path
) -> None:
    other = apsw.Connection(str(tmp_path / DATABASE))
    other.execute("BEGIN IMMEDIATE")
    begins: list[str] = []
    connection = storage._connection
    connection.set_busy_timeout(1)
    connection.set_exec_trace(lambda _cursor, sql, _bindings: begins.append(sql) or True)
    items = [Item(lambda _: None) for _ in range(30)]
    Batches(connection, storage._checkpointer, pytest.fail).commit(items)
    connection.set_exec_trace(None)
    assert [type(item.error) for item in items] == [StorageBusy] * 30
    assert begins.count("BEGIN IMMEDIATE") <= 1
    other.execute("COMMIT")
    other.close()
    await storage.close()
