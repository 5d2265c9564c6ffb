"""A house on a small file system of its own, which nobody else sees: in a mount namespace, gone with its holder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_HOLD = """
set -e
mkdir "$1.small"
mount -t tmpfs -o "$2" none "$1.small"
cp -a "$1/." "$1.small"
mount --move "$1.small" "$1"
echo ready
read -r _
"""


def why_not() -> str | None:
    """Why this machine lets nobody mount, if so."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return "there is no unshare or no nsenter"
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False
    )
    return tried.stderr.strip() if tried.returncode else None


class SmallDisk:
    """What stands in `folder` goes there; `under` starts programs that see it. Options are those of tmpfs."""

    def __init__(self, folder: Path, options: str) -> None:
        self.folder = folder
        self._options = options

    def __enter__(self) -> SmallDisk:
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _HOLD, "sh", str(self.folder)]
        self._holder = subprocess.Popen(
            [*command, self._options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate("end\n", 30)

    @property
    def under(self) -> tuple[str, ...]:
        return ("nsenter", "--target", str(self._holder.pid), "--mount", "--")

    def run(self, *command: str) -> str:
        return subprocess.run([*self.under, *command], capture_output=True, text=True, check=True).stdout

    def remount(self, options: str) -> None:
        self.run("mount", "-o", f"remount,{options}", str(self.folder))

    def inodes_used(self) -> int:
        return int(self.run("stat", "--file-system", "--format=%c %d", str(self.folder)).split()[0]) - int(
            self.run("stat", "--file-system", "--format=%c %d", str(self.folder)).split()[1]
        )
