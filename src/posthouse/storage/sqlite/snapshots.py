"""Copies of the database alone: how much room one needs, how it gets its name, what it is called."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import apsw

from posthouse.mail.words import size
from posthouse.storage.errors import StorageFull
from posthouse.storage.filesystem import FileSystem
from posthouse.storage.sqlite.connection import open_writable
from posthouse.storage.upkeep import Progress, Tell, tell_nobody

SPARE_OCTETS = 16 * 1024 * 1024
"""Room that must be left beside the snapshot, for the migration's own writes."""
KEPT_S = 7 * 24 * 3600.0
"""So long an upgrade can be undone; then nobody remembers what came since, and its snapshot goes."""
_AT = "%Y%m%dT%H%M%SZ"
_SNAPSHOT = "posthouse-schema-{schema}-{at}.snapshot"
_PARTIAL = "posthouse-snapshot.partial"


def snapshot_path(data_dir: Path, schema: int, now: float) -> Path:
    """The name of a snapshot that is taken now."""
    at = datetime.fromtimestamp(now, UTC).strftime(_AT)
    return data_dir / _SNAPSHOT.format(schema=schema, at=at)


def snapshots(data_dir: Path) -> list[tuple[int, Path]]:
    """(schema, file) of each snapshot that is there, the oldest first."""
    found = sorted(data_dir.glob(_SNAPSHOT.format(schema="[0-9]*", at="*")), key=lambda one: one.name[-25:])
    return [(int(one.name.split("-")[2]), one) for one in found]


def old_snapshots(data_dir: Path, now: float) -> list[Path]:
    """Those that were taken longer than KEPT_S ago, by their names: a copied file has the time of its copy."""
    found = []
    for _schema, path in snapshots(data_dir):
        try:
            taken = datetime.strptime(path.stem.rpartition("-")[2], _AT).replace(tzinfo=UTC)
        except ValueError:
            # Not a name of ours.
            continue
        if now - taken.timestamp() > KEPT_S:
            found.append(path)
    return found


def room_needed(connection: apsw.Connection) -> int:
    """Octets that a copy of the database needs, and the migration's own writes beside it."""
    pages, free_pages, page_octets = (
        int(str(connection.pragma(name))) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free_pages) * page_octets + SPARE_OCTETS


def require_room(connection: apsw.Connection, path: Path, file_system: FileSystem, *, what: str) -> None:
    """Raises StorageFull where a copy of the database has no room beside it."""
    needed, free = room_needed(connection), file_system.free_octets(path.parent)
    if free < needed:
        raise StorageFull(
            f"{path}: {what} needs {size(needed)} and {size(free)} are free; nothing was changed: make room in "
            f"{path.parent}, and start again"
        )


def write_snapshot(
    path: Path, snapshot: Path, *, vfs: str | None, file_system: FileSystem, tell: Tell = tell_nobody
) -> None:
    """A copy of the database at one moment, durable under its final name or not there at all."""
    partial = snapshot.parent / _PARTIAL
    file_system.remove(partial)
    try:
        vacuum_into(
            path, partial, vfs=vfs, file_system=file_system, tick=told_of_copy(path, partial, file_system, tell)
        )
        file_system.rename(partial, snapshot)
        file_system.sync_folder(snapshot.parent)
    except apsw.FullError as exc:
        raise StorageFull(f"{snapshot}: the disk is full; nothing was changed: make room, and start again") from exc
    finally:
        file_system.remove(partial)


def told_of_copy(path: Path, target: Path, file_system: FileSystem, tell: Tell) -> Callable[[], bool]:
    """What to call now and then while the database is copied."""
    total = file_system.size_octets(path)
    tell(Progress("copy of the database", 0, total))

    def tick() -> bool:
        tell(Progress("copy of the database", min(file_system.size_octets(target), total), total))
        return False

    return tick


def vacuum_into(
    path: Path, target: Path, *, vfs: str | None, file_system: FileSystem, tick: Callable[[], bool] | None = None
) -> None:
    """Copy the database into a file that was not there, mode 0600, and sync it; its name is the caller's to sync.

    `tick` is called now and then meanwhile; True ends it (InterruptError).
    """
    file_system.close(file_system.create(target))
    # A connection of its own: one that only reads may not do this, and the writer's must not be kept.
    connection = open_writable(path, vfs=vfs)
    try:
        if tick is not None:
            connection.set_progress_handler(tick, 10_000)
        connection.execute("VACUUM INTO ?", (os.fspath(target),))
    finally:
        connection.close(True)
    file_system.sync_file(target)
