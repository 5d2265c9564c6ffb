"""Trying a migration on a copy of the database, beside a house of the older version that may serve meanwhile.

The copy lies in a folder of its own in the data folder, so that it is as private as the database and on the same
disk; it is gone afterwards, and if the process was killed, with the next trial.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from posthouse.mail.words import count
from posthouse.storage.errors import StorageBusy, StorageDamaged, StorageError
from posthouse.storage.filesystem import FileSystem
from posthouse.storage.sqlite.changes_of_schema import differences, shape_of
from posthouse.storage.sqlite.connection import DATABASE, open_writable, row, rows
from posthouse.storage.sqlite.content import SqliteContent
from posthouse.storage.sqlite.copying import told_about
from posthouse.storage.sqlite.integrity import Inspector
from posthouse.storage.sqlite.migrate import CommitFailed, Migrations, apply, migrations, newer, schema_of
from posthouse.storage.sqlite.schema import check_whole, opened_as_it_is
from posthouse.storage.sqlite.snapshots import require_room, room_needed, told_of_copy, vacuum_into
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.upkeep import Flaw, Progress, Tell, Trial

_WORK = ".upgrade-check-"
_PAGE = 500
_NOBODY = ""
_FILES = (
    "SELECT content, file, size_octets FROM contents WHERE file IS NOT NULL AND content > ? ORDER BY content LIMIT ?"
)


async def try_migration(
    data_dir: Path,
    *,
    now: float,
    disk: FileSystem,
    tell: Tell,
    known: Migrations | None = None,
    seconds: Callable[[], float] = time.monotonic,
) -> Trial:
    """What the migration would do, and how long it would take. Raises StorageError where it would fail."""
    path, known = data_dir / DATABASE, known or migrations()
    with told_about("the upgrade could not be tried", data_dir):
        with opened_as_it_is(path, vfs=None) as connection:
            schema, newest = schema_of(connection), known[-1][0]
            if schema > newest:
                raise StorageDamaged(newer(connection, path, schema, newest))
            check_whole(connection, path)
            if schema == newest:
                return Trial(before=schema, after=newest)
            require_room(connection, path, disk, what="trying the upgrade on a copy")
            needed_octets = room_needed(connection)
        with work_folder(data_dir) as work:
            copy = work / DATABASE
            started = seconds()
            vacuum_into(path, copy, vfs=None, file_system=disk, tick=told_of_copy(path, copy, disk, tell))
            copied = seconds()
            changes, log_octets = _migrate(copy, known, schema, now, tell)
            migrated = seconds()
            flaws = [*_missing_files(path, copy, disk, tell), *await _flaws(data_dir, copy, disk, tell)]
            return Trial(
                before=schema,
                after=newest,
                changes=changes,
                flaws=tuple(flaws),
                copy_s=copied - started,
                migration_s=migrated - copied,
                check_s=seconds() - migrated,
                needed_octets=needed_octets + log_octets,
                free_octets=disk.free_octets(data_dir) + disk.size_octets(copy),
            )


@contextmanager
def work_folder(data_dir: Path) -> Iterator[Path]:
    """A folder that is gone afterwards; so are those of trials that died. It is locked while its trial lives."""
    for ruin in data_dir.glob(f"{_WORK}*"):
        _remove_ruin(ruin)
    work = data_dir / f"{_WORK}{os.getpid()}"
    work.mkdir(mode=0o700)
    descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(descriptor)


def _remove_ruin(ruin: Path) -> None:
    try:
        descriptor = os.open(ruin, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(ruin, ignore_errors=True)
    except BlockingIOError:
        # Its trial is under way.
        return
    finally:
        os.close(descriptor)


def _migrate(copy: Path, known: Migrations, schema: int, now: float, tell: Tell) -> tuple[tuple[str, ...], int]:
    """(What changed, octets of the log that it wrote)."""

    def tick() -> bool:
        tell(Progress("migration", 0, 0))
        return False

    connection = open_writable(copy, vfs=None)
    try:
        connection.set_progress_handler(tick, 100_000)
        before = shape_of(connection)
        if not apply(connection, known, schema, now, unchanged_since=None):
            raise StorageBusy(f"{copy}: somebody else changed it; try again")
        log_octets = copy.with_name(f"{DATABASE}-wal").stat().st_size
        return differences(before, shape_of(connection)), log_octets
    except CommitFailed as exc:
        raise exc.error from exc
    except apsw.SQLError as exc:
        raise StorageDamaged(
            f"the migration of {copy.parent.parent / DATABASE} would fail ({exc}), and nothing would be changed; "
            "stay with the older version"
        ) from exc
    finally:
        connection.close(True)


def _missing_files(path: Path, copy: Path, disk: FileSystem, tell: Tell) -> list[Flaw]:
    """Content files that the database names and that are not there: the folder was not copied whole."""
    missing, total, last = [], 0, 0
    connection = apsw.Connection(os.fspath(copy), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        while page := rows(connection, _FILES, (last, _PAGE)):
            tell(Progress("content files", total, 0))
            for last, file, size_octets in page:
                total += 1
                if not _is_there(path.parent / "content" / file, size_octets, disk):
                    missing.append(last)
    finally:
        connection.close()
    with opened_as_it_is(path, vfs=None) as now_there:
        # The house serves meanwhile: what was deleted since the copy is no loss.
        gone = [
            one for one in missing if row(now_there, "SELECT 1 FROM contents WHERE content = ?", (one,)) is not None
        ]
    if not gone:
        return []
    what = (
        f"{count(len(gone), 'content file', 'content files')} of {total} missing or cut short in {path.parent}/content"
    )
    return [Flaw(check="files", what=what, mend="was the folder copied whole? See: posthouse check --store")]


def _is_there(file: Path, size_octets: int, disk: FileSystem) -> bool:
    try:
        return disk.size_octets(file) == size_octets
    except OSError:
        return False


async def _flaws(data_dir: Path, copy: Path, disk: FileSystem, tell: Tell) -> list[Flaw]:
    """What is wrong with the rows of the copy."""
    readers = Readers(copy, vfs=None, threaded=False)
    try:
        inspector = Inspector(readers, SqliteContent(data_dir / "content", _NOBODY, disk, readers), _NOBODY, tell)
        return [flaw async for flaw in inspector.flaws(rows_only=True) if not flaw.note]
    except apsw.Error as exc:
        raise StorageError(str(exc)) from exc
    finally:
        await readers.close()
