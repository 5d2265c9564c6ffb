"""A disk as a power cut leaves it: what was synced is there, what was not may be, in any order and in part.

`Disk` takes the operations that `recording.py` wrote down, one after the other, and at any moment gives the states
that a power cut may leave. The rules are POSIX's, not those of one kind of file system:

- A write or truncation is durable once a later sync of its file has succeeded. Until then it may be there or not,
  independently of the others, and a write may be there in part. A file's growth goes with the write that caused it.
- A name (of a file or folder made, or of a file removed) is durable once its folder was synced.
- What a failed sync was to make durable stays in doubt for ever: the next sync that succeeds does not cover it,
  because the kernel has marked those pages clean. Only writing it again does.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path, PurePosixPath
from typing import TypeAlias

SECTOR_OCTETS = 512


@dataclass(frozen=True, slots=True)
class MadeFile:
    """A file that was not there; `inode` names it in later operations. Paths are relative to the recorded folder."""

    path: str
    inode: int


@dataclass(frozen=True, slots=True)
class MadeFolder:
    path: str


@dataclass(frozen=True, slots=True)
class Removed:
    path: str


@dataclass(frozen=True, slots=True)
class Renamed:
    """A file, or a folder with all that is in it, has another name in the same folder, `path`; in one step."""

    source: str
    path: str


@dataclass(frozen=True, slots=True)
class Wrote:
    inode: int
    offset: int
    octets: bytes


@dataclass(frozen=True, slots=True)
class Truncated:
    inode: int
    size_octets: int


@dataclass(frozen=True, slots=True)
class Synced:
    inode: int


@dataclass(frozen=True, slots=True)
class SyncFailed:
    inode: int


@dataclass(frozen=True, slots=True)
class FolderSynced:
    path: str


NameChange: TypeAlias = MadeFile | MadeFolder | Removed | Renamed
FileChange: TypeAlias = Wrote | Truncated
Operation: TypeAlias = NameChange | FileChange | Synced | SyncFailed | FolderSynced


class Standing(Enum):
    """How sure a change is to survive."""

    LOOSE = auto()
    DOUBTFUL = auto()
    CERTAIN = auto()


@dataclass(slots=True)
class Change:
    """A change of a file or a name; `number` is its place in the log."""

    number: int
    operation: NameChange | FileChange
    standing: Standing = Standing.LOOSE


@dataclass(slots=True)
class Image:
    """One file: the octets that are certain, and the changes since."""

    octets: bytearray = field(default_factory=bytearray)
    changes: list[Change] = field(default_factory=list)

    def sync(self) -> None:
        """Make what is loose certain. What is in doubt stays so, and changes after it wait to be applied."""
        for change in self.changes:
            if change.standing is Standing.LOOSE:
                change.standing = Standing.CERTAIN
        while self.changes and self.changes[0].standing is Standing.CERTAIN:
            apply(self.octets, self.changes.pop(0).operation)

    def doubt(self) -> None:
        """A sync has failed: what it was to cover is in doubt for ever."""
        for change in self.changes:
            if change.standing is Standing.LOOSE:
                change.standing = Standing.DOUBTFUL


@dataclass(frozen=True, slots=True)
class PowerCut:
    """One state that a power cut may leave after `position` operations.

    Changes in `dropped` are not there; of the write `torn`, only the first `torn_octets` are; of the writes in
    `zeroed`, the length of the file is there and zeros where its octets should be.
    """

    position: int
    variant: str
    dropped: frozenset[int]
    torn: int | None = None
    torn_octets: int = 0
    zeroed: frozenset[int] = frozenset()

    def __str__(self) -> str:
        return f"power cut after operation {self.position}, {self.variant}"


class Disk:
    """The state of a disk while a log of operations is played to it."""

    def __init__(self) -> None:
        self.position = 0
        self._images: dict[int, Image] = {}
        self._names: dict[str, int | None] = {}
        self._name_changes: list[Change] = []

    def play(self, operation: Operation) -> None:
        """Take the next operation."""
        match operation:
            case MadeFile() | MadeFolder() | Removed() | Renamed():
                if isinstance(operation, MadeFile) and operation.inode not in self._images:
                    self._images[operation.inode] = Image()
                self._name_changes.append(Change(self.position, operation))
            case Wrote(inode=inode) | Truncated(inode=inode):
                self._images[inode].changes.append(Change(self.position, operation))
            case Synced(inode=inode):
                self._images[inode].sync()
            case SyncFailed(inode=inode):
                self._images[inode].doubt()
            case FolderSynced(path=path):
                self._sync_folder(path)
        self.position += 1

    def uncertain(self) -> list[Change]:
        """Changes that a power cut now may lose, in the order they were made."""
        of_files = [change for image in self._images.values() for change in image.changes]
        both = [change for change in of_files + self._name_changes if change.standing is not Standing.CERTAIN]
        return sorted(both, key=lambda change: change.number)

    def after(self, cut: PowerCut) -> dict[str, bytes | None]:
        """The files that are left, by path, and the folders, as None."""
        assert cut.position == self.position
        names = dict(self._names)
        for change in self._name_changes:
            if change.number not in cut.dropped:
                rename(names, change.operation)
        return {
            path: None if inode is None else self._octets(inode, cut)
            for path, inode in names.items()
            if all(str(parent) in names for parent in PurePosixPath(path).parents if str(parent) != ".")
        }

    def _octets(self, inode: int, cut: PowerCut) -> bytes:
        image = self._images[inode]
        octets = bytearray(image.octets)
        for change in image.changes:
            if change.number in cut.dropped:
                continue
            operation = change.operation
            if change.number == cut.torn:
                assert isinstance(operation, Wrote)
                operation = Wrote(inode, operation.offset, operation.octets[: cut.torn_octets])
            if change.number in cut.zeroed:
                assert isinstance(operation, Wrote)
                operation = Wrote(inode, operation.offset, bytes(len(operation.octets)))
            apply(octets, operation)
        return bytes(octets)

    def _sync_folder(self, folder: str) -> None:
        waiting = []
        for change in self._name_changes:
            assert isinstance(change.operation, NameChange)
            if str(PurePosixPath(change.operation.path).parent) == folder:
                rename(self._names, change.operation)
            else:
                waiting.append(change)
        self._name_changes = waiting


def apply(octets: bytearray, operation: Operation) -> None:
    """Change a file's octets. A gap that a write leaves is zeros."""
    match operation:
        case Wrote(offset=offset, octets=written):
            octets.extend(bytes(max(0, offset - len(octets))))
            octets[offset : offset + len(written)] = written
        case Truncated(size_octets=size_octets):
            octets.extend(bytes(max(0, size_octets - len(octets))))
            del octets[size_octets:]
        case _:
            raise AssertionError(operation)


