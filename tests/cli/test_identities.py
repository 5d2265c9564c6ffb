"""`posthouse identity`: who may send as addresses of other houses, and what is said where a login is missing."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from posthouse.cli.check_identities import login_wanted
from posthouse.cli.identities import via_argument
from tests.cli.conftest import Command
from tests.house.wire import Wire
from tests.running_house import PASSWORD, RunningHouse

ADD = ("identity", "add", "Ada@Far.test", "--account", "ada@here.test")


def test_an_identity_comes_and_goes(furnished: Command) -> None:
    assert furnished.run("identity", "list").out.startswith("No identity yet. Add one: posthouse identity add ")
    assert json.loads(furnished.run("identity", "list", "--json").out) == []
    added = furnished.run(*ADD, "--via", "Mail.FAR.test:587")
    assert added.status == 0
    assert added.out == (
        "ada@here.test may send as Ada@far.test now; what is sent so leaves through mail.far.test:587.\n"
    )
    assert furnished.run("identity", "add", "b@far.test", "--account", "ADA@here.test").status == 0
    assert json.loads(furnished.run("identity", "list", "--json").out) == [
        {"address": "Ada@far.test", "account": "ada@here.test", "via": "mail.far.test:587"},
        {"address": "b@far.test", "account": "ada@here.test", "via": None},
    ]
    assert furnished.run("identity", "list").out.splitlines()[1].split() == [
        "Ada@far.test",
        "ada@here.test",
        "mail.far.test:587",
    ]
    assert furnished.run("identity", "remove", "ADA@far.test").out == (
        "Nobody here may send as ADA@far.test any more.\n"
    )
    assert "Ada@" not in furnished.run("identity", "list").out


def test_a_via_without_a_login_is_told(furnished: Command) -> None:
    table = '[forwarding.login."mail.far.test:465"]'
    assert table in furnished.run(*ADD, "--via", "mail.far.test:465").err
    shown = furnished.run("check").out
    assert "problem  identity       for mail from Ada@far.test: there is no login for mail.far.test:465" in shown
    assert table in shown
    furnished.run("identity", "remove", "ada@far.test")
    assert furnished.run(*ADD).err == ""
    assert "identity  " not in furnished.run("check").out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("identity add nobody --account ada@here.test", ("'nobody' is not an address",)),
        ("identity add a@far.test", ("--account", "posthouse identity add --help")),
        ("identity add a@far.test --account bob@here.test", ("no account bob@here.test", "posthouse account list")),
        ("identity add a@here.test --account ada@here.test", ("posthouse alias add a@here.test ada@here.test",)),
        ("identity add a@far.test --account ada@here.test --via mail.far.test", ("lacks a port", "mail.far.test:587")),
        ("identity add a@far.test --account ada@here.test --via a_b:587", ("not a host name",)),
        ("identity add a@far.test --account ada@here.test --via x.test:0", ("port 0",)),
        ("identity remove a@far.test", ("no identity a@far.test", "posthouse identity list")),
    ],
)
def test_what_cannot_be_done_is_one_line(furnished: Command, line: str, words: tuple[str, ...]) -> None:
    assert furnished.run(*line.split()).failed_with(*words)


def test_a_domain_with_identities_does_not_become_local(furnished: Command) -> None:
    furnished.run(*ADD)
    assert furnished.run(*ADD).failed_with("already", "posthouse identity remove Ada@far.test")
    assert furnished.run("domain", "add", "far.test").failed_with("posthouse identity remove Ada@far.test")
    furnished.run("identity", "remove", "ada@far.test")
    assert furnished.run("domain", "add", "far.test").status == 0


def test_the_queue_says_through_which_server_mail_leaves(furnished: Command) -> None:
    furnished.run(*ADD, "--via", "127.0.0.1:1")
    with RunningHouse(Path(), ("ada@here.test",)) as house, Wire(house.ports["submission"]).greet() as wire:
        secret = base64.b64encode(f"\0ada@here.test\0{PASSWORD}".encode()).decode()
        assert wire.say(f"AUTH PLAIN {secret}").startswith(b"235 ")
        queue_id = wire.deliver(b"\r\nx\r\n", "bob@far.test", sender="ada@far.test")
    (row,) = json.loads(furnished.run("queue", "list", "--json").out)
    assert (row["destination"], row["via"]) == ("far.test", "127.0.0.1:1")
    assert "leaves    through 127.0.0.1:1, as mail of Ada@far.test" in furnished.run("queue", "show", queue_id).out
    assert "by way of 127.0.0.1:1" in furnished.run("journey", queue_id).out


def test_a_via_with_a_login_is_right() -> None:
    logins = SimpleNamespace(forwarding=SimpleNamespace(login={"mail.far.test:587": object(), "[2001:db8::1]:465": 1}))
    for via in ("Mail.far.test:587", "[2001:DB8::1]:465"):
        assert login_wanted(logins, via_argument(via)) is None  # type: ignore[arg-type]
    assert login_wanted(logins, via_argument("mail.far.test:465")) is not None  # type: ignore[arg-type]
    assert login_wanted(logins, "") is None  # type: ignore[arg-type]


def test_a_backup_holds_identities(furnished: Command) -> None:
    furnished.run(*ADD, "--via", "mail.far.test:587")
    assert furnished.run("backup", "copy").status == 0
    furnished.run("identity", "remove", "ada@far.test")
    assert furnished.run("check", "--store").status == 0
    for name in ("posthouse.db", "posthouse.db-wal", "posthouse.db-shm"):
        (furnished.folder / name).unlink(missing_ok=True)
    for file in sorted((furnished.folder / "content").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    (furnished.folder / "content").rmdir()
    restored = furnished.run("restore", "copy")
    assert restored.status == 0, restored.err
    assert "mail.far.test:587" in furnished.run("identity", "list").out
