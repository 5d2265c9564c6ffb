"""A reader that reads for long, as a backup does, lets the log grow; sessions do not wait for it."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from posthouse.storage.sqlite import checkpoint
from posthouse.storage.sqlite.connection import BUSY_TIMEOUT_MS, DATABASE
from posthouse.storage.sqlite.storage import SqliteStorage
from tests.storage.contract.world import House, SeededRandom, SetClock


async def test_a_long_reader_costs_the_writer_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []

    class Watched(apsw.Connection):
        def set_busy_timeout(self, milliseconds: int) -> None:
            waits.append(milliseconds)
            super().set_busy_timeout(milliseconds)

    monkeypatch.setattr(checkpoint, "TRUNCATE_FRAMES", 20)
    monkeypatch.setattr(checkpoint, "READERS_WAIT_MS", 1)
    monkeypatch.setattr("posthouse.storage.sqlite.connection.apsw.Connection", Watched)
    storage = await SqliteStorage.open(
        tmp_path, clock=SetClock(), random=SeededRandom(1), create=True, inline_writer=True
    )
    house = House(storage, SetClock(), SeededRandom(2), pytest.fail)
    account = await house.account()
    reader = apsw.Connection(str(tmp_path / DATABASE))
    reader.execute("BEGIN; SELECT * FROM accounts").fetchall()
    waits.clear()
    for _ in range(10):
        await house.accept(b"x" * 30_000, to=[account])
    # Each time it gave up at once, the writer's own patience is what it was.
    assert waits
    assert set(waits) == {1, BUSY_TIMEOUT_MS}
    assert waits[-1] == BUSY_TIMEOUT_MS
    grown = (tmp_path / f"{DATABASE}-wal").stat().st_size
    reader.execute("COMMIT")
    for _ in range(20):
        await house.accept(b"x" * 30_000, to=[account])
    assert (tmp_path / f"{DATABASE}-wal").stat().st_size < grown
    reader.close()
    await storage.close()
