"""A copy of the whole store at one moment, made while others write.

The sweep is held, the database is copied by `VACUUM INTO` (the stepwise backup never ends beside a busy writer), and
the content files that the copy names get a second name (or are copied, to another file system). All of it is made
under a temporary name and renamed when it is whole and on disk: what has the final name is a backup.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import apsw

from posthouse import __version__
from posthouse.storage.errors import StorageBusy, StorageDamaged
from posthouse.storage.filesystem import FileSystem
from posthouse.storage.sqlite.connection import DATABASE, rows
from posthouse.storage.sqlite.copying import (
    MANIFEST,
    copy_file,
    counts_of,
    digest_of,
    told_about,
    write_manifest,
)
from posthouse.storage.sqlite.hold import SweepLock
from posthouse.storage.sqlite.snapshots import vacuum_into
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.upkeep import HOUSE, Counts, Manifest, Order, Progress, Tell

P = ParamSpec("P")
T = TypeVar("T")

_FAILED = "the backup could not be made, and nothing of it is left"
_PAGE_FILES = 500
_NO_LINKS = frozenset({errno.ENOENT, errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})
_FILES = """
SELECT content, file, size_octets FROM contents WHERE file IS NOT NULL AND content > ? ORDER BY content LIMIT ?"""


def _telling(step: Callable[Concatenate[Backup, P], T]) -> Callable[Concatenate[Backup, P], T]:
    """Errors of a step say where they happened; it runs on a thread, whose own words would be too general."""

    @wraps(step)
    def told(self: Backup, /, *arguments: P.args, **named: P.kwargs) -> T:
        with told_about(_FAILED, self.target):
            return step(self, *arguments, **named)

    return told


@dataclass(slots=True, kw_only=True)
class Backup:
    """One backup under way."""

    data_dir: Path
    target: Path
    vfs: str | None
    disk: FileSystem
    tell: Tell
    now: float
    _newest: Path | None = None
    _looked_for_previous: bool = False
    _stopped: bool = False

    async def run(self, readers: Readers, lock: SweepLock, order: Order, name: str) -> Manifest:
        """Make it. Raises StorageError; then nothing of it is left."""
        with told_about(_FAILED, self.target):
            _require_free(self.target)
        with told_about(_FAILED, self.target), self._partial(name) as partial:
            async with lock.held():
                await readers.disk(lambda: self._copy_database(partial))
                counts = await readers.disk(lambda: self._take_content(partial))
            return await readers.disk(lambda: self._finish(partial, order, counts))

    @contextmanager
    def _partial(self, name: str) -> Iterator[Path]:
        """A folder beside the target, which goes if anything goes wrong; locked, so that nobody takes it for a ruin."""
        parent = self.target.parent
        _remove_ruins(self.target)
        partial = parent / f".{self.target.name}.partial-{name}"
        self.disk.make_folder(partial)
        descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield partial
        except BaseException:
            # Whoever was interrupted waits for the step's thread: it shall end soon.
            self._stopped = True
            shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            os.close(descriptor)

    @_telling
    def _copy_database(self, partial: Path) -> None:
        source, target = self.data_dir / DATABASE, partial / DATABASE
        total = self.disk.size_octets(source)

        def tick() -> bool:
            self.tell(Progress("database", min(self.disk.size_octets(target), total), total))
            return self._stopped

        self.tell(Progress("database", 0, total))
        vacuum_into(source, target, vfs=self.vfs, file_system=self.disk, tick=tick)

    @_telling
    def _take_content(self, partial: Path) -> Counts:
        """Give the content files that the copy names a place in the backup."""
        content = partial / "content"
        self.disk.make_folder(content)
        folders: set[Path] = set()
        connection = apsw.Connection(str(partial / DATABASE), flags=apsw.SQLITE_OPEN_READONLY, vfs=self.vfs)
        try:
            counts = counts_of(connection)
            last, done = 0, 0
            while page := rows(connection, _FILES, (last, _PAGE_FILES)):
                last = page[-1][0]
                for _, file, size_octets in page:
                    if self._stopped:
                        raise StorageBusy(f"{self.target}: the backup was stopped")
                    place = content / file
                    if place.parent not in folders:
                        folders.add(place.parent)
                        self.disk.make_folder(place.parent)
                    self._take(file, size_octets, place)
                    done += 1
                    self.tell(Progress("content files", done, counts.content_files))
        finally:
            connection.close()
        for folder in (*sorted(folders), content):
            self.disk.sync_folder(folder)
        return counts

    def _take(self, file: str, size_octets: int, place: Path) -> None:
        """Link it; from the newest backup beside this one, where the store lies on another file system; or copy it."""
        source = self.data_dir / "content" / file
        if self._link(source, size_octets, place):
            return
        if (previous := self._previous()) is not None and self._link(previous / "content" / file, size_octets, place):
            return
        try:
            copied, _ = copy_file(self.disk, source, place)
        except FileNotFoundError as exc:
            raise StorageDamaged(f"{source} is missing; see: posthouse check --store") from exc
        if copied != size_octets:
            raise StorageDamaged(f"{source} has {copied} octets instead of {size_octets}; see: posthouse check --store")

    def _link(self, candidate: Path, size_octets: int, place: Path) -> bool:
        """Give a file of that size a second name. Content never changes, so its name says which it is."""
        try:
            if self.disk.size_octets(candidate) != size_octets:
                return False
            self.disk.link(candidate, place)
        except OSError as exc:
            if exc.errno in _NO_LINKS:
                return False
            raise
        return True

    def _previous(self) -> Path | None:
        if not self._looked_for_previous:
            self._looked_for_previous = True
            # (The folder may be shared: what another user calls a backup could hold any octets under these names.)
            ours = [
                path for path in self.target.parent.glob(f"*/{MANIFEST}") if path.parent.lstat().st_uid == os.geteuid()
            ]
            manifests = sorted(ours, key=lambda path: path.stat().st_mtime)
            self._newest = manifests[-1].parent if manifests else None
        return self._newest

    @_telling
    def _finish(self, partial: Path, order: Order, counts: Counts) -> Manifest:
        """Everything else, the manifest last; then the final name."""
        if order.house:
            self.disk.make_folder(partial / HOUSE)
            for name, source in order.house.items():
                copy_file(self.disk, source, partial / HOUSE / name)
            self.disk.sync_folder(partial / HOUSE)
        self.tell(Progress("checksum", 0, 0))
        size_octets, digest = digest_of(self.disk, partial / DATABASE)
        connection = apsw.Connection(str(partial / DATABASE), flags=apsw.SQLITE_OPEN_READONLY, vfs=self.vfs)
        schema = connection.pragma("user_version")
        connection.close()
        assert isinstance(schema, int)
        manifest = Manifest(
            posthouse=__version__,
            schema=schema,
            made_at=self.now,
            hostname=order.hostname,
            database_octets=size_octets,
            database_sha256=digest.hex(),
            counts=counts,
            left_out=tuple(order.left_out),
        )
        write_manifest(self.disk, partial, manifest)
        self.disk.sync_folder(partial)
        self.disk.rename(partial, self.target)
        try:
            self.disk.sync_folder(self.target.parent)
        except BaseException:
            shutil.rmtree(self.target, ignore_errors=True)
            raise
        return manifest


def _require_free(target: Path) -> None:
    if not target.parent.is_dir():
        raise StorageBusy(f"{target.parent} is not a folder; make it first: mkdir -p {target.parent}")
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise StorageBusy(f"{target} exists already; name a folder that does not")


def _remove_ruins(target: Path) -> None:
    """What backups that died left beside the target. What is not ours is left alone: the folder may be shared."""
    for ruin in target.parent.glob(f".{target.name}.partial-*"):
        try:
            descriptor = os.open(ruin, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if os.fstat(descriptor).st_uid == os.geteuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(ruin)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)
