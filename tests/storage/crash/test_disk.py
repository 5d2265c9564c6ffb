"""The model of the disk itself: what it keeps, what it may lose, and that SQLite survives on it only when it syncs."""

from __future__ import annotations

import random
from pathlib import Path

import apsw
import pytest
from tests.storage.crash.disk import (
    Disk,
    FolderSynced,
    MadeFile,
    MadeFolder,
    Operation,
    Removed,
    Synced,
    SyncFailed,
    Truncated,
    Wrote,
    power_cuts,
    states,
    variants,
    write_out,
)
from tests.storage.crash.recording import Fault, Kind, Recorder, Trouble

MADE: list[Operation] = [MadeFile("a", 1), FolderSynced(".")]


def every_state(log: list[Operation]) -> dict[str, dict[str, bytes | None]]:
    """Every variant of a power cut after the whole log."""
    disk = Disk()
    for operation in log:
        disk.play(operation)
    cuts = variants(disk.position, disk.uncertain(), 0, random.Random(0))
    return {cut.variant: disk.after(cut) for cut in cuts}


def test_an_unsynced_write_may_be_lost_or_torn_and_a_synced_one_is_kept() -> None:
    log = [*MADE, Wrote(1, 0, b"old!"), Synced(1), Wrote(1, 2, b"NEWER!")]
    assert every_state(log) == {
        "unsynced dropped": {"a": b"old!"},
        "unsynced kept": {"a": b"olNEWER!"},
        "last write torn at 5": {"a": b"olNEWER"},
    }
    assert every_state([*log, Synced(1)]) == {"unsynced dropped": {"a": b"olNEWER!"}}


def test_a_write_is_torn_at_the_edge_of_a_sector_too() -> None:
    log: list[Operation] = [*MADE, Wrote(1, 500, bytes([1]) * 1000)]
    torn = every_state(log)["last write torn at 12"]["a"]
    assert torn == bytes(500) + bytes([1]) * 12


def test_a_name_is_durable_when_its_folder_was_synced() -> None:
    log: list[Operation] = [MadeFile("a", 1), Wrote(1, 0, b"x"), Synced(1)]
    assert every_state(log)["unsynced dropped"] == {}
    assert every_state([*log, FolderSynced(".")])["unsynced dropped"] == {"a": b"x"}
    removed = [*log, FolderSynced("."), Removed("a")]
    assert every_state(removed)["unsynced dropped"] == {"a": b"x"}
    assert every_state(removed)["unsynced kept"] == {}


def test_a_file_goes_with_its_folder() -> None:
    log: list[Operation] = [MadeFolder("f"), MadeFile("f/a", 1), FolderSynced("f")]
    assert every_state(log)["unsynced dropped"] == {}
    assert every_state([*log, FolderSynced(".")])["unsynced dropped"] == {"f": None, "f/a": b""}


def test_a_truncation_may_be_lost() -> None:
    log = [*MADE, Wrote(1, 0, b"octets"), Synced(1), Truncated(1, 0)]
    assert every_state(log) == {"unsynced dropped": {"a": b"octets"}, "unsynced kept": {"a": b""}}


def test_what_a_failed_sync_left_in_doubt_stays_in_doubt_until_it_is_written_again() -> None:
    log = [*MADE, Wrote(1, 0, b"aa"), SyncFailed(1), Wrote(1, 1, b"bb"), Synced(1)]
    assert every_state(log) == {"unsynced dropped": {"a": b"\0bb"}, "unsynced kept": {"a": b"abb"}}
    again = [*log, Wrote(1, 0, b"aa"), Synced(1)]
    assert every_state(again)["unsynced dropped"] == every_state(again)["unsynced kept"] == {"a": b"aab"}


def test_equal_states_are_given_once_at_the_latest_moment() -> None:
    log = [*MADE, Wrote(1, 0, b"a"), Wrote(1, 1, b"b"), Synced(1)]
    cuts = [(cut.position, cut.variant) for cut in power_cuts(log, since=2, shuffles=0, seed=0)]
    assert cuts == [(3, "unsynced kept"), (4, "unsynced dropped"), (5, "unsynced dropped")]


def run_toy(recorder: Recorder, path: Path, synchronous: str) -> list[int]:
    """Ten commits and two checkpoints; the operations that had been carried out when each commit returned."""
    database = apsw.Connection(str(path), vfs=recorder.vfs_name)
    for pragma in ("journal_mode=WAL", f"synchronous={synchronous}", "wal_autocheckpoint=0"):
        database.execute(f"PRAGMA {pragma}").fetchall()
    database.execute("CREATE TABLE toy (number INTEGER PRIMARY KEY, octets)")
    acknowledged = [recorder.position]
    for number in range(1, 11):
        database.execute("INSERT INTO toy VALUES (?, zeroblob(6000))", (number,))
        acknowledged.append(recorder.position)
        if number in (4, 8):
            database.wal_checkpoint(
                mode=apsw.SQLITE_CHECKPOINT_PASSIVE if number == 4 else apsw.SQLITE_CHECKPOINT_TRUNCATE
            )
    database.close()
    return acknowledged


