"""Doors to the disk that write down what goes through them, and that can be made to fail.

`Recorder` keeps one log for a VFS of SQLite and a `FileSystem`, in the order in which operations were carried out.
Nothing is really synced: the log alone says what is durable.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import apsw
from tests.storage.crash.disk import (
    FolderSynced,
    MadeFile,
    MadeFolder,
    Operation,
    Removed,
    Renamed,
    Synced,
    SyncFailed,
    Truncated,
    Wrote,
)

from posthouse.storage.filesystem import RealFileSystem

_numbers = itertools.count()
# SQLite syncs the folder with the first sync of a journal that it made (os_unix.c, UNIXFILE_DIRSYNC); the default VFS
# does so behind our back. The database's own name becomes durable by the same sync.
_SYNCS_ITS_FOLDER = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL


class Kind(Enum):
    """Operations that can be made to fail."""

    WRITE = "write"
    SYNC = "sync"
    TRUNCATE = "truncate"
    CREATE = "create"
    MAKE_FOLDER = "make folder"
    SYNC_FOLDER = "sync folder"
    RENAME = "rename"
    LINK = "link"


class Trouble(Enum):
    """What a failing operation answers: ENOSPC and SQLITE_FULL, EIO and SQLITE_IOERR, EMFILE, EDQUOT."""

    FULL = "no space left"
    BROKEN = "input/output error"
    NO_DESCRIPTORS = "too many open files"
    OVER_QUOTA = "disk quota exceeded"


@dataclass(slots=True)
class Fault:
    """The `nth` operation (from 0) of `kinds` fails, and the `more` after it. Only paths that `where` allows count."""

    trouble: Trouble
    nth: int
    kinds: frozenset[Kind] = frozenset(Kind)
    more: int = 0
    where: Callable[[str], bool] = lambda path: True
    seen: int = 0
    hit: tuple[Kind, str] | None = None

    def strikes(self, kind: Kind, path: str) -> bool:
        if kind not in self.kinds or not self.where(path):
            return False
        self.seen += 1
        if not self.nth < self.seen <= self.nth + 1 + self.more:
            return False
        self.hit = self.hit or (kind, path)
        return True


class Recorder:
    """The log of one folder. `vfs_name` is registered with SQLite until `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log: list[Operation] = []
        self.fault: Fault | None = None
        self.vfs_name = f"recording-{next(_numbers)}"
        self.file_system = RecordingFileSystem(self)
        self.lock = threading.RLock()
        self._vfs = RecordingVfs(self)
        self._inodes: dict[str, int] = {}
        self._next_inode = itertools.count(1)

    @property
    def position(self) -> int:
        """How many operations there were."""
        return len(self.log)

    def close(self) -> None:
        self._vfs.unregister()

    def relative(self, path: str) -> str | None:
        """A path as it stands in the log; None for one elsewhere, such as SQLite's temporary files."""
        folder = os.fspath(self.folder)
        return os.path.relpath(path, folder) if path == folder or path.startswith(folder + "/") else None

    def made(self, path: str) -> int:
        """Note that a file is there from now on, if it is not yet; its inode."""
        if path not in self._inodes:
            self._inodes[path] = next(self._next_inode)
            self.log.append(MadeFile(path, self._inodes[path]))
        return self._inodes[path]

    def adopt(self) -> None:
        """Take what stands in the folder as written and synced before anything else."""
        for path in sorted(self.folder.rglob("*")):
            relative = os.fspath(path.relative_to(self.folder))
            if path.is_dir():
                self.log.append(MadeFolder(relative))
            else:
                inode = self.made(relative)
                self.log += [Wrote(inode, 0, path.read_bytes()), Synced(inode)]
            self.log.append(FolderSynced(os.path.dirname(relative) or "."))

    def removed(self, path: str) -> None:
        if self._inodes.pop(path, None) is not None:
            self.log.append(Removed(path))

    def renamed(self, source: str, path: str) -> None:
        for name in [name for name in self._inodes if name == source or name.startswith(f"{source}/")]:
            self._inodes[path + name[len(source) :]] = self._inodes.pop(name)
        self.log.append(Renamed(source, path))

    def linked(self, source: str, path: str) -> None:
        self._inodes[path] = self._inodes[source]
        self.log.append(MadeFile(path, self._inodes[path]))

    def synced(self, path: str) -> None:
        self.log.append(Synced(self._inodes[path]))

    def struck(self, kind: Kind, path: str) -> Trouble | None:
        """What this operation must fail with, if it must."""
        return self.fault.trouble if self.fault and self.fault.strikes(kind, path) else None


class RecordingVfs(apsw.VFS):
    """The default VFS of SQLite, with a log."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder.vfs_name, "")
        self._recorder = recorder

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        full = name.filename() if isinstance(name, apsw.URIFilename) else name
        path = self._recorder.relative(full) if full else None
        if path is None:
            return apsw.VFSFile("", name, flags)
        return RecordingFile(self._recorder, path, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        path = self._recorder.relative(filename)
        with self._recorder.lock:
            super().xDelete(filename, syncdir)
            if path is not None:
                self._recorder.removed(path)
                if syncdir:
                    self._recorder.log.append(FolderSynced(os.path.dirname(path) or "."))


class RecordingFile(apsw.VFSFile):
    """A file of SQLite's, with a log."""

    def __init__(self, recorder: Recorder, path: str, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._recorder = recorder
        self._path = path
        self._folder_to_sync: str | None = None
        with recorder.lock:
            is_new = not (recorder.folder / path).exists()
            if recorder.struck(Kind.CREATE, path) is not None:
                raise apsw.exception_for(apsw.SQLITE_CANTOPEN)
            super().__init__("", name, flags)
            self._inode = recorder.made(path)
            if is_new and flags[0] & _SYNCS_ITS_FOLDER:
                self._folder_to_sync = os.path.dirname(path) or "."

    def xWrite(self, data: bytes, offset: int) -> None:
        with self._recorder.lock:
            octets = bytes(data)
            trouble = self._recorder.struck(Kind.WRITE, self._path)
            if trouble is Trouble.FULL:
                octets = octets[: len(octets) // 2]
            if trouble is not Trouble.BROKEN and octets:
                super().xWrite(octets, offset)
                self._recorder.log.append(Wrote(self._inode, offset, octets))
            if trouble is not None:
                raise sqlite_error(trouble, apsw.SQLITE_IOERR_WRITE)

    def xTruncate(self, newsize: int) -> None:
        with self._recorder.lock:
            trouble = self._recorder.struck(Kind.TRUNCATE, self._path)
            if trouble is not None:
                raise sqlite_error(Trouble.BROKEN, apsw.SQLITE_IOERR_TRUNCATE)
            super().xTruncate(newsize)
            self._recorder.log.append(Truncated(self._inode, newsize))

    def xSync(self, flags: int) -> None:
        with self._recorder.lock:
            trouble = self._recorder.struck(Kind.SYNC, self._path)
            if trouble is not None:
                # The default VFS calls every failed fsync an I/O error, one for want of space too.
                self._recorder.log.append(SyncFailed(self._inode))
                raise sqlite_error(Trouble.BROKEN, apsw.SQLITE_IOERR_FSYNC)
            self._recorder.log.append(Synced(self._inode))
            if self._folder_to_sync is not None:
                self._recorder.log.append(FolderSynced(self._folder_to_sync))
                self._folder_to_sync = None


def sqlite_error(trouble: Trouble, extended: int) -> Exception:
    """What the default VFS would have answered."""
    return apsw.exception_for(apsw.SQLITE_FULL if trouble is Trouble.FULL else extended)


class RecordingFileSystem(RealFileSystem):
    """The operating system's files, with a log."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._open: dict[int, tuple[str, int]] = {}

    def create(self, path: Path) -> int:
        relative = self._relative(path)
        with self._recorder.lock:
            self._fail(Kind.CREATE, relative)
            descriptor = super().create(path)
            self._open[descriptor] = (relative, self._recorder.made(relative))
            return descriptor

    def write(self, descriptor: int, octets: bytes) -> None:
        path, inode = self._open[descriptor]
        with self._recorder.lock:
            offset = os.lseek(descriptor, 0, os.SEEK_CUR)
            trouble = self._recorder.struck(Kind.WRITE, path)
            written = bytes(octets)
            if trouble is not None:
                written = written[: len(written) // 2]
            if written:
                super().write(descriptor, written)
                self._recorder.log.append(Wrote(inode, offset, written))
            if trouble is not None:
                raise os_error(trouble)

    def sync(self, descriptor: int) -> None:
        path, inode = self._open[descriptor]
        with self._recorder.lock:
            trouble = self._recorder.struck(Kind.SYNC, path)
            if trouble is not None:
                self._recorder.log.append(SyncFailed(inode))
                raise os_error(trouble)
            self._recorder.log.append(Synced(inode))

    def close(self, descriptor: int) -> None:
        with self._recorder.lock:
            del self._open[descriptor]
            super().close(descriptor)

    def sync_folder(self, folder: Path) -> None:
        relative = self._relative(folder)
        with self._recorder.lock:
            self._fail(Kind.SYNC_FOLDER, relative)
            self._recorder.log.append(FolderSynced(relative))

    def make_folder(self, folder: Path) -> None:
        with self._recorder.lock:
            self._fail(Kind.MAKE_FOLDER, self._relative(folder))
            missing = [path for path in (folder, *folder.parents) if not path.exists()]
            super().make_folder(folder)
            for path in reversed(missing):
                self._recorder.log.append(MadeFolder(self._relative(path)))

    def remove(self, path: Path) -> None:
        with self._recorder.lock:
            super().remove(path)
            self._recorder.removed(self._relative(path))

    def sync_file(self, path: Path) -> None:
        relative = self._relative(path)
        with self._recorder.lock:
            self._fail(Kind.SYNC, relative)
            self._recorder.synced(relative)

    def rename(self, source: Path, target: Path) -> None:
        relative = self._relative(target)
        with self._recorder.lock:
            self._fail(Kind.RENAME, relative)
            super().rename(source, target)
            self._recorder.renamed(self._relative(source), relative)

    def link(self, source: Path, target: Path) -> None:
        relative = self._relative(target)
        with self._recorder.lock:
            self._fail(Kind.LINK, relative)
            super().link(source, target)
            self._recorder.linked(self._relative(source), relative)

    def _relative(self, path: Path) -> str:
        relative = self._recorder.relative(os.fspath(path))
        assert relative is not None, f"{path} is not in the recorded folder"
        return relative

    def _fail(self, kind: Kind, path: str) -> None:
        trouble = self._recorder.struck(kind, path)
        if trouble is not None:
            raise os_error(trouble)


def os_error(trouble: Trouble) -> OSError:
    """What the operating system would have answered."""
    number = {
        Trouble.FULL: errno.ENOSPC,
        Trouble.BROKEN: errno.EIO,
        Trouble.NO_DESCRIPTORS: errno.EMFILE,
        Trouble.OVER_QUOTA: errno.EDQUOT,
    }[trouble]
    return OSError(number, os.strerror(number))
