"""One session at a time with each source, whichever process has it: a running house, or a command."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from posthouse.mail.ids import SourceId


class AlreadyCollecting(Exception):
    """Another process has a session with this source now."""


@contextmanager
def turn(folder: Path, source: SourceId) -> Iterator[None]:
    """Hold the source's lock file in `folder`, which is made if need be. Raises AlreadyCollecting, OSError."""
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder / f"{source}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(descriptor)
        raise AlreadyCollecting from exc
    try:
        yield
    finally:
        os.close(descriptor)
