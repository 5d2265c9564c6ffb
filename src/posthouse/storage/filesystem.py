"""The seam between storage and the disk, so that power cuts can be simulated. SQLite has its own: the VFS."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol


class FileSystem(Protocol):
    """What content files need of a file system. Errors are OSError. Nothing is durable before its sync."""

    def create(self, path: Path) -> int:
        """Create a file that does not exist, mode 0600; returns a descriptor for `write`, `sync`, `close`."""
        ...

    def write(self, descriptor: int, octets: bytes) -> None:
        """Write all of it."""
        ...

    def sync(self, descriptor: int) -> None:
        """The file's octets are durable when this returns; its name is after `sync_folder`."""
        ...

    def close(self, descriptor: int) -> None: ...

    def sync_folder(self, folder: Path) -> None: ...

    def make_folder(self, folder: Path) -> None:
        """Create it, mode 0700, if it is not there."""
        ...

    def read(self, path: Path, offset: int, limit_octets: int) -> bytes: ...

    def remove(self, path: Path) -> None: ...

    def names(self, folder: Path) -> list[str]: ...

    def sync_file(self, path: Path) -> None:
        """`sync` for a file that somebody else wrote."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """In one step; durable after `sync_folder` of the folder of both."""
        ...

    def link(self, source: Path, target: Path) -> None:
        """A second name for the same file. Fails across file systems (EXDEV)."""
        ...

    def size_octets(self, path: Path) -> int:
        """Of the file itself; a symbolic link is not followed."""
        ...

    def free_octets(self, folder: Path) -> int:
        """What this user may still write there."""
        ...


class RealFileSystem:
    """The operating system's."""

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def write(self, descriptor: int, octets: bytes) -> None:
        view = memoryview(octets)
        while view:
            view = view[os.write(descriptor, view) :]

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def sync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_folder(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self, path: Path, offset: int, limit_octets: int) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, limit_octets, offset)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def names(self, folder: Path) -> list[str]:
        return os.listdir(folder)

    def sync_file(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target, follow_symlinks=False)

    def size_octets(self, path: Path) -> int:
        return os.stat(path, follow_symlinks=False).st_size

    def free_octets(self, folder: Path) -> int:
        of = os.statvfs(folder)
        return of.f_bavail * of.f_frsize
