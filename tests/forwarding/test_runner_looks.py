"""When the runner last looked at the queue: readiness goes by it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from posthouse.storage.errors import StorageBusy
from tests.forwarding.runner_house import runner_house


async def test_each_look_is_noted_and_only_those_that_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with runner_house(tmp_path / "house") as house:
        began = house.runner.looked_at
        house.clock.advance(10.0)
        really_due, fails = house.storage.spool.due, True
        failed = 0

        async def due(*arguments: Any) -> Any:
            nonlocal failed
            if fails:
                failed += 1
                raise StorageBusy
            return await really_due(*arguments)

        monkeypatch.setattr(house.storage.spool, "due", due)
        async with asyncio.TaskGroup() as group:
            group.create_task(house.runner.run())
            while failed < 3:
                await asyncio.sleep(0)
            assert house.runner.looked_at == began
            fails = False
            while house.runner.looked_at == began:
                await asyncio.sleep(0)
            assert house.runner.looked_at == began + 10.0
            house.runner.stop()
