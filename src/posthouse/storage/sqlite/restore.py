"""Returning to a backup, or to the snapshot that a migration made.

After either the spool is held, since what waited then may have been sent meanwhile, and UID validities are raised,
since UIDs may be given a second time; UIDLs and octets are what they were. The database gets its name last: a restore
that is cut short leaves no house.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw

from posthouse.storage.errors import StorageBusy, StorageDamaged, StoreInTheWay
from posthouse.storage.filesystem import FileSystem
from posthouse.storage.sqlite.claims import MARKS_SINCE_SCHEMA, OF_ANYBODY, free
from posthouse.storage.sqlite.connection import APPLICATION_ID, DATABASE, open_writable, row, rows
from posthouse.storage.sqlite.copying import copy_file, counts_of, read_manifest, told_about
from posthouse.storage.sqlite.migrate import migrations, newer
from posthouse.storage.sqlite.orders import do_all
from posthouse.storage.upkeep import HOUSE, Manifest, Progress, Restored, Tell

HELD_BY_RESTORE = 2
"""In `spool.held`: 1 is what an operator held."""
_STORE_FILES = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm")
_WORK = ".restore-"
_PAGE = 500

_FILES = """
SELECT content, file, size_octets, sha256 FROM contents WHERE file IS NOT NULL AND content > ?
ORDER BY content LIMIT ?"""


def restore_backup(
    backup: Path, data_dir: Path, *, now: float, disk: FileSystem, tell: Tell, leave_out_damaged: bool = False
) -> Restored:
    """Put a backup where there is no store. The caller keeps `serve` away. Raises StorageError, nothing changed.

    `leave_out_damaged`: where content files are missing or damaged, restore all but the messages in them.
    """
    manifest = read_manifest(backup)
    if manifest.schema > (newest := migrations()[-1][0]):
        raise StorageDamaged(
            f"{backup}: made by posthouse {manifest.posthouse} (schema {manifest.schema}; this version reads up to "
            f"{newest}); install posthouse {manifest.posthouse}"
        )
    require_no_store(data_dir)
    with told_about("the backup could not be restored", data_dir), _work_folder(data_dir, disk) as work:
        _copy_database(backup, work, manifest, disk)
        damaged = _copy_content(backup, work, manifest, disk, tell, leave_out=leave_out_damaged)
        with _changed(work / DATABASE, disk) as connection:
            dropped = sum(_drop(connection, content) for content in damaged)
            held = _make_safe(connection, now)
            counts = counts_of(connection)
        _put_house_files(backup, work, data_dir, disk)
        _put_in_place(work, data_dir, disk)
    return Restored(counts=counts, made_at=manifest.made_at, held=held, dropped=dropped)


def restore_snapshot(snapshot: Path, data_dir: Path, *, now: float, disk: FileSystem, tell: Tell) -> Restored:
    """Return to the state before a migration. What is there now is kept in a folder of its own.

    Content that is gone was deleted or delivered since the snapshot: rows that name it are dropped.
    """
    _require_readable(snapshot)
    made_at = snapshot.stat().st_mtime
    with told_about("the snapshot could not be restored", data_dir), _work_folder(data_dir, disk) as work:
        tell(Progress("database", 0, 0))
        copy_file(disk, snapshot, work / DATABASE)
        disk.make_folder(data_dir / "content")
        with _changed(work / DATABASE, disk) as connection:
            dropped = _drop_what_is_gone(connection, data_dir / "content", disk)
            held = _make_safe(connection, now)
            counts = counts_of(connection)
        aside = _set_aside(data_dir, now, disk)
        disk.rename(work / DATABASE, data_dir / DATABASE)
        disk.sync_folder(data_dir)
    return Restored(counts=counts, made_at=made_at, held=held, dropped=dropped, set_aside=aside)


def require_no_store(data_dir: Path) -> None:
    """Raises StoreInTheWay where there is one already, with what to do."""
    there = [name for name in (*_STORE_FILES, "content") if os.path.lexists(data_dir / name)]
    if there:
        raise StoreInTheWay(
            f"{data_dir} holds a store already ({', '.join(there)}); end its house and move the folder away: "
            f"mv {data_dir} {data_dir}.old"
        )


def _require_readable(snapshot: Path) -> None:
    if _log_of(snapshot).exists():
        raise StorageBusy(
            f"{snapshot}: this database is in use, or was not closed: a copy of it would not be all of it"
        )
    try:
        connection = apsw.Connection(str(snapshot), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            if connection.pragma("application_id") != APPLICATION_ID:
                raise StorageDamaged(f"{snapshot}: this is not a database of posthouse")
            schema = connection.pragma("user_version")
            assert isinstance(schema, int)
            if schema > (newest := migrations()[-1][0]):
                raise StorageDamaged(newer(connection, snapshot, schema, newest))
            verdict = row(connection, "PRAGMA quick_check(1)")[0]
            if verdict != "ok":
                raise StorageDamaged(f"{snapshot}: it is damaged ({verdict})")
        finally:
            connection.close()
    except apsw.Error as exc:
        raise StorageDamaged(f"{snapshot}: this is neither a backup nor a snapshot ({exc})") from exc


@contextmanager
def _work_folder(data_dir: Path, disk: FileSystem) -> Iterator[Path]:
    """A folder inside, which is gone afterwards, as are those of restores that died."""
    for ruin in data_dir.glob(f"{_WORK}*"):
        shutil.rmtree(ruin)
    work = data_dir / f"{_WORK}{os.getpid()}"
    disk.make_folder(work)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _copy_database(backup: Path, work: Path, manifest: Manifest, disk: FileSystem) -> None:
    size_octets, digest = copy_file(disk, backup / DATABASE, work / DATABASE)
    if (size_octets, digest.hex()) != (manifest.database_octets, manifest.database_sha256):
        raise StorageDamaged(f"{backup / DATABASE}: it is not what the manifest says; take another backup")


def _copy_content(
    backup: Path, work: Path, manifest: Manifest, disk: FileSystem, tell: Tell, *, leave_out: bool
) -> list[int]:
    """Every content file, compared with its SHA-256 on the way; those to be left out, by number.

    Raises StorageDamaged for the first one that is missing or damaged, unless they are left out.
    """
    damaged: list[int] = []
    total, done, last = manifest.counts.content_files, 0, 0
    content = work / "content"
    disk.make_folder(content)
    folders: set[Path] = set()
    connection = apsw.Connection(str(work / DATABASE), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        while page := rows(connection, _FILES, (last, _PAGE)):
            for last, file, size_octets, sha256 in page:
                place = content / file
                if place.parent not in folders:
                    folders.add(place.parent)
                    disk.make_folder(place.parent)
                problem = _copy_one(backup / "content" / file, place, (size_octets, sha256), disk)
                if problem is not None:
                    if not leave_out:
                        raise StorageDamaged(
                            f"{backup}: content/{file} {problem}; take another backup, or restore all but such "
                            f"messages: posthouse restore {backup} --leave-out-damaged"
                        )
                    disk.remove(place)
                    damaged.append(last)
                done += 1
                tell(Progress("content files", done, total))
    finally:
        connection.close()
    for folder in (*sorted(folders), content):
        disk.sync_folder(folder)
    return damaged


def _copy_one(source: Path, place: Path, expected: tuple[int, bytes], disk: FileSystem) -> str | None:
    """Copy a content file; what is wrong with it."""
    try:
        copied = copy_file(disk, source, place)
    except FileNotFoundError:
        return "is missing"
    return None if copied == expected else "is damaged"


@contextmanager
def _changed(path: Path, disk: FileSystem) -> Iterator[apsw.Connection]:
    """One transaction on a copy; closed, without a log beside it, and synced afterwards."""
    connection = open_writable(path, vfs=None)
    try:
        with connection:
            yield connection
    finally:
        connection.close(True)
    if _log_of(path).exists():
        raise StorageBusy(f"{path}: what was changed could not be written into it; try again")
    disk.sync_file(path)


def _make_safe(connection: apsw.Connection, now: float) -> int:
    """Hold the spool, free claims, raise UID validities; the number of recipients held now that were not before."""
    schema = int(str(connection.pragma("user_version")))
    # Done later, it would let go what is held now.
    do_all(connection, schema)
    held: int = row(connection, "SELECT count(*) FROM spool WHERE held = 0")[0]
    if schema >= MARKS_SINCE_SCHEMA:
        while free(connection, OF_ANYBODY, (), now):
            pass
    connection.execute("UPDATE spool SET claim_token = NULL, claim_incarnation = NULL WHERE claim_incarnation NOT NULL")
    connection.execute("UPDATE spool SET held = ? WHERE held = 0", (HELD_BY_RESTORE,))
    connection.execute("DELETE FROM incarnations")
    connection.execute("UPDATE folders SET uid_validity = max(uid_validity + 1, ?)", (int(now),))
    connection.execute("UPDATE directory_version SET version = version + 1")
    return held


def _put_house_files(backup: Path, work: Path, data_dir: Path, disk: FileSystem) -> None:
    """The self-signed pair, whole, where there is none; the configuration is the caller's."""
    pair = [path for path in sorted((backup / HOUSE).glob("self-signed.*")) if path.is_file()]
    if not any((data_dir / path.name).exists() for path in pair):
        for path in pair:
            copy_file(disk, path, work / path.name)


