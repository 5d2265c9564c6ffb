"""The way back of each migration, and what refuses to go it."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import apsw
import pytest

from posthouse.storage.errors import NoWayBack, StorageBusy, StorageDamaged, StorageError, StorageFull, StorageOutdated
from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.sqlite import migrate
from posthouse.storage.sqlite.changes_of_schema import shape_of
from posthouse.storage.sqlite.connection import DATABASE, open_writable
from posthouse.storage.sqlite.migrate import Migrations, migrations
from posthouse.storage.sqlite.rollback import WaysBack, roll_back, ways_back
from posthouse.storage.sqlite.schema import open_database
from posthouse.storage.sqlite.snapshots import KEPT_S
from posthouse.storage.upkeep import RolledBack, tell_nobody
from tests.storage.sqlite.old import make_old

KNOWN = migrations()
NEWEST = KNOWN[-1][0]
NOW = 1_700_000_000.0
DAY_S = 86_400.0
NEXT: Migrations = (*KNOWN, (NEWEST + 1, "CREATE TABLE added(x TEXT PRIMARY KEY) STRICT"))


def bring_up(path: Path, known: Migrations = KNOWN, now: float = NOW) -> None:
    open_database(
        path,
        vfs=None,
        create=False,
        file_system=RealFileSystem(),
        now=now,
        on_migrated=lambda _: None,
        known=known,
    ).close()


def back(
    data_dir: Path,
    *,
    now: float = NOW + DAY_S,
    known: Migrations | None = None,
    ways: WaysBack | None = None,
    disk: RealFileSystem | None = None,
) -> RolledBack:
    return roll_back(data_dir, now=now, disk=disk or RealFileSystem(), tell=tell_nobody, known=known, ways=ways)


def facts(path: Path) -> tuple[object, object, object]:
    connection = apsw.Connection(str(path))
    try:
        mail = connection.execute("SELECT uidl FROM entries").fetchall()
        return connection.pragma("user_version"), shape_of(connection), mail
    finally:
        connection.close()


def change(path: Path, sql: str) -> None:
    connection = open_writable(path, vfs=None)
    connection.execute(sql)
    connection.close()


def names(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()} - {f"{DATABASE}-wal", f"{DATABASE}-shm", "migrate.lock"}


def test_every_migration_but_the_first_has_its_way_back() -> None:
    folder = resources.files("posthouse.storage.sqlite") / "migrations"
    there = {file.name for file in folder.iterdir() if file.name.endswith(".sql") and not file.name.startswith("0001")}
    undone = {file.name for file in (folder / "back").iterdir()}
    assert undone == there, "write what undoes it into migrations/back/, under the same name"
    numbers = [number for number, _ in KNOWN]
    assert len(numbers) == len(set(numbers))
    assert set(ways_back()) == set(numbers[1:])


@pytest.mark.parametrize("place", range(1, len(KNOWN)))
def test_a_way_back_leaves_the_schema_as_the_migration_found_it(place: int, tmp_path: Path) -> None:
    path = make_old(tmp_path, KNOWN[:place])
    before = facts(path)
    bring_up(path, KNOWN[: place + 1])
    if place == 1:
        # No version with this command has a schema without the table that tells when it came.
        change(path, "CREATE TABLE migrations(number INTEGER PRIMARY KEY, posthouse TEXT, applied_at REAL)")
        change(path, f"INSERT INTO migrations VALUES (2, '0', {NOW})")
        ways = {2: ways_back()[2] + "; DROP TABLE migrations"}
        done = back(tmp_path, known=KNOWN[:2], ways=ways)
    else:
        done = back(tmp_path, known=KNOWN[: place + 1])
    assert (done.before, done.after) == (KNOWN[place][0], KNOWN[place - 1][0])
    assert facts(path) == before
    bring_up(path)
    assert facts(path)[0] == NEWEST


def test_the_snapshot_has_the_state_before_the_way_back(tmp_path: Path) -> None:
    path = make_old(tmp_path)
    bring_up(path)
    change(path, "INSERT INTO secrets VALUES ('a', x'00'), ('b', x'01')")
    done = back(tmp_path)
    assert done.left_out == ("2 rows of secrets",)
    assert done.migrated_at == NOW
    assert (done.counts.accounts, done.counts.entries) == (1, 1)
    assert done.snapshot.stat().st_mode & 0o777 == 0o600
    assert facts(done.snapshot)[0] == NEWEST
    assert facts(path)[0] == 1


def test_what_may_have_been_sent_is_held_for_the_older_program(tmp_path: Path) -> None:
    path = make_old(tmp_path)
    bring_up(path)
    row = "INSERT INTO spool(queue_id, recipient_number, forward_local_part, forward_domain, via, domain, not_before,"
    row += " expires_at, sending_at, claim_token, claim_incarnation) VALUES ('01QUEUE', "
    change(path, f"{row} 1, 'r', 'far.test', '', 'far.test', 1.0, 9.0, 5.0, 't', 'dead')")
    change(path, f"{row} 2, 'r', 'far.test', '', 'far.test', 1.0, 9.0, 5.0, NULL, NULL)")
    change(path, f"{row} 3, 'r', 'far.test', '', 'far.test', 1.0, 9.0, NULL, NULL, NULL)")
    assert back(tmp_path).held == 2
    connection = apsw.Connection(str(path))
    found = connection.execute("SELECT recipient_number, held, claim_token FROM spool ORDER BY 1").fetchall()
    connection.close()
    assert found == [(1, 1, None), (2, 1, None), (3, 0, None)]


def test_two_upgrades_are_undone_one_by_one(tmp_path: Path) -> None:
    path = make_old(tmp_path, KNOWN[:3])
    bring_up(path, KNOWN)
    bring_up(path, NEXT, now=NOW + DAY_S)
    ways = {**ways_back(), NEWEST + 1: "DROP TABLE added"}
    assert back(tmp_path, now=NOW + 2 * DAY_S, known=NEXT, ways=ways).after == NEWEST
    # Again by mistake, with the same program: it is not the one to say how far back.
    with pytest.raises(NoWayBack, match=r"nothing to go back from.*posthouse upgrade"):
        back(tmp_path, now=NOW + 2 * DAY_S, known=NEXT, ways=ways)
    assert back(tmp_path, now=NOW + 2 * DAY_S).after == KNOWN[2][0]


def refused(data_dir: Path, error: type[StorageError], words: str, **named: object) -> None:
    path = data_dir / DATABASE
    before, there = facts(path), names(data_dir)
    with pytest.raises(error, match=words) as caught:
        back(data_dir, **named)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert facts(path) == before
    assert names(data_dir) == there


def test_after_seven_days_it_is_too_late(tmp_path: Path) -> None:
    path = make_old(tmp_path)
    bring_up(path)
    words = "within 7 days: stay with this version, or lose what came since: posthouse restore .*schema-1-.*snapshot"
    refused(tmp_path, NoWayBack, words, now=NOW + KEPT_S + 1)
    (snapshot,) = tmp_path.glob("*.snapshot")
    snapshot.unlink()
    refused(tmp_path, NoWayBack, "stay with this version$", now=NOW + KEPT_S + 1)
    # The snapshot is not needed; nor is a clock that went backwards a reason.
    assert back(tmp_path, now=NOW - DAY_S).after == 1
    bring_up(path)
    assert back(tmp_path, now=NOW + KEPT_S).after == 1


def test_a_house_that_was_never_upgraded_has_nothing_to_go_back_to(tmp_path: Path) -> None:
    make_old(tmp_path, KNOWN)
    refused(tmp_path, NoWayBack, "never upgraded.*posthouse restore")


def test_an_older_and_a_newer_database_are_refused(tmp_path: Path) -> None:
    path = make_old(tmp_path)
    refused(tmp_path, NoWayBack, "nothing to go back from")
    bring_up(path)
    change(path, "INSERT INTO migrations VALUES (99, '7.3.1', 0); PRAGMA user_version=99")
    refused(tmp_path, StorageDamaged, r"newer version.*install posthouse 7\.3\.1.*posthouse rollback")


def test_a_migration_without_a_way_back_is_refused(tmp_path: Path) -> None:
    bring_up(make_old(tmp_path))
    refused(tmp_path, NoWayBack, "migration 3 cannot be undone", ways={2: "SELECT 1", 4: "SELECT 1"})


def test_no_room_for_the_snapshot(tmp_path: Path) -> None:
    class Full(RealFileSystem):
        def free_octets(self, folder: Path) -> int:
            return 1_000_000

    bring_up(make_old(tmp_path))
    refused(tmp_path, StorageFull, "make room in", disk=Full())


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("DELETE FROM entries", "would change mail .in entries"),
        ("UPDATE entries SET uidl = 'x'", "would change mail"),
        ("UPDATE folders SET uid_validity = 1", "would change mail .in folders"),
        ("DELETE FROM events; DELETE FROM accounts", "refer to nothing"),
        ("DROP TABLE entries; CREATE TABLE entries(x)", "the way back could not be gone"),
        ("nonsense", "syntax error"),
    ],
)
def test_a_way_back_that_would_lose_mail_is_not_gone(sql: str, words: str, tmp_path: Path) -> None:
    bring_up(make_old(tmp_path))
    refused(tmp_path, StorageError, words, ways={**ways_back(), NEWEST: f"{ways_back()[NEWEST]};{sql}"})


def test_whoever_writes_meanwhile_is_not_overlooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_old(tmp_path)
    bring_up(path)
    really = migrate.write_snapshot

    def disturb(path: Path, snapshot: Path, **rest: object) -> None:
        really(path, snapshot, **rest)  # type: ignore[arg-type]
        change(path, "INSERT INTO domains VALUES ('another')")

    monkeypatch.setattr(migrate, "write_snapshot", disturb)
    with pytest.raises(StorageBusy, match="another process changed"):
        back(tmp_path)
    assert facts(path)[0] == NEWEST
    assert len(list(tmp_path.glob("*.snapshot"))) == 1


def test_a_database_without_its_content_folder_is_half_a_house(tmp_path: Path) -> None:
    path = make_old(tmp_path)
    change(path, "INSERT INTO contents(size_octets, sha256, file) VALUES (9, x'00', '00/a-1')")
    with pytest.raises(StorageDamaged, match=r"half of a house.*content/.*posthouse restore"):
        bring_up(path)
    (tmp_path / "content").mkdir()
    bring_up(path)


def test_half_of_a_database_is_refused(tmp_path: Path) -> None:
    path = make_old(tmp_path)
    bring_up(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for go in (lambda: bring_up(path), lambda: back(tmp_path)):
        with pytest.raises(StorageDamaged, match=r"damaged.*posthouse restore") as caught:
            go()
        assert "\n" not in str(caught.value)
    assert issubclass(StorageOutdated, StorageError)


def test_what_a_sending_limit_holds_is_held_by_an_operator_for_the_older_program(tmp_path: Path) -> None:
    path = make_old(tmp_path)
    bring_up(path)
    row = "INSERT INTO spool(queue_id, recipient_number, forward_local_part, forward_domain, via, domain, not_before,"
    change(path, f"{row} expires_at, held) VALUES ('01QUEUE', 1, 'r', 'far.test', '', 'far.test', 1.0, 9.0, 3)")
    assert back(tmp_path).after == 1
    connection = apsw.Connection(str(path))
    held = connection.execute("SELECT held FROM spool").fetchall()
    connection.close()
    assert held == [(1,)]