def rename(names: dict[str, int | None], operation: Operation) -> None:
    """Change what names there are."""
    match operation:
        case MadeFile(path=path, inode=inode):
            names[path] = inode
        case MadeFolder(path=path):
            names[path] = None
        case Removed(path=path):
            names.pop(path, None)
        case Renamed(source=source, path=path):
            for name in [name for name in names if name == source or name.startswith(f"{source}/")]:
                names[path + name[len(source) :]] = names.pop(name)
        case _:
            raise AssertionError(operation)


def write_out(files: dict[str, bytes | None], folder: Path) -> None:
    """Put a state that `Disk.after` gave into an empty folder."""
    for path, octets in sorted(files.items()):
        if octets is None:
            (folder / path).mkdir(mode=0o700)
        else:
            (folder / path).write_bytes(octets)
            (folder / path).chmod(0o600)


def states(log: list[Operation], cuts: Iterable[PowerCut]) -> Iterator[tuple[PowerCut, dict[str, bytes | None]]]:
    """What each power cut leaves; the cuts in order of position."""
    disk = Disk()
    for cut in cuts:
        while disk.position < cut.position:
            disk.play(log[disk.position])
        yield cut, disk.after(cut)


def power_cuts(log: list[Operation], *, since: int, shuffles: int, seed: int) -> list[PowerCut]:
    """The distinct states that a power cut after any operation from `since` on may leave, a sample of the reorderings.

    Of equal states the latest is kept: by then the most was acknowledged. `shuffles` random subsets of the
    uncertain changes are tried at each operation; which ones, `seed` says.
    """
    chance = random.Random(seed)
    disk = Disk()
    latest: dict[object, PowerCut] = {}
    for operation in log:
        disk.play(operation)
        if disk.position >= since:
            uncertain = disk.uncertain()
            for cut in variants(disk.position, uncertain, shuffles, chance):
                key = _identity(disk.position, operation, log, cut, uncertain)
                latest.pop(key, None)
                latest[key] = cut
    return sorted(latest.values(), key=lambda cut: cut.position)


