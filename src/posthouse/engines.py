"""The storage engine that the configuration names. What only some commands need is imported where it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from posthouse.storage.sqlite.storage import SqliteStorage

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Storage
    from posthouse.storage.upkeep import Migrated, Restored, Tell
    from posthouse.world import World


async def open_storage(
    config: Config, world: World, *, create: bool = False, on_migrated: Callable[[Migrated], None] | None = None
) -> Storage:
    """The storage engine that the configuration names. Without `on_migrated` an older database is refused."""
    disk = world.disk
    if disk is None:
        return await SqliteStorage.open(
            config.data_dir, clock=world.clock, random=world.random, create=create, on_migrated=on_migrated
        )
    return await SqliteStorage.open(
        config.data_dir,
        clock=world.clock,
        random=world.random,
        file_system=disk.file_system,
        vfs=disk.vfs,
        inline_writer=disk.inline,
        create=create,
        on_fatal=disk.on_fatal,
        on_migrated=on_migrated,
    )


def restore_storage(
    config: Config, world: World, source: Path, tell: Tell, *, leave_out_damaged: bool = False
) -> Restored:
    """Return to a backup (a folder) or to a snapshot (a file). The caller keeps `serve` away. Raises StorageError."""
    from posthouse.storage.filesystem import RealFileSystem
    from posthouse.storage.sqlite.restore import restore_backup, restore_snapshot

    data_dir, now, disk = config.data_dir, world.clock.now(), RealFileSystem()
    if not source.is_dir():
        return restore_snapshot(source, data_dir, now=now, disk=disk, tell=tell)
    return restore_backup(source, data_dir, now=now, disk=disk, tell=tell, leave_out_damaged=leave_out_damaged)