def _put_in_place(work: Path, data_dir: Path, disk: FileSystem) -> None:
    """Everything under its own name, the database last; nothing if one of them fails."""
    placed: list[Path] = []
    try:
        for name in [*sorted(name for name in disk.names(work) if name != DATABASE), DATABASE]:
            if name == DATABASE:
                disk.sync_folder(data_dir)
            placed.append(data_dir / name)
            disk.rename(work / name, data_dir / name)
        disk.sync_folder(data_dir)
    except BaseException:
        for path in placed:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        raise


def _drop_what_is_gone(connection: apsw.Connection, content: Path, disk: FileSystem) -> int:
    """Entries and spool rows whose content file is no longer there; how many."""
    dropped, last = 0, 0
    while page := rows(connection, _FILES, (last, _PAGE)):
        for last, file, size_octets, _ in page:
            try:
                there = disk.size_octets(content / file) == size_octets
            except FileNotFoundError:
                there = False
            if not there:
                dropped += _drop(connection, last)
    return dropped


def _drop(connection: apsw.Connection, content: int) -> int:
    queue_ids: list[Any] = rows(connection, "SELECT queue_id FROM messages WHERE content = ?", (content,))
    dropped = 0
    for (queue_id,) in queue_ids:
        for folder, size_octets in rows(
            connection, "DELETE FROM entries WHERE queue_id = ? RETURNING folder, size_octets", (queue_id,)
        ):
            connection.execute(
                "UPDATE folders SET message_count = message_count - 1, used_octets = used_octets - ?,"
                " change_counter = change_counter + 1 WHERE folder = ?",
                (size_octets, folder),
            )
            dropped += 1
        connection.execute("DELETE FROM spool WHERE queue_id = ?", (queue_id,))
        dropped += connection.changes()
        connection.execute("DELETE FROM unreferenced WHERE queue_id = ?", (queue_id,))
        connection.execute("DELETE FROM messages WHERE queue_id = ?", (queue_id,))
    connection.execute("DELETE FROM contents WHERE content = ?", (content,))
    return dropped


