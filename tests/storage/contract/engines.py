"""The engines that the contract is for, and how each is opened."""

from __future__ import annotations

from pathlib import Path

from posthouse.storage.interfaces import Storage
from posthouse.storage.sqlite.storage import SqliteStorage
from tests.storage.contract.world import SeededRandom, SetClock

ENGINES = ("sqlite", "sqlite-inline")


async def open_engine(name: str, data_dir: Path, clock: SetClock, chance: SeededRandom) -> Storage:
    """Open an engine's durable state in `data_dir`, making it where there is none."""
    inline = name == "sqlite-inline"
    return await SqliteStorage.open(data_dir, clock=clock, random=chance, create=True, inline_writer=inline)
