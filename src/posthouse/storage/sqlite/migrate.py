"""Bringing a database to this version's schema: a snapshot first, then all migrations in one transaction.

A database of a newer schema is refused; the message names the version that reads it, since each migration writes into
the table `migrations` which program applied it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TypeAlias

import apsw

from posthouse import __version__
from posthouse.storage.errors import StorageBusy, StorageDamaged, StorageOutdated
from posthouse.storage.filesystem import FileSystem
from posthouse.storage.sqlite.connection import APPLICATION_ID, row, rows
from posthouse.storage.sqlite.holdings import Digests, digests_of
from posthouse.storage.sqlite.journey_index import index_old_journeys
from posthouse.storage.sqlite.snapshots import require_room, snapshot_path, snapshots, write_snapshot
from posthouse.storage.upkeep import Migrated, Progress, Tell, tell_nobody

Migrations: TypeAlias = tuple[tuple[int, str], ...]
OnMigrated: TypeAlias = Callable[[Migrated], None]

_LOCK = "migrate.lock"
_TRIES = 5
_FILLS: dict[int, Callable[[apsw.Connection], None]] = {8: index_old_journeys}
"""What follows a migration's SQL in the same transaction, where SQL alone cannot say it."""


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
    tell: Tell = tell_nobody,
) -> None:
    """Make it a database of the newest known schema.

    Raises StorageDamaged for a newer one; StorageOutdated for an older one where `on_migrated` is None; StorageFull
    where the snapshot has no room. A database that is refused is as it was.
    """
    newest = known[-1][0]
    for _ in range(_TRIES):
        schema = schema_of(connection)
        if schema > newest:
            raise StorageDamaged(newer(connection, path, schema, newest))
        if schema == newest:
            return
        if not schema:
            if apply(connection, known, schema, now, unchanged_since=None):
                return
            continue
        if on_migrated is None:
            raise StorageOutdated(
                f"{path}: made by an older posthouse (schema {schema}; this version needs {newest}); "
                "bring it up with: posthouse upgrade (or start posthouse serve)"
            )
        with alone(path.parent):
            # (Workers of one house start together; who waited here finds it done.)
            if schema_of(connection) != schema:
                continue
            snapshot = _migrate(connection, path, known, schema, vfs, file_system, now, tell)
        if snapshot is not None:
            on_migrated(Migrated(path=path, before=schema, after=newest, snapshot=snapshot))
            return
    raise StorageBusy(f"{path}: another process kept changing the database; end it, and try again")


@contextmanager
def alone(data_dir: Path) -> Iterator[None]:
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
    readable = [snapshot for of, snapshot in snapshots(path.parent) if of <= newest]
    back = f", or lose what came since: posthouse restore {readable[-1]}" if readable else ""
    return (
        f"{path}: written by a newer version (schema {schema}); this is posthouse {__version__}, which reads up to "
        f"schema {newest}; install {program} (to come back here, run with it: posthouse rollback){back}"
    )


def schema_of(connection: apsw.Connection) -> int:
    """The number of the last migration applied; 0 for an empty database."""
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
    tell: Tell,
) -> Path | None:
    """The snapshot, once the migrations are committed; None, with nothing changed, when another process wrote."""

    def change(seen: int) -> bool:
        tell(Progress("migration", 0, 0))
        return apply(connection, known, schema, now, unchanged_since=seen)

    return after_snapshot(connection, path, change, vfs=vfs, file_system=file_system, now=now, tell=tell)


def after_snapshot(
    connection: apsw.Connection,
    path: Path,
    change: Callable[[int], bool],
    *,
    vfs: str | None,
    file_system: FileSystem,
    now: float,
    tell: Tell,
) -> Path | None:
    """Take a snapshot, then call `change` with the data version that it shows; the snapshot, or None when it refused.

    The snapshot goes where nothing was changed.
    """
    seen = connection.pragma("data_version")
    assert isinstance(seen, int)
    snapshot = snapshot_path(path.parent, schema_of(connection), now)
    require_room(connection, path, file_system, what="the snapshot that precedes a migration")
    write_snapshot(path, snapshot, vfs=vfs, file_system=file_system, tell=tell)
    try:
        changed = change(seen)
    except CommitFailed as exc:
        # Nobody knows whether the change will be there after a restart: the snapshot stays.
        raise exc.error from exc
    except BaseException:
        file_system.remove(snapshot)
        raise
    if not changed:
        file_system.remove(snapshot)
        return None
    return snapshot


class CommitFailed(Exception):
    """COMMIT failed: whether the transaction is there after a restart is not known."""

    def __init__(self, error: apsw.Error) -> None:
        super().__init__(str(error))
        self.error = error


def apply(
    connection: apsw.Connection, known: Migrations, schema: int, now: float, *, unchanged_since: int | None
) -> bool:
    """All migrations above `schema` in one transaction; False when another process was faster, or wrote since."""
    todo = [(number, sql) for number, sql in known if number > schema]

    def change() -> None:
        for number, sql in todo:
            connection.execute(sql)
            if number in _FILLS:
                _FILLS[number](connection)
        note(connection, [number for number, _ in todo], now)

    return change_schema(connection, schema, known[-1][0], change, unchanged_since=unchanged_since)


def change_schema(
    connection: apsw.Connection, before: int, after: int, change: Callable[[], None], *, unchanged_since: int | None
) -> bool:
    """Change the schema in one transaction; False, with nothing changed, when it was not `before` or somebody wrote.

    Raises StorageDamaged, with nothing changed, where the mail would not be the same; CommitFailed.
    """
    # Rebuilding a table that others refer to needs this off, and it cannot be set inside a transaction.
    connection.execute("PRAGMA foreign_keys=OFF")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if schema_of(connection) != before or unchanged_since not in (None, connection.pragma("data_version")):
            connection.execute("ROLLBACK")
            return False
        mail = digests_of(connection) if before else None
        change()
        broken = rows(connection, "PRAGMA foreign_key_check")
        if broken:
            raise StorageDamaged(f"the migration would leave {len(broken)} rows that refer to nothing ({broken[0]})")
        if mail is not None:
            _require_same(mail, digests_of(connection))
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={after}")
        _commit(connection)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute("PRAGMA foreign_keys=ON")
    return True


def _require_same(before: Digests, after: Digests) -> None:
    """Whatever a migration does, mail is what it was."""
    changed = sorted(table for table in before if before[table] != after.get(table))
    if changed:
        raise StorageDamaged(
            f"this would change mail (in {', '.join(changed)}), so nothing was changed; it is a fault of this version: "
            "go on with the one that served until now"
        )


def _commit(connection: apsw.Connection) -> None:
    try:
        connection.execute("COMMIT")
    except apsw.Error as exc:
        raise CommitFailed(exc) from exc


def note(connection: apsw.Connection, numbers: list[int], now: float) -> None:
    """Write down which program applied these migrations; before schema 3 there is no place for it."""
    if row(connection, "SELECT 1 FROM sqlite_schema WHERE name = 'migrations'") is None:
        return
    applied = [(number, __version__, now) for number in numbers]
    connection.executemany("INSERT INTO migrations VALUES (?, ?, ?)", applied)
