"""Writers of several processes take turns by a file lock.

SQLite's own lock is waited for by sleeping, 1 ms and then ever longer, while its holder may need it for less than
one: two busy processes spent most of their time asleep. The system wakes who waits for a file lock when it is free.
It is courtesy only: what keeps two transactions apart is SQLite's lock.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

WRITER_LOCK = "writer.lock"


class WriterTurn:
    """The right to write next, among the processes that have this data folder open."""

    def __init__(self, data_dir: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(data_dir / WRITER_LOCK, flags, 0o600)

    def try_take(self) -> bool:
        """Take it if nobody has it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            # A file system without such locks: SQLite's own will do.
            pass
        return True

    def take(self) -> None:
        """Wait for it, as long as it takes: for a thread that may."""
        with suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def give(self) -> None:
        """Let the next one have it."""
        with suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._descriptor)