def variants(position: int, uncertain: list[Change], shuffles: int, chance: random.Random) -> Iterator[PowerCut]:
    """What may be left of the uncertain changes: none, all, all with the last write torn, some."""
    numbers = frozenset(change.number for change in uncertain)
    yield PowerCut(position, "unsynced dropped", numbers)
    if not uncertain:
        return
    yield PowerCut(position, "unsynced kept", frozenset())
    last = uncertain[-1]
    if last.number == position - 1 and isinstance(last.operation, Wrote):
        for cut_at in tears(last.operation):
            yield PowerCut(position, f"last write torn at {cut_at}", frozenset(), last.number, cut_at)
    truncations = frozenset(change.number for change in uncertain if isinstance(change.operation, Truncated))
    if truncations and truncations != numbers:
        yield PowerCut(position, "unsynced kept, truncations dropped", truncations)
    of_names = frozenset(c.number for c in uncertain if isinstance(c.operation, NameChange))
    if of_names and of_names != numbers:
        yield PowerCut(position, "names kept, writes dropped", numbers - of_names)
        yield PowerCut(position, "writes kept, names dropped", of_names)
    for shuffle in range(shuffles if len(uncertain) > 1 else 0):
        dropped = frozenset(number for number in sorted(numbers) if chance.random() < 0.5)
        yield PowerCut(position, f"unsynced kept in part, {shuffle}", dropped)


def before_syncs(log: list[Operation], *, since: int) -> Iterator[PowerCut]:
    """States just before each sync, when the most is uncertain: each change alone missing, alone there, torn, zeros."""
    disk = Disk()
    for operation in log:
        if isinstance(operation, Synced | SyncFailed | FolderSynced) and disk.position >= since:
            yield from _one_by_one(disk.position, disk.uncertain())
        disk.play(operation)


def _one_by_one(position: int, uncertain: list[Change]) -> Iterator[PowerCut]:
    numbers = frozenset(change.number for change in uncertain)
    writes = frozenset(change.number for change in uncertain if isinstance(change.operation, Wrote))
    if writes:
        yield PowerCut(position, "unsynced writes left zeros", frozenset(), zeroed=writes)
    for change in uncertain if len(uncertain) > 1 else ():
        yield PowerCut(position, f"only {change.number} missing", frozenset({change.number}))
        yield PowerCut(position, f"only {change.number} kept", numbers - {change.number})
        if isinstance(change.operation, Wrote):
            for cut_at in tears(change.operation):
                yield PowerCut(position, f"{change.number} torn at {cut_at}", frozenset(), change.number, cut_at)
            yield PowerCut(position, f"{change.number} left zeros", frozenset(), zeroed=frozenset({change.number}))


def tears(write: Wrote) -> Iterator[int]:
    """Where a write may end early: at a sector's edge near its middle, and at an odd octet."""
    size = len(write.octets)
    at_sector = (write.offset + size // 2) // SECTOR_OCTETS * SECTOR_OCTETS - write.offset
    if 0 < at_sector < size:
        yield at_sector
    odd = (size * 2 // 3) | 1
    if odd < size:
        yield odd


def _identity(
    position: int, operation: Operation, log: list[Operation], cut: PowerCut, uncertain: list[Change]
) -> object:
    """Equal for cuts that leave the same state: the last change that is there, and those before it that are not."""
    last = position - 1
    while last >= 0 and (last in cut.dropped or isinstance(log[last], Synced | SyncFailed | FolderSynced)):
        last -= 1
    return last, frozenset(number for number in cut.dropped if number < last), cut.torn, cut.torn_octets
