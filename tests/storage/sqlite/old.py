"""Databases as other versions made them."""

from __future__ import annotations

from pathlib import Path

from posthouse.storage.filesystem import FileSystem, RealFileSystem
from posthouse.storage.sqlite.connection import DATABASE, forget
from posthouse.storage.sqlite.migrate import Migrations, migrations
from posthouse.storage.sqlite.schema import open_database

FIRST = migrations()[:1]
"""What the first version knew."""

_MAIL = """
INSERT INTO domains VALUES ('house.test');
INSERT INTO accounts(login, login_key, created_at, scram_salt, scram_iterations)
    VALUES ('alice@house.test', 'alice@house.test', 1.0, x'00', 4096);
INSERT INTO addresses VALUES ('alice@house.test', 'alice', 'house.test', 1);
INSERT INTO contents(size_octets, sha256, octets)
    VALUES (4, x'00d8d3f11739d2f3537099982b4674c29fc59a8fda350fca1379613adbb09119', CAST('mail' AS BLOB));
INSERT INTO messages VALUES ('01QUEUE', 1, 1.0, NULL, NULL, x'', NULL, NULL, 0, '7BIT', 2, 0, 0, 0, 0, NULL);
INSERT INTO folders(account, name, uid_validity, next_uid, message_count, used_octets)
    VALUES (1, 'Inbox', 7, 2, 1, 4);
INSERT INTO entries VALUES (1, 1, 1, '01QUEUE', 1, '01QUEUE', 0, 4, '', 1, 'alice', 'house.test', x'');
"""


def make_old(
    data: Path, known: Migrations = FIRST, *, vfs: str | None = None, file_system: FileSystem | None = None
) -> Path:
    """A database with one letter in it, as the version that knew only these migrations left it; its path."""
    data.mkdir(exist_ok=True)
    disk = file_system or RealFileSystem()
    connection = open_database(data / DATABASE, vfs=vfs, create=True, file_system=disk, now=1.0, known=known)
    connection.execute(f"BEGIN; {_MAIL}; COMMIT")
    forget(connection)
    return data / DATABASE
