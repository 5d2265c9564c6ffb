"""Bringing a database to this version's schema: a snapshot first, then all migrations in one transaction.

A database of a newer schema is refused; the message names the version that reads it, since each migration writes into
the table `migrations` which program applied it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TypeAlias

import apsw

from posthouse import __version__
from posthouse.mail.words import size
from posthouse.storage.errors import StorageBusy, StorageDamaged, StorageFull, StorageOutdated
from posthouse.storage.filesystem import FileSystem
from posthouse.storage.sqlite.connection import APPLICATION_ID, open_writable, row, rows
from posthouse.storage.upkeep import Migrated

Migrations: TypeAlias = tuple[tuple[int, str], ...]
OnMigrated: TypeAlias = Callable[[Migrated], None]

SPARE_OCTETS = 16 * 1024 * 1024
"""Room that must be left beside the snapshot, for the migration's own writes."""
_SNAPSHOT = "posthouse-schema-{schema}-{at}.snapshot"
_PARTIAL = "posthouse-snapshot.partial"
_LOCK = "migrate.lock"
_TRIES = 5


def migrations() -> Migrations:
    """(number, SQL) of each packaged migration, in order."""
    folder = resources.files("posthouse.storage.sqlite") / "migrations"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return tuple((int(file.name[:4]), file.read_text("utf-8")) for file in files)


def bring_up(
    connection: apsw.Connection,
    path: Path,
    *,
    known: Migrations,
    vfs: str | None,
    file_system: FileSystem,
    now: float,
    on_migrated: OnMigrated | None,
) -> None:
    """Make it a database of the newest known schema.

    Raises StorageDamaged for a newer one; StorageOutdated for an older one where `on_migrated` is None; StorageFull
    where the snapshot has no room. A database that is refused is as it was.
    """
    newest = known[-1][0]
    for _ in range(_TRIES):
        schema = _schema(connection)
        if schema > newest:
            raise StorageDamaged(newer(connection, path, schema, newest))
        if schema == newest:
            return
        if not schema:
            if _apply(connection, known, schema, now, unchanged_since=None):
                return
            continue
        if on_migrated is None:
            raise StorageOutdated(
                f"{path}: made by an older posthouse (schema {schema}; this version needs {newest}); "
                "bring it up with: posthouse migrate (or start posthouse serve)"
            )
        with _alone(path.parent):
            # (Workers of one house start together; who waited here finds it done.)
            if _schema(connection) != schema:
                continue
            snapshot = _migrate(connection, path, known, schema, vfs, file_system, now)
        if snapshot is not None:
            on_migrated(Migrated(path=path, before=schema, after=newest, snapshot=snapshot))
            return
    raise StorageBusy(f"{path}: another process kept changing the database; end it, and try again")


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """One process migrates; others wait here."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(data_dir / _LOCK, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def newer(connection: apsw.Connection, path: Path, schema: int, newest: int) -> str:
    """The line that refuses a newer database."""
    applied = None
    if row(connection, "SELECT 1 FROM sqlite_schema WHERE name = 'migrations'") is not None:
        applied = row(connection, "SELECT posthouse FROM migrations WHERE number = ?", (schema,))
    program = f"posthouse {applied[0]}" if applied is not None else "that one"
    snapshots = sorted(path.parent.glob(_SNAPSHOT.format(schema="[0-9]*", at="*")), key=lambda one: one.name[-25:])
    readable = [one for one in snapshots if int(one.name.split("-")[2]) <= newest]
    back = f", or go back to before the migration with: posthouse restore {readable[-1]}" if readable else ""
    return (
        f"{path}: written by a newer version (schema {schema}); this is posthouse {__version__}, which reads up to "
        f"schema {newest}; install {program}{back}"
    )


def _schema(connection: apsw.Connection) -> int:
    schema = connection.pragma("user_version")
    assert isinstance(schema, int)
    return schema


def _migrate(
    connection: apsw.Connection,
    path: Path,
    known: Migrations,
    schema: int,
    vfs: str | None,
    file_system: FileSystem,
    now: float,
) -> Path | None:
    """The snapshot, once the migrations are committed; None, with nothing changed, when another process wrote."""
    seen = connection.pragma("data_version")
    assert isinstance(seen, int)
    at = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    snapshot = path.parent / _SNAPSHOT.format(schema=schema, at=at)
    _require_room(connection, path, file_system)
    write_snapshot(path, snapshot, vfs=vfs, file_system=file_system)
    try:
        applied = _apply(connection, known, schema, now, unchanged_since=seen)
    except _CommitFailed as exc:
        # Nobody knows whether the migration will be there after a restart: the snapshot stays.
        raise exc.error from exc
    except BaseException:
        file_system.remove(snapshot)
        raise
    if not applied:
        file_system.remove(snapshot)
        return None
    return snapshot


def _require_room(connection: apsw.Connection, path: Path, file_system: FileSystem) -> None:
    pages, free_pages, page_octets = (
        int(str(connection.pragma(name))) for name in ("page_count", "freelist_count", "page_size")
    )
    needed = (pages - free_pages) * page_octets + SPARE_OCTETS
    free = file_system.free_octets(path.parent)
    if free < needed:
        raise StorageFull(
            f"{path}: the snapshot that precedes a migration needs {size(needed)} and {size(free)} are free; nothing "
            f"was changed: make room in {path.parent}, and start again"
        )


def write_snapshot(path: Path, snapshot: Path, *, vfs: str | None, file_system: FileSystem) -> None:
    """A copy of the database at one moment, durable under its final name or not there at all."""
    partial = snapshot.parent / _PARTIAL
    file_system.remove(partial)
    try:
        vacuum_into(path, partial, vfs=vfs, file_system=file_system)
        file_system.rename(partial, snapshot)
        file_system.sync_folder(snapshot.parent)
    except apsw.FullError as exc:
        raise StorageFull(f"{snapshot}: the disk is full; nothing was changed: make room, and start again") from exc
    finally:
        file_system.remove(partial)


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


class _CommitFailed(Exception):
    """COMMIT failed: whether the transaction is there after a restart is not known."""

    def __init__(self, error: apsw.Error) -> None:
        super().__init__(str(error))
        self.error = error


def _apply(
    connection: apsw.Connection, known: Migrations, schema: int, now: float, *, unchanged_since: int | None
) -> bool:
    """All migrations above `schema` in one transaction; False when another process was faster, or wrote since."""
    # Rebuilding a table that others refer to needs this off, and it cannot be set inside a transaction.
    connection.execute("PRAGMA foreign_keys=OFF")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _schema(connection) != schema or unchanged_since not in (None, connection.pragma("data_version")):
            connection.execute("ROLLBACK")
            return False
        todo = [(number, sql) for number, sql in known if number > schema]
        for _, sql in todo:
            connection.execute(sql)
        broken = rows(connection, "PRAGMA foreign_key_check")
        if broken:
            raise StorageDamaged(f"the migration would leave {len(broken)} rows that refer to nothing ({broken[0]})")
        _note(connection, [number for number, _ in todo], now)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={known[-1][0]}")
        _commit(connection)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute("PRAGMA foreign_keys=ON")
    return True


def _commit(connection: apsw.Connection) -> None:
    try:
        connection.execute("COMMIT")
    except apsw.Error as exc:
        raise _CommitFailed(exc) from exc


def _note(connection: apsw.Connection, numbers: list[int], now: float) -> None:
    if row(connection, "SELECT 1 FROM sqlite_schema WHERE name = 'migrations'") is None:
        return
    applied = [(number, __version__, now) for number in numbers]
    connection.executemany("INSERT INTO migrations VALUES (?, ?, ?)", applied)
