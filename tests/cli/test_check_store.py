"""`posthouse check --store` and `posthouse migrate`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import apsw
import pytest

from posthouse.net.tls import make_self_signed
from posthouse.workers import lock_folder
from tests.cli.conftest import CONFIG, Command
from tests.running_house import RunningHouse
from tests.storage.sqlite.old import make_old


def meddle(folder: Path, sql: str) -> None:
    connection = apsw.Connection(str(folder / "posthouse.db"))
    connection.execute(sql)
    connection.close()


def test_a_sound_store_is_said_to_be_so(furnished: Command) -> None:
    ran = furnished.run("check", "--store")
    assert (ran.status, ran.err) == (0, "")
    assert "as it must be" in ran.out
    assert json.loads(furnished.run("check", "--store", "--json").out) == []


def test_what_is_wrong_is_told_with_what_to_do_and_mended(furnished: Command) -> None:
    meddle(furnished.folder, "UPDATE folders SET message_count = 4")
    ran = furnished.run("check", "--store")
    assert ran.failed_with("1 problem")
    assert "posthouse check --store --mend" in ran.out
    (row,) = json.loads(furnished.run("check", "--store", "--json").out)
    assert (row["state"], row["check"]) == ("problem", "counters")
    assert furnished.run("check", "--store", "--mend").failed_with("check again")
    assert furnished.run("check", "--store").status == 0
    assert furnished.run("check", "--mend").failed_with("goes with --store")


def test_only_who_may_migrates(command: Command) -> None:
    (command.folder / "posthouse.toml").write_text(CONFIG)
    make_old(command.folder)
    for only_looks in (("queue", "list"), ("account", "list"), ("check", "--store"), ("journey", "--refused")):
        assert command.run(*only_looks).failed_with("older posthouse", "posthouse upgrade")
    assert "older posthouse" in command.run("check").out
    assert list(command.folder.glob("*.snapshot")) == []
    out = command.run("migrate").out
    (snapshot,) = command.folder.glob("*.snapshot")
    assert str(snapshot) in out
    assert "of this version already" in command.run("migrate").out
    assert command.run("queue", "list").out == "Nothing waits.\n"


def test_serve_migrates_and_says_how_to_return(command: Command) -> None:
    (command.folder / "posthouse.toml").write_text(CONFIG)
    make_old(command.folder)
    with RunningHouse(command.folder) as house:
        assert command.run("queue", "list").out == "Nothing waits.\n"
    (snapshot,) = command.folder.glob("*.snapshot")
    (line,) = [line for line in house.log.getvalue().splitlines() if "database migrated" in line]
    told = json.loads(line)
    assert (told["return_with"], told["snapshot"]) == ("posthouse rollback", str(snapshot))


def test_a_house_that_runs_is_not_migrated_under_its_feet(command: Command) -> None:
    (command.folder / "posthouse.toml").write_text(CONFIG)
    make_old(command.folder)
    descriptor = lock_folder(command.folder)
    assert command.run("migrate").failed_with("serves", "end it first")
    os.close(descriptor)


@pytest.mark.conformance("S39")
def test_a_key_that_everybody_may_read_is_a_problem(furnished: Command) -> None:
    pair = furnished.folder / "self-signed.crt", furnished.folder / "self-signed.key"
    make_self_signed("mx.here.test", *pair, time.time())
    assert pair[1].stat().st_mode & 0o777 == 0o600
    assert furnished.run("check").status == 0
    pair[1].chmod(0o644)
    ran = furnished.run("check")
    assert ran.failed_with("1 problem")
    assert f"chmod o=,g-w {pair[1]}" in ran.out
