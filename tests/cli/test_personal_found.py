"""`posthouse add-account` where servers are looked for: what is shown and asked before a password is."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from posthouse.cli import elsewhere, elsewhere_proof, personal_steps
from posthouse.config import personal_folder
from posthouse.net import connect
from posthouse.net.dns import Service
from tests.cli.conftest import Command, Ran
from tests.discovery.provider import Provider, page, pop3, running_aside, smtp
from tests.discovery.test_search import AUTOCONFIG, NAMES, document

ADA = "ada@far.test"


def furnish(provider: Provider) -> None:
    tls = provider.authority.server(*NAMES, "pop.elsewhere.test", "evil.test")
    for host in ("pop.far.test", "pop.elsewhere.test", "evil.test"):
        offers = ("USER", "SASL PLAIN XOAUTH2")
        provider.servers[host, 995] = pop3(tls=tls, implicit=True, offers=offers)
    for host in ("smtp.far.test", "elsewhere.test"):
        provider.servers[host, 465] = smtp(tls=tls, implicit=True)
    provider.web_tls = tls


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """A provider whose names lead to loopback."""
    (tmp_path / "far").mkdir()
    with running_aside(tmp_path / "far", furnish) as provider:
        monkeypatch.setattr(connect, "TcpConnector", lambda: provider)
        monkeypatch.setattr(elsewhere_proof, "resolver_of", lambda _config: provider)
        yield provider


@pytest.fixture
def home(command: Command, far: Provider) -> Command:
    assert command.run("init", "--personal").status == 0
    config = personal_folder() / "posthouse.toml"
    authorities = f'tls_authorities = "{far.authority.file}"\n'
    config.write_text(f"{config.read_text()}[collection]\n{authorities}[forwarding]\n{authorities}")
    return command


def add(home: Command, *options: str) -> Ran:
    return home.run("add-account", ADA, "--password-stdin", *options, stdin="geheim\n")


def test_what_is_found_is_shown_and_both_logins_are_proven(home: Command, far: Provider) -> None:
    ran = add(home, "--yes")
    assert ran.status == 0, ran.err
    assert "  collect  pop.far.test:995, TLS, as ada@far.test   (a usual name)\n" in ran.out
    assert "  send     smtp.far.test:465, TLS, as ada@far.test   (a usual name)\n" in ran.out
    plain = base64.b64encode(b"\0ada@far.test\0geheim").decode()
    assert far.passwords() == ["USER ada@far.test", "PASS geheim", f"AUTH PLAIN {plain}"]


def test_an_autoconfig_names_servers_and_login(home: Command, far: Provider) -> None:
    far.pages = {AUTOCONFIG: page(document(user="%EMAILLOCALPART%"))}
    ran = add(home, "--yes", "--json")
    assert ran.status == 0, ran.err
    assert "pop.elsewhere.test:995, TLS, as ada   (its autoconfig)" in ran.err
    (row,) = json.loads(ran.out)
    assert (row["pop3"], row["smtp"], row["login"]) == ("pop.elsewhere.test:995", "elsewhere.test:465", "ada")


def test_nothing_is_taken_unasked(home: Command, far: Provider) -> None:
    assert add(home).failed_with("this is not a terminal that could be asked; say that it is right: --yes")
    assert far.passwords() == []


@pytest.mark.conformance("C218")
def test_what_only_dns_says_is_not_taken_by_yes(home: Command, far: Provider) -> None:
    far.records = {"_pop3s._tcp.far.test": (Service(0, 0, 995, "evil.test"),)}
    ran = add(home, "--yes")
    assert ran.status == 1
    assert "evil.test:995 is not in far.test, and only DNS says that it is meant" in ran.out
    assert "say that it is right: --pop3 evil.test:995 --smtp smtp.far.test:465" in ran.err
    assert far.passwords() == []
    assert add(home, "--pop3", "evil.test:995", "--smtp", "smtp.far.test").status == 0


class Terminal:
    """Somebody who reads, and answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, answers: bool) -> None:
        self.asked: list[tuple[str, bool]] = []
        self._answers = answers
        monkeypatch.setattr(typer, "confirm", self._confirm)
        monkeypatch.setattr(personal_steps, "is_terminal", lambda: True)

    def _confirm(self, question: str, default: bool) -> bool:
        self.asked.append((question, default))
        return self._answers


