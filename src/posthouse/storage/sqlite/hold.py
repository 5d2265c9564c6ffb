"""Holding the sweep: while a backup links content files, no process of this house may remove them.

Whoever removes files holds the lock alone and only for one step; whoever needs them to stay shares it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from posthouse.storage.sqlite.errors import storage_errors

LOCK_NAME = "sweep.lock"
PAUSE_S = 0.02
"""Between two steps of a sweep, so that whoever waits to hold it gets in."""
_POLL_S = 0.005


class SweepLock:
    """One house's. The lock goes with the process that has it."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / LOCK_NAME

    @contextmanager
    def sweeping(self) -> Iterator[bool]:
        """Whether files may be removed until the end of the block."""
        descriptor = self._open()
        try:
            yield _locked(descriptor, fcntl.LOCK_EX)
        finally:
            os.close(descriptor)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """No file that a row names is removed until the end of the block."""
        descriptor = self._open()
        try:
            # (Another process has it: there is no event to wait for.)
            while not _locked(descriptor, fcntl.LOCK_SH):  # noqa: ASYNC110
                await asyncio.sleep(_POLL_S)
            yield
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        with storage_errors():
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
