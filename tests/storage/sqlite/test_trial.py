"""An upgrade is tried on a copy: it tells what would come, changes nothing and leaves nothing."""

from __future__ import annotations

import hashlib
import os
from itertools import count
from pathlib import Path

import pytest

from posthouse.storage.errors import StorageDamaged, StorageError, StorageFull
from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.sqlite import trial
from posthouse.storage.sqlite.connection import DATABASE, open_writable
from posthouse.storage.sqlite.migrate import Migrations, migrations
from posthouse.storage.sqlite.trial import try_migration
from posthouse.storage.upkeep import Progress, Tell, Trial, tell_nobody
from tests.storage.sqlite.old import FIRST, make_old

NEWEST = migrations()[-1][0]
NOW = 1_700_000_000.0


async def tried(
    folder: Path, *, known: Migrations | None = None, disk: RealFileSystem | None = None, tell: Tell = tell_nobody
) -> Trial:
    ticks = count()
    return await try_migration(
        folder, now=NOW, disk=disk or RealFileSystem(), tell=tell, known=known, seconds=lambda: float(next(ticks))
    )


def state(folder: Path) -> dict[str, str]:
    """Every file with its octets."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if not path.is_dir()
    } | {path.name: "" for path in folder.iterdir() if path.is_dir()}


async def test_it_tells_what_would_change_and_changes_nothing(tmp_path: Path) -> None:
    make_old(tmp_path)
    open_writable(tmp_path / DATABASE, vfs=None).close(True)
    before = state(tmp_path)
    steps: list[Progress] = []
    found = await tried(tmp_path, tell=steps.append)
    assert state(tmp_path) == before
    assert (found.before, found.after, found.flaws) == (1, NEWEST, ())
    assert "table secrets is new" in found.changes
    assert "table credentials gets scram_stored_key, scram_server_key" in found.changes
    assert "index credentials_without_scram is new" in found.changes
    assert (found.copy_s, found.migration_s, found.check_s) == (1.0, 1.0, 1.0)
    assert 16 * 1024 * 1024 < found.needed_octets < found.free_octets
    assert {"copy of the database", "entries", "structure"} <= {step.step for step in steps}


async def test_a_house_may_serve_meanwhile(tmp_path: Path) -> None:
    path = make_old(tmp_path)
    house = open_writable(path, vfs=None)
    house.execute("INSERT INTO domains VALUES ('more.test')")

    def write(_progress: Progress) -> None:
        house.execute("INSERT OR IGNORE INTO domains VALUES ('during.test')")

    assert (await tried(tmp_path, tell=write)).flaws == ()
    house.execute("INSERT INTO domains VALUES ('after.test')")
    assert house.execute("SELECT count(*) FROM domains").fetchall() == [(4,)]
    assert house.pragma("user_version") == 1
    house.close()


async def test_there_may_be_nothing_to_do(tmp_path: Path) -> None:
    make_old(tmp_path, migrations())
    assert await tried(tmp_path) == Trial(before=NEWEST, after=NEWEST)


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("CREATE TABLE domains(x)", "would fail .*already exists.*stay with the older version"),
        ("DELETE FROM contents", "refer to nothing"),
        ("UPDATE entries SET uidl = 'x'", "would change mail .in entries"),
    ],
)
async def test_a_migration_that_would_fail_is_told(sql: str, words: str, tmp_path: Path) -> None:
    make_old(tmp_path)
    open_writable(tmp_path / DATABASE, vfs=None).close(True)
    before = state(tmp_path)
    with pytest.raises(StorageError, match=words) as caught:
        await tried(tmp_path, known=(*FIRST, (2, sql)))
    assert "\n" not in str(caught.value)
    assert state(tmp_path) == before


async def test_what_is_wrong_in_the_rows_is_told(tmp_path: Path) -> None:
    path = make_old(tmp_path)
    house = open_writable(path, vfs=None)
    house.execute("UPDATE folders SET message_count = 7")
    house.close()
    (flaw,) = (await tried(tmp_path)).flaws
    assert (flaw.check, "counts 7 entries" in flaw.what) == ("counters", True)


async def test_a_folder_that_was_copied_in_part_is_told(tmp_path: Path) -> None:
    path = make_old(tmp_path)
    house = open_writable(path, vfs=None)
    for name in ("00/a-1", "00/a-2", "00/a-3"):
        house.execute("INSERT INTO contents(size_octets, sha256, file) VALUES (4, x'00', ?)", (name,))
    with pytest.raises(StorageDamaged, match="half of a house"):
        await tried(tmp_path)
    (tmp_path / "content" / "00").mkdir(parents=True)
    (tmp_path / "content" / "00" / "a-1").write_bytes(b"mail")
    (tmp_path / "content" / "00" / "a-2").write_bytes(b"m")
    (flaw,) = (await tried(tmp_path)).flaws
    assert "2 content files of 3 missing or cut short" in flaw.what

    def sweep(progress: Progress) -> None:
        if progress.step == "content files":
            house.execute("DELETE FROM contents WHERE file IN ('00/a-2', '00/a-3')")

    # What a house that serves removes meanwhile is not missed.
    assert (await tried(tmp_path, tell=sweep)).flaws == ()
    house.close()


async def test_a_newer_a_foreign_and_no_database_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageDamaged, match="no database that can be opened"):
        await tried(tmp_path)
    path = make_old(tmp_path)
    house = open_writable(path, vfs=None)
    house.execute("PRAGMA user_version=99")
    with pytest.raises(StorageDamaged, match="newer version"):
        await tried(tmp_path)
    house.execute("PRAGMA application_id=7")
    with pytest.raises(StorageDamaged, match="another program"):
        await tried(tmp_path)
    house.close()


async def test_no_room_is_told_with_how_much(tmp_path: Path) -> None:
    class Full(RealFileSystem):
        def free_octets(self, folder: Path) -> int:
            return 1_000_000

    make_old(tmp_path)
    with pytest.raises(StorageFull, match=r"needs 17 MB and 1 MB are free.*make room"):
        await tried(tmp_path, disk=Full())


async def test_a_trial_that_died_is_cleared_away_one_that_lives_is_not(tmp_path: Path) -> None:
    make_old(tmp_path)
    ruin = tmp_path / ".upgrade-check-1"
    ruin.mkdir()
    (ruin / DATABASE).write_bytes(b"mail of somebody")
    with trial.work_folder(tmp_path) as living:
        assert not ruin.exists()
        assert living.stat().st_mode & 0o777 == 0o700
        # (Another process has another number.)
        other = living.rename(tmp_path / ".upgrade-check-2")
        assert (await tried(tmp_path)).flaws == ()
        assert other.exists()
        other.rename(living)
    assert [name for name in os.listdir(tmp_path) if name.startswith(".upgrade")] == []