def lost(folder: Path, files: dict[str, bytes | None], acknowledged: int) -> str | None:
    """What is wrong with the toy database after a power cut, if anything is."""
    folder.mkdir()
    write_out(files, folder)
    try:
        database = apsw.Connection(str(folder / "toy.db"))
        numbers = [number for (number,) in database.execute("SELECT number FROM toy ORDER BY number")]
        check = database.execute("PRAGMA quick_check").fetchall()
        database.close()
    except apsw.Error as error:
        return str(error)
    if check != [("ok",)]:
        return str(check)
    whole = numbers == list(range(1, len(numbers) + 1))
    return (
        None
        if whole and acknowledged <= len(numbers) <= acknowledged + 1
        else f"{acknowledged} acknowledged, {numbers} there"
    )


def losses(folder: Path, synchronous: str, cuts_per_log: int) -> list[str]:
    """Run the toy and cut the power; the complaints."""
    (folder / "live").mkdir()
    recorder = Recorder(folder / "live")
    acknowledged = run_toy(recorder, folder / "live" / "toy.db", synchronous)
    recorder.close()
    cuts = power_cuts(recorder.log, since=acknowledged[0], shuffles=1, seed=1)
    chosen = sorted(random.Random(2).sample(cuts, min(cuts_per_log, len(cuts))), key=lambda cut: cut.position)
    complaints = []
    for number, (cut, files) in enumerate(states(recorder.log, chosen)):
        done = sum(position <= cut.position for position in acknowledged[1:])
        complaint = lost(folder / str(number), files, done)
        complaints += [f"{cut}: {complaint}"] if complaint else []
    return complaints


@pytest.mark.conformance("C313")
def test_sqlite_loses_nothing_when_it_syncs_each_commit(tmp_path: Path) -> None:
    assert losses(tmp_path, "FULL", 150) == []


@pytest.mark.conformance("C313")
@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
def test_sqlite_is_seen_to_lose_commits_when_it_does_not(tmp_path: Path, synchronous: str) -> None:
    assert losses(tmp_path, synchronous, 150)


@pytest.mark.parametrize(
    ("kind", "trouble", "expected"),
    [
        (Kind.WRITE, Trouble.FULL, apsw.FullError),
        (Kind.WRITE, Trouble.BROKEN, apsw.IOError),
        (Kind.SYNC, Trouble.FULL, apsw.IOError),
        (Kind.SYNC, Trouble.BROKEN, apsw.IOError),
    ],
)
def test_an_operation_can_be_made_to_fail(
    tmp_path: Path, kind: Kind, trouble: Trouble, expected: type[apsw.Error]
) -> None:
    recorder = Recorder(tmp_path)
    database = apsw.Connection(str(tmp_path / "toy.db"), vfs=recorder.vfs_name)
    database.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE toy (number)").fetchall()
    recorder.fault = Fault(trouble, 0, frozenset({kind}))
    with pytest.raises(expected):
        database.execute("INSERT INTO toy VALUES (1)")
    assert recorder.fault.hit == (kind, "toy.db-wal")
    recorder.fault = None
    database.execute("INSERT INTO toy VALUES (1)")
    assert database.execute("SELECT count(*) FROM toy").fetchall() == [(1,)]
    database.close()
    recorder.close()


def test_the_file_system_is_recorded_and_fails_on_demand(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    files = recorder.file_system
    files.make_folder(tmp_path / "f")
    descriptor = files.create(tmp_path / "f" / "a")
    files.write(descriptor, b"one")
    files.write(descriptor, b"two")
    files.sync(descriptor)
    files.sync_folder(tmp_path / "f")
    recorder.fault = Fault(Trouble.FULL, 0)
    with pytest.raises(OSError, match="No space left"):
        files.write(descriptor, b"more")
    recorder.fault = None
    files.close(descriptor)
    files.remove(tmp_path / "f" / "a")
    recorder.close()
    assert recorder.log == [
        MadeFolder("f"),
        MadeFile("f/a", 1),
        Wrote(1, 0, b"one"),
        Wrote(1, 3, b"two"),
        Synced(1),
        FolderSynced("f"),
        Wrote(1, 6, b"mo"),
        Removed("f/a"),
    ]
