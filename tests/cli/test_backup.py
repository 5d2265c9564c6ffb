"""`posthouse backup`, `restore` and `queue release --restored` as an operator uses them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from posthouse import __version__
from posthouse.workers import lock_folder
from tests.cli.conftest import CONFIG, Command, spawned
from tests.cli.test_queue import send
from tests.cli.test_serve_as_service import furnish_for_nobody, needs_root
from tests.running_house import RunningHouse
from tests.storage.sqlite.old import make_old


@pytest.fixture
def waiting(furnished: Command) -> str:
    """The house with a letter in its queue; its queue id. The house no longer runs."""
    with RunningHouse(Path(), ("ada@here.test",)) as house:
        return send(house.ports["submission"])


def test_a_backup_is_taken_and_restored(furnished: Command, waiting: str, tmp_path: Path) -> None:
    run = furnished.run
    (tmp_path / "self-signed.crt").write_text("certificate")
    (tmp_path / "self-signed.key").write_text("key")
    ran = run("backup", "saved")
    assert (ran.status, ran.err) == (0, "")
    assert "1 recipient in the queue" in ran.out
    assert f"posthouse restore {tmp_path / 'saved'}" in ran.out
    away = f"mv {tmp_path} {tmp_path}.old, then: cd / && posthouse restore {tmp_path}.old/saved"
    again = f"{away} --config {tmp_path}/posthouse.toml"
    assert run("restore", "saved").failed_with("holds a store already", again)
    for name in ("posthouse.db", "content", "self-signed.crt", "self-signed.key"):
        path = tmp_path / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    ran = run("restore", "saved")
    assert (ran.status, ran.err) == (0, "")
    assert "1 recipient is held" in ran.out
    assert "posthouse queue release --restored" in ran.out
    assert "posthouse serve" in ran.out
    assert (tmp_path / "self-signed.key").read_text() == "key"
    assert "held by restore" in run("queue", "list").out
    (row,) = json.loads(run("queue", "list", "--json").out)
    assert (row["held"], row["held_by_restore"]) == (True, True)
    assert run("queue", "release").failed_with("name one message")
    assert run("queue", "release", "--restored").failed_with("nothing was done", "--yes")
    assert run("queue", "release", waiting, "--all").failed_with("name one message")
    assert run("queue", "release", "--restored", "--yes").out.endswith("\n1 recipient released.\n")
    assert run("queue", "release", "--all").out.startswith("0 recipients released")
    events = json.loads(run("journey", waiting, "--json").out)
    assert [event["action"] for event in events if event["event"] == "operated"] == ["release"]
    assert run("check", "--store").status == 0


def test_what_a_refused_restore_says_to_do_restores(furnished: Command, tmp_path: Path) -> None:
    """Followed word for word, from inside the folder that it moves away."""
    assert furnished.run("backup", "../saved").out.splitlines()[-1].endswith(f" {tmp_path.parent / 'saved'}")
    refused = furnished.run("restore", "../saved").err
    line = refused.partition("move the folder away: ")[2].replace(", then: ", " && ")
    program = f"{sys.executable} -m posthouse.cli"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = line.replace("posthouse restore", f"{program} restore")
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "posthouse.db").exists()
    assert Path(f"{tmp_path}.old/posthouse.db").exists()


@needs_root
def test_a_place_that_the_owner_cannot_write_is_told_with_the_way_to_one(public_folder: Path) -> None:
    """Root says it, and the backup is made by the owner of the house."""
    (public_folder / "house").mkdir()
    furnish_for_nobody(public_folder / "house", CONFIG)
    for target, place in (("../saved", public_folder / "nobody-backups"), ("../new/saved", public_folder / "new")):
        refused = spawned("backup", target, folder=public_folder / "house")
        wrong = "cannot be written by nobody" if target == "../saved" else "does not exist"
        assert refused.failed_with(f"{(public_folder / 'house' / target).resolve().parent} {wrong}")
        command, _, again = refused.err.partition("make a place for it: sudo ")[2].partition(", then: posthouse ")
        assert command == f"install -d -o nobody -m 0700 {place}"
        subprocess.run(command.split(), check=True)
        made = spawned(*again.split(), folder=public_folder / "house")
        assert (made.status, made.err) == (0, "")
        assert (place / "saved" / "manifest.json").exists()


def test_a_lost_machine_is_restored_with_its_configuration(furnished: Command, tmp_path: Path) -> None:
    (row,) = json.loads(furnished.run("backup", "saved", "--json").out)
    assert (row["posthouse"], row["counts"]["accounts"]) == (__version__, 1)
    backup = tmp_path.parent / f"{tmp_path.name}-saved"
    (tmp_path / "saved").rename(backup)
    for path in tmp_path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    ran = furnished.run("restore", str(backup), "--json")
    assert ran.status == 0
    assert "configuration was put back" in ran.err
    assert (tmp_path / "posthouse.toml").read_text() == CONFIG
    assert (tmp_path / "posthouse.toml").stat().st_mode & 0o777 == (0o640 if os.geteuid() == 0 else 0o600)
    assert json.loads(ran.out)[0]["held"] == 0
    assert "ada@here.test" in furnished.run("account", "list").out


def test_certificates_of_others_are_said_to_be_left_out(furnished: Command, tmp_path: Path) -> None:
    (tmp_path / "posthouse.toml").write_text(CONFIG + '\n[tls]\ncertificate = "a.pem"\nkey = "k.pem"\n')
    out = furnished.run("backup", "saved").out
    assert f"does not hold {tmp_path / 'a.pem'}" in out
    assert f"does not hold {tmp_path / 'k.pem'}" in out


def test_what_cannot_be_done_is_one_line(furnished: Command, tmp_path: Path) -> None:
    run = furnished.run
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert run("backup", "full").failed_with("exists already")
    assert run("backup", "no/where").failed_with("does not exist", "install -d")
    assert run("restore", "nothing").failed_with("does not exist")
    assert run("restore", "full").failed_with("not a backup")
    assert run("restore", "posthouse.toml").failed_with("neither a backup nor a snapshot")


def test_without_any_configuration_the_backup_is_doubted(command: Command, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    assert command.run("restore", "odd").failed_with("is it a backup", "--config")


def test_a_house_that_runs_is_backed_up_and_not_restored_over(furnished: Command, tmp_path: Path) -> None:
    with RunningHouse(Path(), ("ada@here.test",)) as house:
        queue_id = send(house.ports["submission"])
        assert furnished.run("backup", "saved").status == 0
        assert furnished.run("restore", "saved").failed_with("end it first")
        assert queue_id in furnished.run("queue", "list").out


def test_a_failed_restore_leaves_no_folder(furnished: Command, tmp_path: Path) -> None:
    furnished.run("backup", "saved")
    (tmp_path / "saved" / "posthouse.db").write_bytes(b"x")
    (tmp_path / "posthouse.toml").write_text(CONFIG.replace('data_dir = "."', 'data_dir = "new/data"'))
    assert furnished.run("restore", "saved").failed_with("not what the manifest says")
    assert not (tmp_path / "new" / "data").exists()


def test_a_migration_is_undone(command: Command, tmp_path: Path) -> None:
    (tmp_path / "posthouse.toml").write_text(CONFIG)
    make_old(tmp_path)
    command.run("migrate")
    (snapshot,) = tmp_path.glob("*.snapshot")
    descriptor = lock_folder(tmp_path)
    assert command.run("restore", str(snapshot)).failed_with("end it first")
    os.close(descriptor)
    ran = command.run("restore", str(snapshot))
    assert (ran.status, ran.err) == (0, "")
    assert "1 message in maildrops" in ran.out
    assert "replaced-" in ran.out
    assert command.run("account", "list").failed_with("older posthouse")
    assert command.run("migrate").status == 0
    assert "alice@house.test" in command.run("account", "list").out


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_what_root_restores_is_not_roots(public_folder: Path) -> None:
    folder = public_folder / "house"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    told = ("--hostname", "mx.here.test", "--domain", "here.test", "--account", "ada@here.test")
    assert spawned("init", "house", *told, folder=public_folder).status == 0
    (public_folder / "saved").mkdir()
    os.chown(public_folder / "saved", 65534, 65534)
    assert spawned("backup", "../saved/one", folder=folder).status == 0
    shutil.rmtree(folder)
    config = CONFIG.replace('data_dir = "."', f'data_dir = "{public_folder / "var" / "house"}"')
    (public_folder / "posthouse.toml").write_text(config)
    ran = spawned("restore", "saved/one", folder=public_folder)
    assert (ran.status, ran.err) == (0, "")
    restored = public_folder / "var" / "house"
    assert {path.stat().st_uid for path in (restored, *restored.rglob("*"))} == {65534}
    assert spawned("account", "list", folder=public_folder).status == 0
