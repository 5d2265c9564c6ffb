"""What storage may fail with. Every engine maps its own errors to these, `from exc`."""

from __future__ import annotations


class StorageError(Exception):
    """Storage could not do what was asked; nothing was changed."""


class StorageBusy(StorageError):
    """Not now: lost connection, lock, I/O error. Becomes `451 4.3.0` or `[SYS/TEMP]`."""


class StorageFull(StorageError):
    """No space is left. Becomes `452 4.3.1`."""


class AccountGone(StorageError):
    """The account was removed meanwhile."""


class StorageDamaged(StorageError):
    """The database or a content file is damaged or not ours; the message says which and what to do."""


class StorageOutdated(StorageError):
    """The database is of an older version and whoever opened it may not change that; the message says what does."""


class NoWayBack(StorageError):
    """A migration cannot be undone, or there is none; the message says why and what to do."""


class DirectoryConflict(StorageError):
    """A change to the directory contradicts what is there; the message is for the operator."""


class StoreInTheWay(StorageBusy):
    """There is a store already where one is to be put."""
