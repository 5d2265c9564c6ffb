"""A storage that does what the real one does, and fails where a test says so."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from posthouse import app
from posthouse.storage.interfaces import Storage
from tests.running_house import RunningHouse

Hook = Callable[[], Awaitable[None]]
_PARTS = ("directory", "content", "maildrops", "journey")


class Faults(dict[str, Exception | Hook]):
    """Operation (`accept`, `directory.resolve`, `draft.write` …) → what to raise, or to await, before it is done."""

    async def before(self, operation: str) -> None:
        fault = self.get(operation)
        if isinstance(fault, Exception):
            raise fault
        if fault is not None:
            await fault()


class Faulty:
    """Passes everything through to `real`; its asynchronous operations ask `faults` first."""

    def __init__(self, real: Any, faults: Faults, prefix: str = "") -> None:
        self._real, self._faults, self._prefix = real, faults, prefix

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if name in _PARTS and not self._prefix:
            return Faulty(value, self._faults, f"{name}.")
        if inspect.isasyncgenfunction(value):
            return self._generator(f"{self._prefix}{name}", value)
        if inspect.iscoroutinefunction(value):
            return self._operation(f"{self._prefix}{name}", value)
        return value

    def _operation(self, operation: str, value: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any, **named: Any) -> Any:
            await self._faults.before(operation)
            result = await value(*arguments, **named)
            return Faulty(result, self._faults, "draft.") if operation == "content.draft" else result

        return call

    def _generator(self, operation: str, value: Callable[..., AsyncGenerator[Any, None]]) -> Callable[..., Any]:
        async def generate(*arguments: Any, **named: Any) -> AsyncGenerator[Any, None]:
            await self._faults.before(operation)
            async for each in value(*arguments, **named):
                yield each
                await self._faults.before(f"{operation} on")

        return generate


def faulty_house(folder: Path, monkeypatch: pytest.MonkeyPatch, **tables: Any) -> tuple[RunningHouse, Faults]:
    """A house, not yet open, whose storage fails as the faults say."""
    faults = Faults()
    really_open = app.open_storage

    async def open_faulty(*arguments: Any, **named: Any) -> Storage:
        storage: Storage = Faulty(await really_open(*arguments, **named), faults)  # type: ignore[assignment]
        return storage

    monkeypatch.setattr(app, "open_storage", open_faulty)
    return RunningHouse(folder, **tables), faults
