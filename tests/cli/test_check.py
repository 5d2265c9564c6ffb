"""`posthouse check` and `posthouse dns` as commands: what they print, and their exit status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.cli import check, surroundings
from posthouse.net.crowd import Crowded, write_note
from tests.cli.conftest import CONFIG, Command
from tests.cli.test_check_dns import PTR4, PTR6, RIGHT, V4
from tests.dns_server import DnsServer, Fault, running_dns_server

HALF = {key: value for key, value in RIGHT.items() if key[1] != "AAAA" and key[0] != PTR6 and "_" not in key[0]}


@pytest.fixture
def names(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[DnsServer]:
    """The name server of a house with a public address and a door for others."""
    monkeypatch.setattr(surroundings, "outgoing_addresses", lambda: (V4,))
    with running_dns_server({**HALF, ("_dmarc.here.test", "TXT"): ['"v=DMARC1; p=none"']}) as server:
        configure(server)
        yield server


def configure(server: DnsServer) -> None:
    host, port = server.address
    public = CONFIG.replace('smtp = ["127.0.0.1:0"]', 'smtp = ["0.0.0.0:0"]').replace('"127.0.0.1:1"', '""')
    Path("posthouse.toml").write_text(f'{public}\n[dns]\nservers = ["{host}:{port}"]\n')


def test_all_is_right(furnished: Command, names: DnsServer) -> None:
    ran = furnished.run("check")
    assert (ran.status, ran.err) == (0, "")
    assert f"ok       mx.here.test. A  {V4}\n" in ran.out
    assert "ok       here.test. MX  10 mx.here.test.\n" in ran.out


def test_what_is_wrong_is_told_with_what_should_be_there(furnished: Command, names: DnsServer) -> None:
    names.zone = {**names.zone, ("here.test", "MX"): ["10 mx.else.test."], (PTR4, "PTR"): []}
    ran = furnished.run("check")
    assert ran.failed_with("4 problems")
    assert (
        "problem  here.test. MX\n"
        "           found      10 mx.else.test.\n"
        "           should be  10 mx.here.test.\n"
        "           why        mail for here.test goes elsewhere\n"
    ) in ran.out
    assert f"problem  {PTR4}. PTR\n           found      nothing\n" in ran.out
    rows = json.loads(furnished.run("check", "--json").out)
    (mx,) = (row for row in rows if row.get("type") == "MX")
    assert mx == {
        "check": "dns",
        "name": "here.test.",
        "type": "MX",
        "state": "problem",
        "found": ["10 mx.else.test."],
        "should_be": "10 mx.here.test.",
        "why": "mail for here.test goes elsewhere",
    }


def test_what_could_not_be_asked_is_no_problem(furnished: Command, names: DnsServer) -> None:
    names.zone = {**names.zone, ("here.test", "MX"): Fault.SERVFAIL}
    ran = furnished.run("check")
    assert ran.status == 0
    assert ran.err == "posthouse: 2 things could not be found out; see above\n"
    assert "unknown  here.test. MX\n           should be  10 mx.here.test.\n" in ran.out


def test_of_many_records_those_that_are_right_are_counted(
    furnished: Command, names: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "SHOWN_RIGHT", 3)
    names.zone = {**names.zone, ("here.test", "MX"): ["10 mx.else.test.", "20 mx.here.test."]}
    out = furnished.run("check").out
    assert "note     here.test. MX" in out
    assert "records are as they should be; all of them: --json" in out
    assert "ok       mx.here.test. A" not in out
    rows = json.loads(furnished.run("check", "--json").out)
    assert any(row["state"] == "ok" and row.get("type") == "A" for row in rows)


def test_offline_asks_nobody(furnished: Command, names: DnsServer) -> None:
    ran = furnished.run("check", "--offline")
    assert (ran.status, names.asked) == (0, [])
    assert "posthouse dns" in ran.out


def test_a_trial_on_loopback_asks_nobody(furnished: Command, names: DnsServer) -> None:
    host, port = names.address
    Path("posthouse.toml").write_text(f'{CONFIG}\n[dns]\nservers = ["{host}:{port}"]\n')
    assert furnished.run("check").status == 0
    assert names.asked == []


def test_port_25_is_tried_only_when_asked_to(furnished: Command, names: DnsServer) -> None:
    furnished.run("check")
    assert "gmail.com" not in names.names_asked("MX")
    ran = furnished.run("check", "--check-network")
    assert "unknown  port 25 out" in ran.out
    assert "gmail.com" in names.names_asked("MX")


def test_an_address_can_be_told(furnished: Command, names: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "outgoing_addresses", lambda: ("192.168.1.7",))
    assert "note     mx.here.test. A" in furnished.run("check").out
    assert f"ok       mx.here.test. A  {V4}" in furnished.run("check", "--address", V4).out
    assert "9.9.9.9" in furnished.run("dns", "--address", "9.9.9.9").out
    assert furnished.run("check", "--address", "9.9.9.9").failed_with("problems")


def test_a_house_without_a_name(furnished: Command, names: DnsServer) -> None:
    config = Path("posthouse.toml")
    config.write_text(config.read_text().replace('"mx.here.test"', '"[5.6.7.8]"'))
    assert "few houses believe such a name" in furnished.run("check").out
    assert furnished.run("dns").failed_with("hostname is the address [5.6.7.8]")


def test_lines_of_a_terminal_are_broken_where_they_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "word " * 60
    check.print_wrapped("note     disk           ", text)
    assert capsys.readouterr().out.count("\n") == 1
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    check.print_wrapped("note     disk           ", text)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line.startswith(" " * 24 + "word") for line in lines[1:])


def noted(address: str, *, ago_s: float = 0.0) -> None:
    import time

    write_note(Path(), Crowded(at=time.time() - ago_s, address=address, sessions=90, of_sessions=100))


def trust(*networks: str) -> None:
    Path("posthouse.toml").write_text(f"{CONFIG}\n[reception]\ntrusted_networks = {list(networks)}\n")


@pytest.mark.parametrize(
    ("trusted", "address", "state"),
    [
        ((), "172.17.0.1", "note"),
        (("172.16.0.0/12",), "172.17.0.1", "problem"),
        (("10.0.0.5/32",), "10.0.0.5", "note"),
        (("127.0.0.0/8",), "127.0.0.1", "note"),
    ],
)
def test_a_crowd_behind_one_address(furnished: Command, trusted: tuple[str, ...], address: str, state: str) -> None:
    noted(address)
    trust(*trusted)
    ran = furnished.run("check")
    assert f"{state:<8} open relay     90 of 100 sessions came from {address}" in ran.out
    assert ran.status == (state == "problem")


def test_a_crowd_of_long_ago_is_forgotten(furnished: Command) -> None:
    noted("172.17.0.1", ago_s=40 * 86_400)
    assert "open relay" not in furnished.run("check").out
    Path("crowd.json").write_text("{")
    assert furnished.run("check").status == 0


def test_a_router_that_is_trusted_is_told(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.cli.check_crowd.default_gateway", lambda: "172.17.0.1")
    trust("10.0.0.0/8")
    assert "open relay" not in furnished.run("check").out
    trust("172.17.0.1/32")
    assert "note     open relay     172.17.0.1, the router of this machine" in furnished.run("check").out
    noted("172.17.0.1")
    assert furnished.run("check").failed_with("1 problem")
    monkeypatch.setattr(surroundings, "outgoing_addresses", lambda: (V4,))
    Path("crowd.json").unlink()
    assert "open relay" not in furnished.run("check").out
