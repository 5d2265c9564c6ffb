"""`posthouse init`."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.cli import first_look, house
from posthouse.config import load
from posthouse.net.dns import DnsResolver
from posthouse.storage.errors import StorageFull
from tests.cli.conftest import Command, spawned
from tests.dns_server import DnsServer, Fault, running_dns_server

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


def zone_of(out: str) -> list[str]:
    return [line for line in out.splitlines() if " IN " in line or " PTR " in line]


def test_prints_the_records_that_the_command_dns_prints_again(command: Command) -> None:
    ran = command.run("init", "house", *TOLD, "--address", "5.6.7.8")
    records = zone_of(ran.out)
    assert "mx.here.test.                3600 IN A    5.6.7.8" in records
    assert 'here.test.                   3600 IN TXT  "v=spf1 mx -all"' in records
    assert "; whoever gave you the address sets: 8.7.6.5.in-addr.arpa. PTR mx.here.test." in records
    told = re.search(r"shown again by: posthouse (.*)\):", ran.out)
    assert told is not None
    assert zone_of(command.run(*told[1].split()).out) == records
    rows = json.loads(command.run(*told[1].split(), "--json").out)
    assert {"name": "here.test.", "type": "MX", "value": "10 mx.here.test."}.items() <= rows[2].items()


def test_a_house_behind_a_router_is_told_so(command: Command) -> None:
    ran = command.run("init", "house", *TOLD)
    assert "only private addresses (192.168.1.7)" in ran.out
    assert "; mx.here.test.                3600 IN A    (the public address of your line)" in zone_of(ran.out)


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[DnsServer]:
    """A machine with public addresses, and its name server."""
    zone = {
        ("8.7.6.5.in-addr.arpa", "PTR"): ["a.forged.test.", "box.here.test."],
        ("a.forged.test", "A"): ["9.9.9.9"],
        ("box.here.test", "A"): ["5.6.7.8"],
    }
    with running_dns_server(zone) as server:
        monkeypatch.setattr(first_look, "outgoing_addresses", lambda: ("5.6.7.8",))
        monkeypatch.setattr(first_look, "resolver_of", lambda _: DnsResolver((server.address,)))
        yield server


def test_finds_its_name_by_reverse_dns(command: Command, public: DnsServer) -> None:
    ran = command.run("init", "house")
    assert "The house box.here.test is ready" in ran.out
    assert "note" not in ran.out
    assert load(Path("house/posthouse.toml")).hostname == "box.here.test"


def test_says_when_reverse_dns_has_another_name(command: Command, public: DnsServer) -> None:
    assert "5.6.7.8 is called a.forged.test and box.here.test by reverse DNS" in command.run("init", "house", *TOLD).out
    public.zone = {}
    assert "5.6.7.8 has no name in reverse DNS" in command.run("init", "other", *TOLD).out


@pytest.mark.parametrize("fault", [Fault.DROP, Fault.SERVFAIL])
def test_no_network_is_no_obstacle(
    command: Command, public: DnsServer, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = DnsResolver((public.address,), lifetime_s=0.2)
    monkeypatch.setattr(first_look, "resolver_of", lambda _: impatient)
    public.zone = {("8.7.6.5.in-addr.arpa", "*"): fault, ("gmail.com", "*"): fault}
    assert command.run("init", "house").failed_with("posthouse init --hostname")
    ran = command.run("init", "house", *TOLD, "--check-network")
    assert (ran.status, ran.err) == (0, "")
    assert "unknown  port 25 out" in ran.out
    assert ("gmail.com", "MX") in {(name, kind) for _transport, name, kind in public.asked}


def test_without_being_asked_to_it_tries_no_connection(command: Command, public: DnsServer) -> None:
    command.run("init", "house", *TOLD)
    assert public.names_asked("MX") == set()


def test_a_port_that_is_taken_is_told_with_its_owner(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setattr(first_look, "PORTS", {**first_look.PORTS, "smtp": port})
        ran = command.run("init", "house", *TOLD)
    assert ran.status == 0
    assert f"problem  port           smtp 0.0.0.0:{port} cannot be opened" in ran.out
    assert f"(process {os.getpid()})" in ran.out


ON_A_TERMINAL = """
import sys
from posthouse.cli import first_look, main
from posthouse.cli.findings import Finding

async def port_25(_):
    return Finding("port 25 out", "problem", "it was tried")

first_look.port_25 = port_25
first_look.outgoing_addresses = lambda: ()
sys.argv = ["posthouse", "init", "house", "--hostname", "mx.here.test"]
main()
"""


def test_asks_on_a_terminal(public_folder: Path) -> None:
    """Each question has its guess; what was told is not asked."""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "COLUMNS": "80"}
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL],
        cwd=public_folder,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    os.write(controller, b"\nada@here.test\n")
    shown = b""
    # When the last one has closed the terminal, reading from it is an error.
    with contextlib.suppress(OSError):
        while block := os.read(controller, 65536):
            shown += block
    os.close(controller)
    text = shown.decode()
    assert process.wait(30) == 0, text
    assert "The domain whose mail it takes [here.test]:" in text
    assert "The first account [postmaster@here.test]:" in text
    assert "login     ada@here.test" in text
    assert "problem  port 25 out    it was tried" in text
    notes = text[text.index("note     address") :]
    assert max(len(line) for line in notes.splitlines() if "posthouse " not in line) <= 80


def test_takes_what_follows_from_the_host_name(command: Command) -> None:
    ran = command.run("init", "house", "--hostname", "mx.here.test")
    assert "postmaster@here.test" in ran.out


def test_elsewhere_than_on_a_terminal_it_asks_nothing(command: Command) -> None:
    assert command.run("init", "house").failed_with("posthouse init --hostname")
    assert not Path("house").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--hostname", "mx"), "full name"),
        (("--hostname", "../x"), "not a domain"),
        (("--hostname", "192.0.2.1"), "is an IP address"),
        (("--hostname", "2001:db8::1"), "is an IP address"),
        (("--hostname", "[192.0.2.1]"), "--domain"),
        (("--hostname", "mx.here.test", "--address", "10.0.0.1"), "not a public address"),
        (("--hostname", "mx.here.test", "--address", "x"), "not an IP address"),
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
