"""An old database is brought up after a snapshot, by whoever may; a newer one is refused with who can read it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import pytest

from posthouse import __version__
from posthouse.mail.ids import AccountId
from posthouse.storage.errors import StorageBusy, StorageDamaged, StorageError, StorageFull, StorageOutdated
from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.sqlite import migrate
from posthouse.storage.sqlite.connection import DATABASE, open_writable
from posthouse.storage.sqlite.migrate import Migrations, OnMigrated, migrations
from posthouse.storage.sqlite.schema import open_database
from posthouse.storage.sqlite.storage import SqliteStorage
from posthouse.storage.upkeep import Migrated
from tests.storage.contract.world import SeededRandom, SetClock
from tests.storage.sqlite.old import make_old

NEWEST = migrations()[-1][0]
NOW = 1_700_000_000.0
BROKEN: Migrations = (*migrations(), (NEWEST + 1, "CREATE TABLE half(x) STRICT; CREATE TABLE domains(x)"))


def bring_up(
    path: Path, *, known: Migrations | None = None, told: OnMigrated | None, disk: RealFileSystem | None = None
) -> None:
    connection = open_database(
        path,
        vfs=None,
        create=False,
        file_system=disk or RealFileSystem(),
        now=NOW,
        on_migrated=told,
        known=known,
    )
    connection.close()


def schema_and_mail(path: Path) -> tuple[int, int]:
    connection = apsw.Connection(str(path))
    found = connection.pragma("user_version"), connection.execute("SELECT count(*) FROM entries").fetchall()[0][0]
    connection.close()
    return found  # type: ignore[return-value]


def names(path: Path) -> set[str]:
    return {one.name for one in path.parent.iterdir()} - {f"{DATABASE}-wal", f"{DATABASE}-shm", "migrate.lock"}


async def test_an_old_database_is_brought_up_after_a_snapshot(tmp_path: Path) -> None:
    path = make_old(tmp_path)
    told: list[Migrated] = []
    storage = await SqliteStorage.open(tmp_path, clock=SetClock(NOW), random=SeededRandom(1), on_migrated=told.append)
    assert (await storage.maildrops.list(AccountId(1))).uidls == ("01QUEUE",)
    await storage.close()
    snapshot = tmp_path / "posthouse-schema-1-20231114T221320Z.snapshot"
    assert told == [Migrated(path=path, before=1, after=NEWEST, snapshot=snapshot)]
    assert snapshot.stat().st_mode & 0o777 == 0o600
    assert schema_and_mail(snapshot) == (1, 1)
    assert schema_and_mail(path) == (NEWEST, 1)
    connection = apsw.Connection(str(path))
    applied = connection.execute("SELECT number, posthouse, applied_at FROM migrations").fetchall()
    assert applied == [(number, __version__, NOW) for number, _ in migrations()[1:]]
    connection.close()


async def test_a_new_database_has_no_snapshot_and_says_who_made_it(tmp_path: Path) -> None:
    storage = await SqliteStorage.open(tmp_path, clock=SetClock(NOW), random=SeededRandom(1), create=True)
    await storage.close()
    assert list(tmp_path.glob("*.snapshot")) == []
    connection = apsw.Connection(str(tmp_path / DATABASE))
    assert connection.execute("SELECT count(*), min(posthouse) FROM migrations").fetchall() == [
        (len(migrations()), __version__)
    ]
    connection.close()


async def test_who_only_looks_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = make_old(tmp_path)
    with pytest.raises(StorageOutdated, match=r"schema 1.*posthouse upgrade"):
        await SqliteStorage.open(tmp_path, clock=SetClock(NOW), random=SeededRandom(1))
    assert schema_and_mail(path) == (1, 1)
    assert names(path) == {DATABASE}


def test_a_newer_database_is_refused_with_the_version_that_reads_it(tmp_path: Path) -> None:
    path = make_old(tmp_path)
    bring_up(path, told=lambda _: None)
    connection = open_writable(path, vfs=None)
    connection.execute("INSERT INTO migrations VALUES (99, '7.3.1', 0); PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StorageDamaged, match=r"newer version.*install posthouse 7\.3\.1") as caught:
        bring_up(path, told=lambda _: None)
    assert "posthouse restore" in str(caught.value)
    assert "schema-1-2023" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_full_disk_refuses_the_migration_before_anything_is_changed(tmp_path: Path) -> None:
    class Full(RealFileSystem):
        def free_octets(self, folder: Path) -> int:
            return 1_000_000

    path = make_old(tmp_path)
    with pytest.raises(StorageFull, match="make room in") as caught:
        bring_up(path, told=lambda _: pytest.fail("told"), disk=Full())
    assert "\n" not in str(caught.value)
    assert schema_and_mail(path) == (1, 1)
    assert names(path) == {DATABASE}


@pytest.mark.conformance("S27")
def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    path = make_old(tmp_path)
    (tmp_path / "migrate.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        bring_up(path, told=lambda _: pytest.fail("told"))
    assert not (tmp_path / "victim").exists()
    assert schema_and_mail(path) == (1, 1)


def test_a_migration_that_fails_leaves_the_database_and_no_snapshot(tmp_path: Path) -> None:
    path = make_old(tmp_path)
    with pytest.raises(apsw.SQLError):
        bring_up(path, known=BROKEN, told=lambda _: pytest.fail("told"))
    assert schema_and_mail(path) == (1, 1)
    assert names(path) == {DATABASE}
    bring_up(path, told=lambda _: None)


def test_a_migration_that_leaves_rows_dangling_is_undone(tmp_path: Path) -> None:
    path = make_old(tmp_path)
    dangling = (*migrations(), (NEWEST + 1, "DELETE FROM contents"))
    with pytest.raises(StorageDamaged, match="refer to nothing"):
        bring_up(path, known=dangling, told=lambda _: pytest.fail("told"))
    assert schema_and_mail(path) == (1, 1)


def write_beside(path: Path) -> None:
    """Another process, which knows only the old schema, has a change to make."""
    other = open_writable(path, vfs=None)
    other.execute("INSERT INTO domains VALUES ('another' || (SELECT count(*) FROM domains))")
    other.close()


def test_what_is_written_between_snapshot_and_migration_is_in_the_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_old(tmp_path)
    really = migrate.write_snapshot
    disturbed: list[Path] = []

    def disturb(path: Path, snapshot: Path, **rest: object) -> None:
        really(path, snapshot, **rest)  # type: ignore[arg-type]
        if not disturbed:
            disturbed.append(snapshot)
            write_beside(path)

    monkeypatch.setattr(migrate, "write_snapshot", disturb)
    told: list[Migrated] = []
    bring_up(path, told=told.append)
    copy = apsw.Connection(str(told[0].snapshot))
    assert copy.execute("SELECT count(*) FROM domains").fetchall() == [(2,)]
    copy.close()


def test_workers_that_start_together_migrate_once(tmp_path: Path) -> None:
    path = make_old(tmp_path)
    told: list[Migrated] = []
    start = threading.Barrier(4)

    def worker() -> None:
        start.wait(10)
        bring_up(path, told=told.append)

    with ThreadPoolExecutor(4) as workers:
        for done in [workers.submit(worker) for _ in range(4)]:
            done.result(30)
    assert len(told) == 1
    assert list(tmp_path.glob("*.snapshot")) == [told[0].snapshot]
    assert schema_and_mail(path) == (NEWEST, 1)


def test_a_database_that_is_never_at_rest_is_not_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_old(tmp_path)
    really = migrate.write_snapshot

    def disturb(path: Path, snapshot: Path, **rest: object) -> None:
        really(path, snapshot, **rest)  # type: ignore[arg-type]
        write_beside(path)

    monkeypatch.setattr(migrate, "write_snapshot", disturb)
    with pytest.raises(StorageBusy, match="kept changing"):
        bring_up(path, told=lambda _: pytest.fail("told"))
    assert list(tmp_path.glob("*.snapshot")) == []
    assert issubclass(StorageBusy, StorageError)
