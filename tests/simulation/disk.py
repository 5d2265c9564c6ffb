"""The disk of one simulated machine: real files in memory, and a record of what was synced (`tests/storage/crash`).

A process that dies leaves its files as they are; a machine that loses power leaves what was synced, and of the rest
what chance leaves. Each start gets a folder of its own with what the disk holds then: whatever a dead process still
writes, until its tasks have ended, nobody sees.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

from posthouse.storage.filesystem import FileSystem
from tests.storage.crash.disk import (
    Disk,
    FolderSynced,
    MadeFile,
    MadeFolder,
    Operation,
    PowerCut,
    Synced,
    SyncFailed,
    Wrote,
    variants,
    write_out,
)
from tests.storage.crash.recording import Fault, Kind, Recorder, RecordingFileSystem, Trouble

State = dict[str, bytes | None]

FULL = frozenset({Kind.WRITE, Kind.CREATE, Kind.MAKE_FOLDER})
"""What a full disk does not do."""


class Played(list[Operation]):
    """A log that is played to a `Disk` as it is written, and not kept."""

    def __init__(self, before: Callable[[Operation], None]) -> None:
        super().__init__()
        self.disk = Disk()
        self._before = before

    def append(self, operation: Operation) -> None:
        self._before(operation)
        self.disk.play(operation)


class Window(Fault):
    """Operations fail, each with a chance of `share`, until the window is closed."""

    def __init__(self, trouble: Trouble, kinds: frozenset[Kind], share: float, chance: Random) -> None:
        super().__init__(trouble, 0, kinds)
        self._share = share
        self._chance = chance

    def strikes(self, kind: Kind, path: str) -> bool:
        if kind not in self.kinds or self._chance.random() >= self._share:
            return False
        self.hit = self.hit or (kind, path)
        return True


class OrderedFileSystem(RecordingFileSystem):
    """Names in one order: that of a folder is the system's own."""

    def names(self, folder: Path) -> list[str]:
        return sorted(super().names(folder))

    def free_octets(self, folder: Path) -> int:
        return 1 << 40


class SimulatedDisk:
    """Where a house lives from one start to the next."""

    def __init__(self, folder: Path, state: State, on_operation: Callable[[Operation], None]) -> None:
        """`on_operation` is called before each change and each sync is carried out."""
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True)
        write_out(state, folder)
        self._recorder = Recorder(folder)
        self._log = Played(lambda _operation: None)
        self._recorder.log = self._log
        self._keep(state)
        self._log._before = self._carry_out
        self._on_operation = on_operation
        self._open = True
        self._frozen: State | None = None
        self._recorder.file_system = OrderedFileSystem(self._recorder)

    @property
    def file_system(self) -> FileSystem:
        return self._recorder.file_system

    @property
    def vfs(self) -> str:
        return self._recorder.vfs_name

    @property
    def fault(self) -> Fault | None:
        return self._recorder.fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        self._recorder.fault = fault

    def killed(self) -> State:
        """What a process leaves that ends now, in the middle of whatever it does."""
        disk = self._log.disk
        return disk.after(PowerCut(disk.position, "killed", frozenset()))

    def cut(self, chance: Random) -> tuple[str, State]:
        """What a power cut leaves, and in which way."""
        disk = self._log.disk
        found = list(variants(disk.position, disk.uncertain(), 2, chance))
        cut = found[chance.randrange(len(found))]
        return cut.variant, disk.after(cut)

    def remove(self) -> None:
        """Nobody has anything open here any more."""
        if self._open:
            self._open = False
            self._recorder.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _carry_out(self, operation: Operation) -> None:
        self._on_operation(operation)

    def _keep(self, state: State) -> None:
        """The state that the disk has is certain."""
        log, recorder = self._log, self._recorder
        folders = {"."}
        for path, octets in sorted(state.items()):
            folders.add(os.path.dirname(path) or ".")
            if octets is None:
                log.append(MadeFolder(path))
            else:
                inode = recorder.made(path)
                log.append(Wrote(inode, 0, octets))
                log.append(Synced(inode))
        for folder in sorted(folders):
            log.append(FolderSynced(folder))


def is_sync(operation: Operation) -> bool:
    return isinstance(operation, Synced | SyncFailed | FolderSynced)


def is_made(operation: Operation) -> bool:
    return isinstance(operation, MadeFile | MadeFolder)
