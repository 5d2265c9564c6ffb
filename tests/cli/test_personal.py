"""A personal house: two commands, and mail is collected and sent; what goes wrong leaves nothing behind."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.cli.elsewhere import policy_argument, server_argument
from posthouse.config import load, personal_folder
from posthouse.mail.source import Keeping, Policy, Protection, Server
from tests.cli.conftest import Command, Ran
from tests.house.test_addresses import emptied
from tests.house.test_forwarding import until_served
from tests.house.wire import Wire
from tests.running_house import PASSWORD, RunningHouse

FAR, CY = "bob@far.test", "cy@far.test"


@pytest.fixture
def far(tmp_path: Path) -> Iterator[RunningHouse]:
    with RunningHouse(tmp_path / "far", (FAR, CY)) as house:
        yield house


@pytest.fixture
def home(command: Command) -> Command:
    """A personal house at the usual place."""
    assert command.run("init", "--personal").status == 0
    return command


def servers(far: RunningHouse) -> tuple[str, ...]:
    pop3, smtp = (f"127.0.0.1:{far.ports[door]}" for door in ("pop3", "submission"))
    return "--pop3", pop3, "--smtp", smtp, "--protection", "none"


def added(home: Command, far: RunningHouse, *options: str) -> Ran:
    return home.run("add-account", FAR, *servers(far), "--password-stdin", *options, stdin=f"{PASSWORD}\n")


def left_behind(home: Command) -> list[object]:
    """Accounts, identities and secrets of a house."""
    rows: list[object] = json.loads(home.run("collect", "--list", "--json").out)
    rows += json.loads(home.run("identity", "list", "--json").out)
    return [*rows, *(path.name for path in (personal_folder() / "secrets").glob("*"))]


@pytest.mark.conformance("C298")
def test_a_house_for_its_owner_alone(command: Command) -> None:
    ran = command.run("init", "--personal")
    assert (ran.status, ran.err) == (0, "")
    assert "\n  posthouse add-account you@example.org\n" in ran.out
    folder = personal_folder()
    config = load(folder / "posthouse.toml")
    assert config.is_personal
    assert not any(getattr(config.listen, door) for door in type(config.listen).model_fields)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    assert modes == {0o600, 0o700}
    assert not list(folder.glob("*.crt"))
    # It is found without being named, and again.
    assert "posthouse.internal" in command.run("domain", "list").out
    assert command.run("init", "--personal").failed_with("exists already")


def test_a_house_elsewhere_is_named(command: Command) -> None:
    ran = command.run("init", "--personal", "mine")
    assert "posthouse add-account you@example.org --config mine/posthouse.toml" in ran.out
    assert command.run("init", "--personal", "--domain", "x.test").failed_with("no name, domain or address")


def test_the_house_here_comes_before_ones_own(home: Command) -> None:
    assert home.run("init", "--personal", ".").failed_with("is not an empty folder")
    (home.folder / "here").mkdir()
    home.run("init", "--personal", "here")
    assert "posthouse.internal" in home.run("domain", "list", "--config", "here/posthouse.toml").out


def test_check_does_not_ask_for_what_such_a_house_does_not_need(home: Command) -> None:
    ran = home.run("check")
    assert ran.status == 0, ran.out
    assert not any(word in ran.out for word in ("port", "certificate", "dns", "DNS", "SCRAM"))
    assert "no mail is collected from anywhere; run: posthouse add-account you@example.org" in ran.out


def test_two_commands_and_mail_comes_and_goes(home: Command, far: RunningHouse) -> None:
    ran = added(home, far, "--name", "Bob Ä. B.", "--keep", "7d", "--every", "10m")
    assert ran.status == 0, ran.err
    assert "Mail of bob@far.test is collected every 10 min and deleted there after 7 days." in ran.out
    assert "What you send as Bob Ä. B. <bob@far.test> leaves through 127.0.0.1:" in ran.out
    assert ran.out.endswith("Begin: posthouse collect --once\n")
    with Wire(far.ports["smtp"]) as wire:
        wire.greet()
        wire.deliver(b"Subject: hi\r\n\r\nhello\r\n", FAR)
    assert home.run("collect", "--once").out.startswith("bob@far.test: 1 new message")
    assert home.run("send", CY, "-s", "Hello", "-m", "there").status == 0
    with RunningHouse(personal_folder(), (), hostname="posthouse.internal", listen={}) as house:
        until_served(house)
    (message,) = emptied(far, CY)
    assert b"From: =?utf-8?" in message.lower() or b"from: =?utf-8?" in message.lower()
    assert b"<bob@far.test>" in message
    (row,) = json.loads(home.run("identity", "list", "--json").out)
    assert row["via"] == f"127.0.0.1:{far.ports['submission']} as bob@far.test"


def test_the_password_is_in_its_file_alone(home: Command, far: RunningHouse) -> None:
    ran = added(home, far, "--json")
    (row,) = json.loads(ran.out)
    assert row["login"] == FAR
    assert row["smtp_protection"] == "none"
    secret = personal_folder() / "secrets" / FAR
    assert secret.read_text() == f"{PASSWORD}\n"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    others = [path for path in personal_folder().rglob("*") if path.is_file() and path != secret]
    assert not any(PASSWORD.encode() in path.read_bytes() for path in others)
    assert PASSWORD not in ran.out + ran.err


@pytest.mark.conformance("C271")
def test_a_login_that_is_refused_leaves_nothing_behind(home: Command, far: RunningHouse) -> None:
    ran = home.run("add-account", FAR, *servers(far), "--password-stdin", stdin="open sesame\n")
    assert ran.failed_with("refused the login bob@far.test", "nothing was stored")
    assert "sesame" not in ran.out + ran.err
    assert left_behind(home) == []


def test_a_submission_server_that_is_another_houses_leaves_nothing_behind(
    home: Command, far: RunningHouse, tmp_path: Path
) -> None:
    with RunningHouse(tmp_path / "other", ("eve@other.test",)) as other:
        options = list(servers(far))
        options[3] = f"127.0.0.1:{other.ports['submission']}"
        ran = home.run("add-account", FAR, *options, "--password-stdin", stdin=f"{PASSWORD}\n")
        assert ran.failed_with(f"{options[3]} refused the login bob@far.test", "nothing was stored")
    assert left_behind(home) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--pop3", "127.0.0.1:1", "--smtp", "127.0.0.1:1"), ("Connection refused", "--pop3 HOST:PORT")),
        (("--pop3", "pop.far.test:110", "--protection", "none"), ("not on this machine", "in clear")),
        (("--keep", "sometimes"), ("is not leave, mirror, delete",)),
        (("--every", "5s"), ("is not between 1m and 30d",)),
        (("--folder", "a\nb"), ("cannot be the name of a folder",)),
        (("--name", "Bob\r\nBcc: eve@evil.test"), ("cannot be a name",)),
        (("--token-command", "x", "--password-stdin"), ("not both",)),
        (("--account", "eve@far.test"), ("there is no account eve@far.test here",)),
    ],
)
def test_what_cannot_be_is_told(home: Command, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert home.run("add-account", FAR, *options).failed_with(*words)
    assert left_behind(home) == []


def test_an_account_is_added_once_changed_and_removed(home: Command, far: RunningHouse) -> None:
    assert added(home, far).status == 0
    assert added(home, far).failed_with("collected from bob@far.test already", "posthouse change-account bob@far.test")
    ran = home.run("change-account", FAR, "--keep", "mirror", "--name", "Bob", "--every", "1h")
    assert ran.status == 0, ran.err
    assert "every 1 h and deleted there when it is deleted here" in ran.out
    assert "as Bob <bob@far.test>" in ran.out
    wrong = home.run("change-account", FAR, "--password-stdin", stdin="open sesame\n")
    assert wrong.failed_with("refused the login")
    assert (personal_folder() / "secrets" / FAR).read_text() == f"{PASSWORD}\n"
    assert home.run("change-account", FAR, "--password-stdin", stdin=f"{PASSWORD}\n").status == 0
    assert home.run("collect", "--once").out == "bob@far.test: nothing new\n"
    assert home.run("remove-account", FAR).out.startswith("Nothing is collected from bob@far.test any more")
    assert left_behind(home) == []
    assert home.run("remove-account", FAR).failed_with("no mail is collected from bob@far.test")
    assert home.run("change-account", FAR, "--keep", "leave").failed_with("no mail is collected from bob@far.test")


def test_check_tells_an_account_that_needs_a_password(home: Command, far: RunningHouse) -> None:
    added(home, far)
    assert "bob@far.test was not collected from yet" in home.run("check").out
    assert home.run("collect", "--once").status == 0
    assert "bob@far.test was collected from at " in home.run("check").out
    secret = personal_folder() / "secrets" / FAR
    secret.write_text("open sesame\n")
    home.run("collect", "--once")
    ran = home.run("check")
    assert ran.status == 1
    assert "bob@far.test needs a password: the login was refused" in ran.out
    assert "run: posthouse change-account bob@far.test --password" in ran.out
    secret.unlink()
    assert "bob@far.test needs a password: there is no password in" in home.run("check").out
    assert home.run("change-account", FAR, "--password-stdin", stdin=f"{PASSWORD}\n").status == 0
    assert home.run("check").status == 0


def test_an_account_that_only_collects(home: Command, far: RunningHouse) -> None:
    assert added(home, far, "--collect-only").status == 0
    assert json.loads(home.run("identity", "list", "--json").out) == []
    assert home.run("change-account", FAR, "--name", "Bob").failed_with("is not sent with the login of this account")
    assert home.run("remove-account", FAR).status == 0


def test_a_password_is_not_asked_for_where_nobody_types(home: Command, far: RunningHouse) -> None:
    ran = home.run("add-account", FAR, *servers(far))
    assert ran.failed_with("--password-stdin")
    assert home.run("add-account", FAR, *servers(far), "--password-stdin").failed_with("there is no password")
    assert left_behind(home) == []


def test_servers_are_read_as_they_are_written() -> None:
    assert server_argument("Pop.far.TEST", None, 995) == Server("pop.far.test", 995, Protection.IMPLICIT)
    assert server_argument("pop.far.test:110", None, 995).protection is Protection.STARTTLS
    assert server_argument("[::1]:1110", Protection.NONE, 995) == Server("::1", 1110, Protection.NONE)
    assert policy_argument("14d") == Policy(Keeping.DAYS, 14)
    assert policy_argument("0d") == Policy(Keeping.DELETE)


def test_who_has_no_address_elsewhere_cannot_write(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(command.folder))
    assert command.run("init", "--personal", "own").status == 0
    ran = command.run("send", "bob@far.test", "-m", "x", "--config", "own/posthouse.toml")
    assert ran.failed_with("no address that anybody could answer", "posthouse add-account ADDRESS")
    assert json.loads(command.run("queue", "list", "--json", "--config", "own/posthouse.toml").out) == []
