"""What is wrong with the machine before a house starts on it: its clock, its disk."""

from __future__ import annotations

import os
import time
from pathlib import Path

CLOCK_FLOOR = 1_767_225_600.0
"""The beginning of 2026: this version did not exist before."""
AHEAD_S = 86_400.0
"""A database that was written so much later than now tells that the clock went back."""
ROOM_OCTETS = 1 << 20
"""Without so much room no transaction is sure to fit."""


def clock_problem(data_dir: Path, now: float | None = None) -> str | None:
    """Why the clock cannot be right, with what mends it; None where nothing speaks against it.

    Dates of messages, queue ids, expiry and certificates all go by it.
    """
    now = time.time() if now is None else now
    if now < CLOCK_FLOOR:
        reason = "before this version of posthouse was made"
    elif (written := last_written(data_dir)) is not None and written > now + AHEAD_S:
        # The clock may have been wrong then, and right now.
        reason = f"and {data_dir} was written at {_shown(written)} (not so? touch {data_dir}/posthouse.db*)"
    else:
        return None
    return f"the clock is wrong: it says {_shown(now)}, {reason}; set it with timedatectl set-ntp true, or date -s"


def last_written(data_dir: Path) -> float | None:
    """When the database was last written, by the clock of then."""
    times = []
    for name in ("posthouse.db", "posthouse.db-wal"):
        try:
            times.append((data_dir / name).stat().st_mtime)
        except OSError:
            continue
    return max(times, default=None)


def disk_problem(data_dir: Path) -> str | None:
    """Why nothing can be written to the disk of the folder, with what mends it; None where it can."""
    try:
        disk = os.statvfs(data_dir)
    except OSError:
        return None
    if disk.f_flag & os.ST_RDONLY:
        mount = mount_point(data_dir)
        return f"{data_dir} is on a disk that is mounted read-only; run: mount -o remount,rw {mount}"
    if disk.f_bavail * disk.f_frsize < ROOM_OCTETS:
        return f"the disk of {data_dir} is full; make room, and look with: df -h {data_dir}"
    return None


def mount_point(path: Path) -> Path:
    """Where the file system of a path is mounted."""
    path = path.resolve()
    while not path.is_mount():
        path = path.parent
    return path


def _shown(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
