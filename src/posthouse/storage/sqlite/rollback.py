"""Going back to the schema before the last migration, with all the mail that came since.

The way back is SQL (`migrations/back/`), run in one transaction after a snapshot, as the migration was: whenever the
process dies, the database is of one schema or of the other. The older program finds its own tables, with today's rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TypeAlias

import apsw

from posthouse.mail.words import count, duration, moment
from posthouse.storage.errors import NoWayBack, StorageBusy, StorageDamaged
from posthouse.storage.filesystem import FileSystem
from posthouse.storage.sqlite.changes_of_schema import row_counts
from posthouse.storage.sqlite.claims import MARKS_SINCE_SCHEMA, OF_ANYBODY, free
from posthouse.storage.sqlite.connection import DATABASE, row, rows
from posthouse.storage.sqlite.copying import counts_of, told_about
from posthouse.storage.sqlite.migrate import (
    Migrations,
    after_snapshot,
    alone,
    change_schema,
    migrations,
    newer,
    schema_of,
)
from posthouse.storage.sqlite.orders import do_all
from posthouse.storage.sqlite.schema import opened_as_it_is
from posthouse.storage.sqlite.snapshots import KEPT_S, snapshots
from posthouse.storage.upkeep import Progress, RolledBack, Tell

WaysBack: TypeAlias = Mapping[int, str]
"""SQL by the number of the migration that it undoes."""

"""How long after a migration one may go back."""
_NOT_KEPT = frozenset({"migrations"})


def ways_back() -> WaysBack:
    """Those that are packaged: each undoes the migration whose file has the same name."""
    folder = resources.files("posthouse.storage.sqlite") / "migrations" / "back"
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return {int(file.name[:4]): file.read_text("utf-8") for file in files}


def roll_back(
    data_dir: Path,
    *,
    now: float,
    disk: FileSystem,
    tell: Tell,
    vfs: str | None = None,
    known: Migrations | None = None,
    ways: WaysBack | None = None,
) -> RolledBack:
    """Undo the last migration. The caller keeps `serve` away. Raises StorageError, nothing changed."""
    path, known = data_dir / DATABASE, known or migrations()
    with (
        told_about("the way back could not be gone", data_dir),
        opened_as_it_is(path, vfs=vfs) as connection,
        alone(data_dir),
    ):
        schema = schema_of(connection)
        before, migrated_at = _last_migration(connection, path, schema, known, now)
        steps = _steps([number for number, _ in known if number > before], ways or ways_back(), path)
        left_out: list[str] = []
        held = _held(connection)
        _end_claims(connection, schema, now)
        do_all(connection, schema)

        def change(seen: int) -> bool:
            tell(Progress("way back", 0, 0))
            return change_schema(
                connection,
                schema,
                before,
                lambda: left_out.extend(_undo(connection, steps, before)),
                unchanged_since=seen,
            )

        snapshot = after_snapshot(connection, path, change, vfs=vfs, file_system=disk, now=now, tell=tell)
        if snapshot is None:
            raise StorageBusy(f"{path}: another process changed the database meanwhile; end it, and try again")
        return RolledBack(
            before=schema,
            after=before,
            migrated_at=migrated_at,
            snapshot=snapshot,
            left_out=tuple(left_out),
            held=_held(connection) - held,
            counts=counts_of(connection),
        )


def _last_migration(
    connection: apsw.Connection, path: Path, schema: int, known: Migrations, now: float
) -> tuple[int, float]:
    """(schema before, when) of the migration that brought this version. Raises where there is no way back."""
    newest = known[-1][0]
    if schema > newest:
        raise StorageDamaged(newer(connection, path, schema, newest))
    if schema < newest:
        raise NoWayBack(
            f"{path}: of schema {schema}, which is older than this version's ({newest}): there is nothing to go back "
            "from; install the older version, or run: posthouse upgrade"
        )
    # (Older than the table of migrations is no schema that a program with this command has.)
    applied = rows(connection, "SELECT number, applied_at FROM migrations ORDER BY number")
    together = [number for number, at in applied if at == applied[-1][1]] if applied else []
    if not together or applied[-1][0] != schema or together[0] == 1:
        raise NoWayBack(
            f"{path}: never upgraded, of schema {schema} from the beginning, so there is nothing to go back to; "
            "an older version that knows this schema opens it as it is, and a backup is restored with: "
            "posthouse restore DIR"
        )
    migrated_at = applied[-1][1]
    before = max((number for number, _ in known if number < together[0]), default=1)
    if now - migrated_at > KEPT_S:
        raise NoWayBack(_too_late(path, migrated_at, now, before))
    return before, migrated_at


def _too_late(path: Path, migrated_at: float, now: float, before: int) -> str:
    found = [snapshot for schema, snapshot in snapshots(path.parent) if schema == before]
    instead = f", or lose what came since: posthouse restore {found[-1]}" if found else ""
    return (
        f"{path}: upgraded on {moment(migrated_at)}, {duration(now - migrated_at)} ago; one can go back within "
        f"{duration(KEPT_S)}: stay with this version{instead}"
    )


def _steps(numbers: list[int], ways: WaysBack, path: Path) -> list[str]:
    """SQL, the last migration's first."""
    for number in numbers:
        if number not in ways:
            raise NoWayBack(f"{path}: migration {number} cannot be undone; stay with this version")
    return [ways[number] for number in sorted(numbers, reverse=True)]


def _end_claims(connection: apsw.Connection, schema: int, now: float) -> None:
    """As this version does it after a crash: the older one would not know what may have been sent already."""
    if schema >= MARKS_SINCE_SCHEMA:
        with connection:
            while free(connection, OF_ANYBODY, (), now):
                pass


def _held(connection: apsw.Connection) -> int:
    number: int = row(connection, "SELECT count(*) FROM spool WHERE held <> 0")[0]
    return number


def _undo(connection: apsw.Connection, steps: list[str], before: int) -> list[str]:
    """Run the steps in the transaction that is open; what was left out, in words."""
    there = row_counts(connection)
    for sql in steps:
        connection.execute(sql)
    left = row_counts(connection)
    if "migrations" in left:
        connection.execute("DELETE FROM migrations WHERE number > ?", (before,))
    verdict = row(connection, "PRAGMA integrity_check(1)")[0]
    if verdict != "ok":
        raise StorageDamaged(f"the database is damaged ({verdict}); run: posthouse check --store")
    lost = {table: rows_ - left.get(table, 0) for table, rows_ in there.items() if table not in _NOT_KEPT}
    return [f"{count(number, 'row', 'rows')} of {table}" for table, number in sorted(lost.items()) if number > 0]
