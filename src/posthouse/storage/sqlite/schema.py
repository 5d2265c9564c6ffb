"""Creating the database, bringing it to this version, and refusing one that is damaged or not ours."""

from __future__ import annotations

import os
from pathlib import Path

import apsw

from posthouse.storage.errors import StorageDamaged
from posthouse.storage.filesystem import FileSystem
from posthouse.storage.sqlite.connection import APPLICATION_ID, check_library, open_writable, row, rows
from posthouse.storage.sqlite.migrate import Migrations, OnMigrated, bring_up, migrations

QUICK_CHECK_OCTETS = 16 * 1024 * 1024
"""Up to this size every page is checked when opening; above it, only the ends of each table."""


def open_database(
    path: Path,
    *,
    vfs: str | None,
    create: bool,
    file_system: FileSystem,
    now: float,
    on_migrated: OnMigrated | None = None,
    known: Migrations | None = None,
) -> apsw.Connection:
    """The writer's connection to a database of this version.

    Raises StorageDamaged, StorageOutdated or StorageFull with one clear line. `on_migrated` allows to migrate.
    """
    check_library()
    if create and vfs is None:
        _create_private(path)
    try:
        connection = open_writable(path, vfs=vfs, create=create)
        try:
            _check_ours(connection, path, may_be_empty=create)
            bring_up(
                connection,
                path,
                known=known or migrations(),
                vfs=vfs,
                file_system=file_system,
                now=now,
                on_migrated=on_migrated,
            )
            _check_structure(connection, path)
        except BaseException:
            connection.close(True)
            raise
    except apsw.CantOpenError as exc:
        raise StorageDamaged(
            f"{path}: there is no database that can be opened; run: posthouse restore DIR, "
            "or make a new house in an empty folder: posthouse init DIR"
        ) from exc
    except apsw.NotADBError as exc:
        raise StorageDamaged(
            f"{path}: this file is not a database; move it away and run: posthouse restore DIR"
        ) from exc
    except apsw.CorruptError as exc:
        raise _damaged(path, str(exc)) from exc
    if create:
        file_system.sync_folder(path.parent)
    return connection


def _create_private(path: Path) -> None:
    # SQLite gives its -wal and -shm files the mode of the database file.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def _check_ours(connection: apsw.Connection, path: Path, *, may_be_empty: bool) -> None:
    application_id = connection.pragma("application_id")
    if application_id == APPLICATION_ID:
        return
    empty = application_id == 0 and row(connection, "SELECT count(*) FROM sqlite_schema")[0] == 0
    if not empty:
        raise StorageDamaged(f"{path}: this database belongs to another program; set data_dir to another folder")
    if not may_be_empty:
        raise StorageDamaged(f"{path}: the database is empty; run: posthouse init, or: posthouse restore DIR")


def _check_structure(connection: apsw.Connection, path: Path) -> None:
    octets = row(connection, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")[0]
    if octets <= QUICK_CHECK_OCTETS:
        verdict = row(connection, "PRAGMA quick_check(1)")[0]
        if verdict != "ok":
            raise _damaged(path, verdict)
        return
    tables = rows(connection, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    for (table,) in tables:
        key = rows(connection, "SELECT name FROM pragma_table_info(?) WHERE pk = 1", (table,))[0][0]
        for order in ("ASC", "DESC"):
            rows(connection, f'SELECT * FROM "{table}" ORDER BY "{key}" {order} LIMIT 1')


def _damaged(path: Path, what: str) -> StorageDamaged:
    line = " ".join(what.split())
    return StorageDamaged(f"{path}: the database is damaged ({line}); run: posthouse restore DIR")