@pytest.mark.parametrize("vouched", [True, False])
def test_who_says_no_has_told_nobody_anything(
    home: Command, far: Provider, monkeypatch: pytest.MonkeyPatch, vouched: bool
) -> None:
    if not vouched:
        far.records = {"_pop3s._tcp.far.test": (Service(0, 0, 995, "evil.test"),)}
    terminal = Terminal(monkeypatch, answers=False)
    assert add(home).status == 130
    assert terminal.asked == [("Is that right?", vouched)]
    assert far.passwords() == []
    assert json.loads(home.run("collect", "--list", "--json").out) == []


def test_who_says_yes_is_asked_for_the_password(home: Command, far: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    Terminal(monkeypatch, answers=True)
    asked: list[bool] = []

    def typed(question: str, *, hide_input: bool, err: bool) -> str:
        assert question == "The password of ada@far.test"
        asked.append(hide_input and err)
        return "geheim"

    monkeypatch.setattr(elsewhere.typer, "prompt", typed)
    monkeypatch.setattr(elsewhere, "is_typed", lambda: True)
    ran = home.run("add-account", ADA)
    assert ran.status == 0, ran.err
    assert asked == [True]
    assert "PASS geheim" in far.passwords()


def test_a_token_is_asked_for_each_time(home: Command, far: Provider, tmp_path: Path) -> None:
    count = tmp_path / "asked"
    program = tmp_path / "token.py"
    program.write_text(f"open({str(count)!r}, 'a').write('x')\nprint('t0ken')\n")
    ran = home.run("add-account", ADA, "--yes", "--token-command", f"{sys.executable} {program}")
    assert ran.status == 0, ran.err
    spelled = base64.b64encode(f"user={ADA}\x01auth=Bearer t0ken\x01\x01".encode()).decode()
    assert far.passwords() == ["AUTH XOAUTH2", f"AUTH XOAUTH2 {spelled}"]
    assert spelled in far.servers["pop.far.test", 995].commands
    assert count.read_text() == "x"
    assert not list((personal_folder() / "secrets").glob("*"))
    kept = [path.read_bytes() for path in personal_folder().rglob("*") if path.is_file()]
    assert not any(b"t0ken" in octets for octets in kept)


def test_a_token_command_that_fails_is_told(home: Command, far: Provider) -> None:
    ran = home.run("add-account", ADA, "--yes", "--token-command", "false")
    assert ran.failed_with("false ended with 1")
    assert far.passwords() == []
    assert json.loads(home.run("collect", "--list", "--json").out) == []


def test_a_server_that_takes_tokens_only_says_so(home: Command, far: Provider) -> None:
    far.servers["pop.far.test", 995].offers = ("SASL XOAUTH2",)
    assert add(home, "--yes").failed_with("pop.far.test:995 takes no passwords", "--token-command")
    assert far.passwords() == []


def test_a_domain_without_servers_says_what_was_tried(home: Command, far: Provider) -> None:
    ran = home.run("add-account", "ada@nowhere.test", "--yes")
    assert ran.failed_with(
        "nowhere.test has no POP3 server that can be used (", "Connection refused", "--pop3 HOST:PORT"
    )
    far.missing = True
    ran = home.run("add-account", "ada@nowhere.test", "--yes")
    assert ran.failed_with("nowhere.test has no POP3 server that could be found; if you know one")
    far.records = {"_pop3s._tcp.nowhere.test": (Service(0, 0, 0, ""),)}
    assert home.run("add-account", "ada@nowhere.test", "--yes").failed_with("says that it offers no POP3")
