"""A migration that rewrites what is there, and what may be left of a database while it runs."""

from __future__ import annotations

from pathlib import Path

import apsw
from tests.storage.crash.recording import Recorder

from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.sqlite.connection import DATABASE
from posthouse.storage.sqlite.migrate import Migrations, migrations
from posthouse.storage.sqlite.schema import open_database
from posthouse.storage.upkeep import Migrated

SEED = 20_261_123
NOW = 1_700_000_000.0
# A migration that rewrites what is there, as later ones will.
REBUILDS: Migrations = (
    *migrations(),
    (
        migrations()[-1][0] + 1,
        """
        CREATE TABLE rebuilt(domain TEXT PRIMARY KEY, more TEXT) STRICT, WITHOUT ROWID;
        INSERT INTO rebuilt SELECT domain, 'more' FROM domains;
        DROP TABLE domains;
        ALTER TABLE rebuilt RENAME TO domains;
        CREATE TABLE bulk(x BLOB) STRICT;
        INSERT INTO bulk SELECT randomblob(3000) FROM (VALUES (1), (2), (3), (4), (5), (6), (7), (8));
        """,
    ),
)
SCHEMA = REBUILDS[-1][0]


def complaint(folder: Path, *, must_be: int | None) -> str | None:
    """What is wrong with what a power cut left, if anything is; `must_be` is the schema that was promised."""
    path = folder / DATABASE
    snapshots = list(folder.glob("*.snapshot"))
    for one in snapshots:
        if (found := examined(one)) != (1, 1):
            return f"{one.name}: {found}"
    schema, mail = examined(path)
    if mail != 1 or schema not in (1, SCHEMA) or must_be not in (None, schema):
        return f"{schema}, {mail}, {must_be}"
    if schema == SCHEMA and not snapshots:
        return "migrated without a snapshot"
    # Whatever was left, the next start goes on.
    open_database(
        path,
        vfs=None,
        create=False,
        file_system=RealFileSystem(),
        now=NOW + 60,
        on_migrated=lambda _: None,
        known=REBUILDS,
    ).close(True)
    return None if examined(path) == (SCHEMA, 1) else "the next start did not migrate"


def examined(path: Path) -> tuple[int, int]:
    """(schema, entries) of a sound database."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        schema = connection.pragma("user_version")
        assert isinstance(schema, int)
        ((count,),) = connection.execute("SELECT count(*) FROM entries").fetchall()
        assert isinstance(count, int)
        return schema, count
    finally:
        connection.close()


def bring_up(recorder: Recorder) -> list[Migrated]:
    told: list[Migrated] = []
    connection = open_database(
        recorder.folder / DATABASE,
        vfs=recorder.vfs_name,
        create=False,
        file_system=recorder.file_system,
        now=NOW,
        on_migrated=told.append,
        known=REBUILDS,
    )
    connection.close(True)
    return told
