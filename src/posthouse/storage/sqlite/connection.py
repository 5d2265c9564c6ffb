"""Opening connections to the database file: settings that durability and speed depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw

from posthouse.storage.errors import StorageDamaged

DATABASE = "posthouse.db"
APPLICATION_ID = 0x506F7374
PAGE_OCTETS = 4096
BUSY_TIMEOUT_MS = 10_000
MINIMUM_SQLITE = (3, 51, 3)
_WRITER_CACHE_KIB = 16 * 1024
_READER_CACHE_KIB = 4 * 1024


def check_library() -> None:
    """Refuse an SQLite older than the fix of the WAL-reset bug, which loses commits with several connections."""
    version = apsw.sqlite_lib_version()
    if tuple(map(int, version.split("."))) < MINIMUM_SQLITE:
        wanted = ".".join(map(str, MINIMUM_SQLITE))
        raise StorageDamaged(
            f"SQLite {version} can lose mail (WAL reset), {wanted} or newer is needed; run: pip install --upgrade apsw"
        )


def open_writable(path: Path, *, vfs: str | None, create: bool = False) -> apsw.Connection:
    """A connection that may write. A new database gets its page size and vacuum mode before the first table."""
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    connection = _connect(path, flags, vfs)
    try:
        if create:
            # (On a database that is there, the second of them is a commit.)
            connection.execute(f"PRAGMA page_size={PAGE_OCTETS}")
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        mode = connection.pragma("journal_mode", "wal")
        if mode != "wal":
            raise StorageDamaged(f"{path}: the disk does not allow write-ahead logging; put data_dir on a local disk")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA cache_size=-{_WRITER_CACHE_KIB}")
    except BaseException:
        connection.close(True)
        raise
    return connection


def open_reader(path: Path, *, vfs: str | None) -> apsw.Connection:
    """A connection that only reads. Whoever uses it finishes each query before the next await."""
    connection = _connect(path, apsw.SQLITE_OPEN_READWRITE, vfs)
    connection.execute(f"PRAGMA cache_size=-{_READER_CACHE_KIB}")
    connection.execute("PRAGMA query_only=ON")
    return connection


def _connect(path: Path, flags: int, vfs: str | None) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=flags, vfs=vfs, statementcachesize=256)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.wal_autocheckpoint(0)
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA temp_store=MEMORY")
    return connection


def rows(connection: apsw.Connection, sql: str, parameters: Any = None) -> list[Any]:
    """All rows of one query, which has ended when this returns: no read transaction stays open."""
    return connection.execute(sql, parameters).fetchall()


def row(connection: apsw.Connection, sql: str, parameters: Any = None) -> Any:
    """The first row of one query, which has ended when this returns; None when there is none."""
    found = connection.execute(sql, parameters).fetchall()
    return found[0] if found else None


def forget(connection: apsw.Connection) -> None:
    """Close as a killed process would: without the checkpoint that closing the last connection makes."""
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.close(True)
