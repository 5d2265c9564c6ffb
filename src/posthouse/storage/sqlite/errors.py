"""The one place where errors of SQLite and of the disk become those of `storage/errors.py`."""

from __future__ import annotations

import errno

import apsw

from posthouse.storage.errors import StorageBusy, StorageDamaged, StorageError, StorageFull

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def translated(exc: Exception) -> Exception:
    """Our error for one of SQLite's or the disk's; any other (a bug, or ours already) as it is."""
    match exc:
        case StorageError():
            return exc
        case apsw.FullError():
            return StorageFull("the database's disk is full")
        case apsw.CorruptError() | apsw.NotADBError():
            return StorageDamaged(f"the database is damaged ({exc}); run: posthouse restore DIR")
        case apsw.Error():
            return StorageBusy(f"the database could not do it now ({type(exc).__name__}: {exc})")
        case OSError(errno=number) if number in _FULL:
            return StorageFull("the disk of the content files is full")
        case OSError():
            which = "a content file" if exc.filename is None else exc.filename
            return StorageBusy(f"{which} could not be used now ({exc.strerror})")
        case _:
            return exc


class _StorageErrors:
    """A class rather than a generator: it stands around a look-up for each recipient."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, exc: BaseException | None, _trace: object) -> None:
        if isinstance(exc, (apsw.Error, OSError)):
            raise translated(exc) from exc


_STORAGE_ERRORS = _StorageErrors()


def storage_errors() -> _StorageErrors:
    """Errors inside become ours, `from` the original."""
    return _STORAGE_ERRORS
