"""The engines that every test of the contract runs on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from posthouse.storage.interfaces import Storage
from tests.storage.contract.engines import ENGINES, open_engine
from tests.storage.contract.world import House, SeededRandom, SetClock


@pytest.fixture(params=ENGINES)
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    clock, chance = SetClock(), SeededRandom(7)
    opened: list[Storage] = []

    async def open_another() -> Storage:
        storage = await open_engine(request.param, tmp_path / "data", clock, chance)
        opened.append(storage)
        return storage

    house = House(await open_another(), clock, chance, open_another)
    yield house
    for storage in [*opened, *house.others]:
        await storage.close()
