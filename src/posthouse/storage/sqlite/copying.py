"""What backup and restore share: copies that are on disk when they are said to be, and the manifest."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from posthouse.storage.errors import StorageBusy, StorageDamaged, StorageError, StorageFull
from posthouse.storage.filesystem import FileSystem
from posthouse.storage.sqlite.connection import row
from posthouse.storage.sqlite.content import CHUNK_OCTETS
from posthouse.storage.sqlite.errors import translated
from posthouse.storage.upkeep import Counts, Manifest

MANIFEST = "manifest.json"
FORMAT = 1

_COUNTS = """
SELECT (SELECT count(*) FROM accounts WHERE removed_at IS NULL), (SELECT count(*) FROM messages),
    (SELECT count(*) FROM entries), (SELECT count(*) FROM spool), (SELECT count(*) FROM contents),
    (SELECT count(*) FROM contents WHERE file IS NOT NULL), (SELECT coalesce(sum(size_octets), 0) FROM contents)"""


def counts_of(connection: apsw.Connection) -> Counts:
    accounts, messages, entries, queued, contents, files, octets = row(connection, _COUNTS)
    return Counts(
        accounts=accounts,
        messages=messages,
        entries=entries,
        queued=queued,
        contents=contents,
        content_files=files,
        content_octets=octets,
    )


def copy_file(
    disk: FileSystem, source: Path, target: Path, *, on_octets: Callable[[int], None] = lambda _: None
) -> tuple[int, bytes]:
    """Copy into a file that was not there, mode 0600, synced; its name is the caller's to sync. (size, SHA-256)."""
    digest, offset = hashlib.sha256(), 0
    descriptor = disk.create(target)
    try:
        while octets := disk.read(source, offset, CHUNK_OCTETS):
            digest.update(octets)
            disk.write(descriptor, octets)
            offset += len(octets)
            on_octets(len(octets))
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)
    return offset, digest.digest()


def digest_of(disk: FileSystem, path: Path) -> tuple[int, bytes]:
    """(size, SHA-256) of a file."""
    digest, offset = hashlib.sha256(), 0
    while octets := disk.read(path, offset, 16 * CHUNK_OCTETS):
        digest.update(octets)
        offset += len(octets)
    return offset, digest.digest()


def write_manifest(disk: FileSystem, folder: Path, manifest: Manifest) -> None:
    octets = json.dumps({"format": FORMAT, **dataclasses.asdict(manifest)}, indent=2).encode() + b"\n"
    descriptor = disk.create(folder / MANIFEST)
    try:
        disk.write(descriptor, octets)
        disk.sync(descriptor)
    finally:
        disk.close(descriptor)


def read_manifest(folder: Path) -> Manifest:
    """Raises StorageDamaged with a line for the operator."""
    path = folder / MANIFEST
    try:
        table = json.loads(path.read_bytes())
        if table.pop("format") != FORMAT:
            raise StorageDamaged(f"{folder}: this backup was made by a newer version ({table.get('posthouse')})")
        counts = Counts(**table.pop("counts"))
        left_out = tuple(table.pop("left_out"))
        return Manifest(**table, counts=counts, left_out=left_out)
    except FileNotFoundError as exc:
        raise StorageDamaged(
            f"{folder}: there is no {MANIFEST} in it: this is not a backup; posthouse backup DIR makes one"
        ) from exc
    except NotADirectoryError as exc:
        raise StorageDamaged(f"{folder}: this is neither a backup nor a snapshot") from exc
    except OSError as exc:
        raise StorageDamaged(f"{path}: it cannot be read ({exc.strerror})") from exc
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise StorageDamaged(f"{path}: it is damaged; take another backup") from exc


@contextmanager
def told_about(what: str, where: Path) -> Iterator[None]:
    """Errors of the disk and of SQLite, as a line that says what could not be done where."""
    try:
        yield
    except (OSError, apsw.Error) as exc:
        ours = translated(exc)
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        match ours:
            case StorageFull():
                raise StorageFull(f"{where}: {what}: the disk is full; make room, and try again") from exc
            case StorageDamaged():
                raise StorageDamaged(f"{where}: {what}: {reason}") from exc
            case StorageError():
                raise StorageBusy(f"{where}: {what}: {reason}") from exc
            case _:
                raise
