"""A claim is in use from its commit on, also before whoever asked for it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posthouse.storage.sqlite.storage import SqliteStorage
from tests.storage.contract.world import House, SeededRandom, SetClock, settlement


async def test_a_claim_on_its_way_is_not_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = await SqliteStorage.open(tmp_path, clock=SetClock(), random=SeededRandom(1), create=True)
    house = House(storage, SetClock(), SeededRandom(2), pytest.fail)
    await house.accept(forwards=1)
    really, freed = storage._writer.submit, []

    async def look_before_it_returns(*arguments: Any, **named: Any) -> Any:
        value = await really(*arguments, **named)
        if not freed:
            freed.append(-1)
            freed.append(await storage.spool.free_idle(set))
        return value

    monkeypatch.setattr(storage._writer, "submit", look_before_it_returns)
    claim = await house.claim()
    assert freed == [-1, 0]
    assert await storage.settle(settlement(claim, None))
    await storage.close()
