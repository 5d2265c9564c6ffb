"""`posthouse upgrade`, `upgrade --check` and `rollback` as an operator uses them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.sqlite.connection import DATABASE, open_writable
from posthouse.storage.sqlite.migrate import migrations
from posthouse.workers import lock_folder
from tests.cli.conftest import CONFIG, Command, spawned
from tests.running_house import RunningHouse
from tests.storage.sqlite.old import make_old

NEWEST = migrations()[-1][0]


@pytest.fixture
def old(command: Command) -> Command:
    """The folder of a house that the first version made, with one message in it."""
    (command.folder / "posthouse.toml").write_text(CONFIG)
    make_old(command.folder)
    return command


def change(folder: Path, sql: str) -> None:
    connection = open_writable(folder / DATABASE, vfs=None)
    connection.execute(sql)
    connection.close()


def test_an_upgrade_is_tried_done_and_undone(old: Command) -> None:
    ran = old.run("upgrade", "--check")
    assert (ran.status, ran.err) == (0, "")
    assert f"from schema 1 to {NEWEST} was tried on a copy. Nothing is changed." in ran.out
    assert "  table secrets is new\n" in ran.out
    assert "All mail is as it was" in ran.out
    assert "of room; " in ran.out
    assert "Do it: end the house, then posthouse upgrade" in ran.out
    assert old.run("account", "list").failed_with("older posthouse")
    ran = old.run("upgrade")
    (snapshot,) = old.folder.glob("*.snapshot")
    assert (ran.status, ran.err) == (0, "")
    assert f"The database is of schema {NEWEST} now; it was of 1." in ran.out
    assert "1 message in maildrops of 1 account" in ran.out
    assert str(snapshot) in ran.out
    assert "posthouse rollback" in ran.out
    assert "already" in old.run("upgrade").out
    assert "already" in old.run("upgrade", "--check").out
    assert "alice@house.test" in old.run("account", "list").out
    change(old.folder, "INSERT INTO secrets VALUES ('a', x'00')")
    ran = old.run("rollback")
    assert (ran.status, ran.err) == (0, "")
    assert "The database is of schema 1 again" in ran.out
    assert "1 message in maildrops of 1 account" in ran.out
    assert "does not know it: 1 row of secrets" in ran.out
    assert "Install the older version now" in ran.out
    assert old.run("account", "list").failed_with("older posthouse")
    assert old.run("rollback").failed_with("nothing to go back from", "posthouse upgrade")


def test_all_of_it_for_programs(old: Command) -> None:
    (tried,) = json.loads(old.run("upgrade", "--check", "--json").out)
    assert (tried["before"], tried["after"], tried["ok"], tried["flaws"]) == (1, NEWEST, True, [])
    (done,) = json.loads(old.run("upgrade", "--json").out)
    assert (done["before"], Path(done["snapshot"]).exists()) == (1, True)
    assert json.loads(old.run("upgrade", "--json").out) == []
    (undone,) = json.loads(old.run("rollback", "--json").out)
    assert (undone["after"], undone["counts"]["entries"], undone["left_out"]) == (1, 1, [])


def test_the_name_of_earlier_versions_still_does_it(old: Command) -> None:
    assert f"of schema {NEWEST} now" in old.run("migrate").out
    assert "migrate" not in old.run("--help").out


def test_a_house_that_serves_is_neither_upgraded_nor_rolled_back(old: Command) -> None:
    descriptor = lock_folder(old.folder)
    assert old.run("upgrade").failed_with("another process serves", "end it first, then upgrade")
    assert old.run("upgrade", "--check").status == 0
    os.close(descriptor)
    with RunningHouse(old.folder):
        assert old.run("rollback").failed_with("another process serves", "end it first, then roll back")
        assert "already" in old.run("upgrade", "--check").out
    assert old.run("rollback").status == 0


def test_what_is_wrong_on_the_copy_fails_the_check(old: Command) -> None:
    change(old.folder, "UPDATE folders SET message_count = 7")
    ran = old.run("upgrade", "--check")
    assert ran.failed_with("not ready for the upgrade", "1 problem on the copy")
    assert "counts 7 entries" in ran.out
    assert "Do it" not in ran.out
    ran = old.run("upgrade", "--check", "--json")
    assert ran.failed_with("not ready")
    assert json.loads(ran.out)[0]["ok"] is False


def test_too_little_room_is_one_line(old: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RealFileSystem, "free_octets", lambda self, folder: 5_000_000)
    assert old.run("upgrade", "--check").failed_with("needs 17 MB and 5 MB are free", "make room in")
    assert old.run("upgrade").failed_with("needs 17 MB and 5 MB are free", "nothing was changed", "make room in")
    # Enough for the copy, not for the migration's own writes, which the trial measures.
    free = iter((80_000_000, 5_000_000))
    monkeypatch.setattr(RealFileSystem, "free_octets", lambda self, folder: next(free))
    ran = old.run("upgrade", "--check")
    assert ran.failed_with("not ready", "too little room")


def test_databases_that_cannot_be_upgraded_are_one_line_each(old: Command) -> None:
    three = ("upgrade", "--check"), ("upgrade",), ("rollback",)
    change(old.folder, "PRAGMA user_version=99")
    for command in three:
        assert old.run(*command).failed_with("newer version (schema 99)", "install that one", "posthouse rollback")
    change(old.folder, "PRAGMA user_version=1")
    change(old.folder, "INSERT INTO contents(size_octets, sha256, file) VALUES (9, x'00', '00/a-1')")
    for command in three[:2]:
        assert old.run(*command).failed_with("half of a house", "content/", "posthouse restore")
    path = old.folder / DATABASE
    path.write_bytes(path.read_bytes()[:9000])
    for command in three:
        assert old.run(*command).failed_with("damaged", "posthouse restore")
    path.write_bytes(b"")
    for command in three:
        assert old.run(*command).failed_with("empty", "posthouse init")
    path.write_bytes(b"what is this")
    for command in three:
        assert old.run(*command).failed_with("not a database", "posthouse restore")
    path.unlink()
    for command in three:
        assert old.run(*command).failed_with("no database that can be opened", "posthouse init")
    assert list(old.folder.glob(".upgrade*")) == []


def test_too_late_is_one_line(old: Command) -> None:
    old.run("upgrade")
    change(old.folder, f"UPDATE migrations SET applied_at = applied_at - {8 * 86_400}")
    assert old.run("rollback").failed_with("8 days ago", "within 7 days", "stay with this version", "posthouse restore")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_what_root_upgrades_is_not_roots(public_folder: Path) -> None:
    folder = public_folder / "house"
    make_old(folder)
    (folder / "posthouse.toml").write_text(CONFIG)
    for path in (folder, *folder.iterdir()):
        os.chown(path, 65534, 65534)
    for command in (("upgrade", "--check"), ("upgrade",), ("rollback",)):
        ran = spawned(*command, folder=folder)
        assert (ran.status, ran.err) == (0, "")
    assert {path.stat().st_uid for path in (folder, *folder.rglob("*"))} == {65534}
