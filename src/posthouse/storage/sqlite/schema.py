"""Creating the database, bringing it to this version, and refusing one that is damaged or not ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from posthouse.storage.errors import StorageDamaged
from posthouse.storage.filesystem import FileSystem
from posthouse.storage.sqlite.connection import APPLICATION_ID, DATABASE, check_library, open_writable, row, rows
from posthouse.storage.sqlite.copying import counts_of, told_about
from posthouse.storage.sqlite.journey_index import WORDS
from posthouse.storage.sqlite.mail_index import LETTER_WORDS
from posthouse.storage.sqlite.migrate import Migrations, OnMigrated, bring_up, migrations
from posthouse.storage.upkeep import Counts, Migrated, Tell, tell_nobody

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
    tell: Tell = tell_nobody,
) -> apsw.Connection:
    """The writer's connection to a database of this version.

    Raises StorageDamaged, StorageOutdated or StorageFull with one clear line. `on_migrated` allows to migrate.
    """
    check_library()
    if create and vfs is None:
        _create_private(path)
    with _in_words(path):
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
                tell=tell,
            )
            _check_structure(connection, path)
            check_whole(connection, path)
        except BaseException:
            connection.close(True)
            raise
    if create:
        file_system.sync_folder(path.parent)
    return connection


def upgrade(data_dir: Path, *, now: float, disk: FileSystem, tell: Tell) -> tuple[Migrated | None, Counts]:
    """Migrate, where there is something to do, and nothing else. Raises StorageError, nothing changed."""
    done: list[Migrated] = []
    with told_about("the upgrade failed", data_dir):
        connection = open_database(
            data_dir / DATABASE,
            vfs=None,
            create=False,
            file_system=disk,
            now=now,
            on_migrated=done.append,
            tell=tell,
        )
        try:
            return (done[0] if done else None), counts_of(connection)
        finally:
            connection.close(True)


@contextmanager
def opened_as_it_is(path: Path, *, vfs: str | None) -> Iterator[apsw.Connection]:
    """A connection that may write to a database of ours, of whatever schema. Raises StorageDamaged."""
    check_library()
    with _in_words(path):
        connection = open_writable(path, vfs=vfs)
        try:
            _check_ours(connection, path, may_be_empty=False)
            yield connection
        finally:
            connection.close(True)


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """What SQLite says of a file that cannot be used, and what to do."""
    try:
        yield
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
        verdicts = [verdict for (verdict,) in rows(connection, "PRAGMA quick_check(10)")]
        for verdict in verdicts:
            # What is found by words keeps nobody from their mail; `check --store --mend` writes it again.
            if verdict != "ok" and WORDS not in verdict and LETTER_WORDS not in verdict:
                raise _damaged(path, verdict)
        return
    tables = rows(connection, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    for (table,) in tables:
        # (A virtual table has no key; those that it is kept in have.)
        for (key,) in rows(connection, "SELECT name FROM pragma_table_info(?) WHERE pk = 1", (table,)):
            for order in ("ASC", "DESC"):
                rows(connection, f'SELECT * FROM "{table}" ORDER BY "{key}" {order} LIMIT 1')


def check_whole(connection: apsw.Connection, path: Path) -> None:
    """A database that was copied without the folder of its content files is half of a house."""
    if (path.parent / "content").is_dir():
        return
    if row(connection, "SELECT 1 FROM contents WHERE file IS NOT NULL LIMIT 1") is not None:
        raise StorageDamaged(
            f"{path.parent} is half of a house: its folder content/ with the large messages is missing; copy that too "
            "(with the house ended), or run: posthouse restore DIR"
        )


def _damaged(path: Path, what: str) -> StorageDamaged:
    line = " ".join(what.split())
    return StorageDamaged(f"{path}: the database is damaged ({line}); run: posthouse restore DIR")