def _set_aside(data_dir: Path, now: float, disk: FileSystem) -> Path | None:
    """Keep the present database, and its content under second names: nothing that was accepted since is destroyed."""
    if not (data_dir / DATABASE).exists():
        return None
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    _end_log(data_dir / DATABASE)
    aside = data_dir / f"replaced-{stamp}"
    disk.make_folder(aside / "content")
    for part in disk.names(data_dir / "content"):
        if len(part) != 2:
            continue
        disk.make_folder(aside / "content" / part)
        for name in disk.names(data_dir / "content" / part):
            disk.link(data_dir / "content" / part / name, aside / "content" / part / name)
        disk.sync_folder(aside / "content" / part)
    disk.sync_folder(aside / "content")
    for name in reversed(_STORE_FILES):
        if (data_dir / name).exists():
            disk.rename(data_dir / name, aside / name)
    disk.sync_folder(aside)
    disk.sync_folder(data_dir)
    return aside


def _end_log(database: Path) -> None:
    """Bring the log into the database, so that one file is all of it. Raises StorageBusy where somebody uses it."""
    try:
        open_writable(database, vfs=None).close(True)
    except (apsw.NotADBError, apsw.CorruptError, apsw.IOError):
        # What is damaged is kept as it is: it may be why somebody returns to the snapshot.
        return
    if _log_of(database).exists():
        raise StorageBusy(f"{database}: another process uses it; end it, and try again")


def _log_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")
