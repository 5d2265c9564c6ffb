"""Whoever reads a message takes as long as it likes: nothing of the database waits for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import apsw
import pytest

from posthouse.storage.sqlite.connection import DATABASE, row
from posthouse.storage.sqlite.content import CHUNK_OCTETS, LARGE_OCTETS
from posthouse.storage.sqlite.storage import SqliteStorage
from tests.storage.contract.world import House, SeededRandom, SetClock


@pytest.fixture(params=[False, True], ids=["thread", "inline"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    storage = await SqliteStorage.open(
        tmp_path, clock=SetClock(), random=SeededRandom(1), create=True, inline_writer=request.param
    )
    yield House(storage, SetClock(), SeededRandom(2), pytest.fail)
    await storage.close()


@pytest.mark.parametrize("what", ["entry", "content"])
@pytest.mark.parametrize("octets", [CHUNK_OCTETS + 1, LARGE_OCTETS + 1], ids=["in its row", "in a file"])
async def test_reading_keeps_no_transaction_open(house: House, tmp_path: Path, octets: int, what: str) -> None:
    account = await house.account()
    await house.accept(b"x" * octets, to=[account])
    outsider = apsw.Connection(str(tmp_path / DATABASE))
    (content,) = row(outsider, "SELECT content FROM contents")
    (uid,) = (await house.storage.maildrops.list(account)).uids
    storage = house.storage
    reading = storage.maildrops.read(account, uid) if what == "entry" else storage.content.open(content)
    async with aclosing(reading):
        begun = await anext(reading)
        await house.accept(b"y" * 50_000, to=[account])
        # It would be busy, and the log would grow, while anybody reads what was there before.
        outsider.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        assert (tmp_path / f"{DATABASE}-wal").stat().st_size == 0
        rest = b"".join([chunk async for chunk in reading])
    assert (begun + rest).endswith(b"x" * octets)
    outsider.close()
