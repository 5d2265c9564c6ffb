"""`posthouse init`."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from posthouse.cli import house
from posthouse.config import load
from posthouse.storage.errors import StorageFull
from tests.cli.conftest import Command, spawned

TOLD = ("--hostname", "mx.here.test", "--domain", "here.test", "--account", "ada@here.test")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.conformance("C298", "S27", "S39")
def test_makes_a_private_house_that_loads(command: Command) -> None:
    ran = command.run("init", "house", *TOLD)
    assert (ran.status, ran.err) == (0, "")
    assert load(Path("house/posthouse.toml")).hostname == "mx.here.test"
    made = [Path("house"), *Path("house").rglob("*")]
    assert {mode(path) for path in made} == {0o600, 0o700}
    assert {mode(path) for path in made if path.is_dir()} == {0o700}
    assert not list(Path("house").glob(".init-*"))


def test_shows_a_password_once_and_the_command_that_comes_next(command: Command) -> None:
    ran = command.run("init", "house", *TOLD)
    assert re.search(r"password  ([a-z0-9]{5}-){3}[a-z0-9]{5}  ", ran.out)
    assert "posthouse serve --config house/posthouse.toml" in ran.out
    assert "ada@here.test" in command.run("account", "list", "--config", "house/posthouse.toml").out


def test_takes_what_follows_from_the_host_name(command: Command) -> None:
    ran = command.run("init", "house", "--hostname", "mx.here.test")
    assert "postmaster@here.test" in ran.out


def test_elsewhere_than_on_a_terminal_it_asks_nothing(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house, "guess_hostname", lambda *_: None)
    assert command.run("init", "house").failed_with("--hostname")
    assert not Path("house").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--hostname", "mx"), "full name"),
        (("--hostname", "../x"), "not a domain"),
        (("--hostname", "mx.here.test", "--account", "ada"), "not an address"),
        (("--hostname", "mx.here.test", "--account", "ada@else.test"), "--domain else.test"),
    ],
)
def test_refuses_what_would_not_work(command: Command, arguments: tuple[str, ...], word: str) -> None:
    assert command.run("init", "house", *arguments).failed_with(word)
    assert not Path("house").exists()


def test_leaves_what_is_there_alone(command: Command) -> None:
    Path("house").mkdir()
    Path("house/letter").write_text("mine")
    assert command.run("init", "house", *TOLD).failed_with("not an empty folder")
    assert Path("house/letter").read_text() == "mine"
    Path("house/posthouse.toml").write_text("")
    assert command.run("init", "house", *TOLD).failed_with("exists already", "posthouse serve --config")


@pytest.mark.parametrize("problem", [StorageFull("no space"), OSError(28, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [True, False])
def test_a_failed_init_leaves_nothing(
    command: Command, monkeypatch: pytest.MonkeyPatch, problem: BaseException, existing: bool
) -> None:
    async def fail(*_: object) -> None:
        raise problem

    monkeypatch.setattr(house, "_fill", fail)
    if existing:
        Path("above/house").mkdir(parents=True)
    ran = command.run("init", "above/house", *TOLD)
    assert ran.status != 0
    assert "Traceback" not in ran.err
    assert list(Path().rglob("*")) == ([Path("above"), Path("above/house")] if existing else [])


def test_a_parent_that_cannot_be_written_is_one_line(command: Command) -> None:
    Path("file").write_text("")
    assert command.run("init", "file/house", *TOLD).failed_with("file/house", "another folder")


def test_a_house_that_was_made_is_there_after_a_power_cut(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: dict[str, set[str]] = {}
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        synced[path] = set(os.listdir(path)) if os.path.isdir(path) else set()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    assert command.run("init", "new/house", *TOLD).status == 0
    house = command.folder / "new" / "house"
    assert {"posthouse.toml", "posthouse.db"} <= synced.get(str(house), set())
    assert "house" in synced.get(str(house.parent), set())
    assert "new" in synced.get(str(command.folder), set())


@root_only
def test_root_makes_the_house_of_the_folders_owner(public_folder: Path) -> None:
    folder = public_folder / "house"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    ran = spawned("init", "house", *TOLD, folder=public_folder)
    assert (ran.status, ran.err) == (0, "")
    assert {path.stat().st_uid for path in (folder, *folder.rglob("*"))} == {65534}
    assert spawned("account", "list", "--config", "house/posthouse.toml", folder=public_folder).status == 0
    assert {path.stat().st_uid for path in folder.rglob("*")} == {65534}
