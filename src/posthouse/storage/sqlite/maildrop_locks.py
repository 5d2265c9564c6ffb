"""Who may expunge: for the sessions of this process a table in memory, for other processes a byte of one lock file.

The byte of account n is octet n of the file, which is empty and stays so. A record lock (fcntl) goes with the process
that holds it, however that ends; it also goes when that process closes *any* descriptor of the file, so the file is
opened once, here, and never elsewhere.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from posthouse.mail.ids import AccountId
from posthouse.mail.maildrop import MaildropLock
from posthouse.mail.world import Random

LOCK_FILE = "maildrops.lock"


class MaildropLocks:
    """This process's locks. Two of one folder in one process know nothing of each other."""

    def __init__(self, path: Path, random: Random) -> None:
        self._path = path
        self._random = random
        self._descriptor = -1
        self._tokens: dict[AccountId, str] = {}

    def take(self, account: AccountId) -> MaildropLock | None:
        """The lock, or None: another session has it, here or in another process. Raises OSError."""
        if account in self._tokens:
            return None
        if self._descriptor < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._path, flags, 0o600)
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, account)
        except (BlockingIOError, PermissionError):
            # POSIX leaves it open which of the two it is.
            return None
        token = self._tokens[account] = self._random.octets(16).hex()
        return MaildropLock(account, token)

    def holds(self, lock: MaildropLock) -> bool:
        """Whether it is still ours alone: not where the file was taken away, since others would lock a new one."""
        if self._tokens.get(lock.account) != lock.token:
            return False
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except OSError:
            return False

    def release(self, lock: MaildropLock) -> None:
        """Let the next session in. One that was lost is no error. Raises OSError."""
        if self._tokens.get(lock.account) == lock.token:
            del self._tokens[lock.account]
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, lock.account)

    def close(self) -> None:
        """Let go of all, as the end of the process does."""
        self._tokens.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
