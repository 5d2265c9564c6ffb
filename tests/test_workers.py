"""The parent of the workers, with small programs in their place."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from posthouse.log import make_log
from posthouse.workers import Workers, lock_folder

NEVER_READY = "import sys; sys.stdin.read()"
SLOWLY_READY = """
import pathlib, signal, sys, time
while not pathlib.Path("go").exists():
    time.sleep(0.01)
signal.signal(signal.SIGHUP, lambda *_: pathlib.Path("reloaded").touch())
print("ready", flush=True)
sys.stdin.read()
"""
"""Until it says so, SIGHUP ends it."""


@asynccontextmanager
async def parent(folder: Path, program: str, count: int) -> AsyncIterator[tuple[Workers, asyncio.Task[None]]]:
    lock = lock_folder(folder)
    workers = Workers((sys.executable, "-c", program), count, {}, make_log(), data_dir=folder, lock=lock)
    try:
        async with asyncio.TaskGroup() as group:
            yield workers, group.create_task(workers.run(lambda: None))
    finally:
        os.close(lock)


async def started(workers: Workers) -> int:
    """The process of worker 0."""
    while 0 not in workers._processes:
        await asyncio.sleep(0)
    return workers._processes[0].pid


async def test_the_end_may_come_while_the_first_one_starts(tmp_path: Path) -> None:
    async with parent(tmp_path, NEVER_READY, 2) as (workers, running):
        await started(workers)
        workers.stop()
    assert running.exception() is None


async def test_a_reload_waits_for_a_worker_that_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with parent(tmp_path, SLOWLY_READY, 1) as (workers, _running):
        pid = await started(workers)
        workers.reload()
        (tmp_path / "go").touch()
        while not (tmp_path / "reloaded").exists():
            assert workers._processes[0].pid == pid, "it ended"
            await asyncio.sleep(0.01)
        workers.stop()
