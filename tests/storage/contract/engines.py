"""The engines that the contract is for, and how each is opened."""

from __future__ import annotations

from pathlib import Path

from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.interfaces import Storage
from posthouse.storage.sqlite.restore import restore_backup
from posthouse.storage.sqlite.storage import SqliteStorage
from posthouse.storage.upkeep import Restored, tell_nobody
from tests.storage.contract.world import House, SeededRandom, SetClock

ENGINES = ("sqlite", "sqlite-inline")


async def open_engine(name: str, data_dir: Path, clock: SetClock, chance: SeededRandom) -> Storage:
    """Open an engine's durable state in `data_dir`, making it where there is none."""
    inline = name == "sqlite-inline"
    return await SqliteStorage.open(data_dir, clock=clock, random=chance, create=True, inline_writer=inline)


async def restore_engine(house: House, backup: Path, data_dir: Path) -> tuple[Storage, Restored]:
    """Restore a backup that this house's engine made, and open it; closed with the house."""
    data_dir.mkdir()
    restored = restore_backup(backup, data_dir, now=house.clock.now(), disk=RealFileSystem(), tell=tell_nobody)
    storage = await SqliteStorage.open(data_dir, clock=house.clock, random=house.chance)
    house.others.append(storage)
    return storage, restored


def kill(storage: Storage) -> None:
    """Leave the durable state as the death of its process would."""
    assert isinstance(storage, SqliteStorage)
    storage.abandon()
