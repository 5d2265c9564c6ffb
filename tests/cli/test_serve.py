"""`posthouse serve`: what stops it from starting is one line; what ends it, ends it well."""

from __future__ import annotations

import asyncio
import json
import os
import poplib
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from posthouse.workers import AlreadyServed, lock_folder
from posthouse.world import World
from tests.cli.conftest import CONFIG, Command, spawn
from tests.running_house import furnish, house_config


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A serving process and its first line."""
    process = spawn("serve", *arguments, folder=folder)
    try:
        assert process.stderr is not None
        yield process, json.loads(process.stderr.readline())
    finally:
        process.kill()
        process.communicate()


def pop3_port(opened: dict[str, str]) -> int:
    return int(opened["pop3"].rpartition(":")[2])


def log_in(port: int, password: str) -> bool:
    client = poplib.POP3("127.0.0.1", port, timeout=20)
    try:
        client.user("bob@here.test")
        client.pass_(password)
    except poplib.error_proto:
        return False
    finally:
        client.close()
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_gracefully(furnished: Command, number: int) -> None:
    with served(furnished.folder) as (process, opened):
        assert opened["event"] == "house open"
        process.send_signal(number)
        _out, err = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "house closed" in err
        assert "Traceback" not in err


@pytest.mark.parametrize("workers", [1, 2])
def test_sighup_reads_the_file_again(furnished: Command, workers: int) -> None:
    file = furnished.folder / "posthouse.toml"
    file.write_text(f"workers = {workers}\n{CONFIG}")
    with served(furnished.folder) as (process, opened):
        assert process.stderr is not None
        file.write_text("hostnme = 5")
        process.send_signal(signal.SIGHUP)
        told = json.loads(process.stderr.readline())
        assert told["event"].startswith("configuration not reloaded")
        assert "did you mean hostname" in told["reason"]
        file.write_text(f"workers = {workers}\n{CONFIG.replace('mx.here.test', 'mx.there.test')}")
        process.send_signal(signal.SIGHUP)
        for _worker in range(workers):
            assert json.loads(process.stderr.readline())["event"] == "configuration reloaded"
        client = poplib.POP3("127.0.0.1", pop3_port(opened), timeout=20)
        assert b"mx.there.test" in client.getwelcome()
        client.close()


def test_commands_take_effect_in_a_running_house_at_once(furnished: Command) -> None:
    with served(furnished.folder) as (_process, opened):
        port = pop3_port(opened)
        added = furnished.run("account", "add", "bob@here.test")
        password = added.out.split()[-1]
        assert log_in(port, password)
        furnished.run("account", "suspend", "bob@here.test")
        assert not log_in(port, password)
        furnished.run("account", "resume", "bob@here.test")
        assert log_in(port, password)
        furnished.run("account", "password", "bob@here.test", "--password-stdin", stdin="another one\n")
        assert not log_in(port, password)
        assert log_in(port, "another one")


def test_a_second_house_in_the_folder_is_refused(furnished: Command) -> None:
    with served(furnished.folder):
        assert furnished.run("serve").failed_with("another process serves", "posthouse service status")


def test_a_taken_port_is_named(furnished: Command) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        Path("posthouse.toml").write_text(CONFIG.replace("127.0.0.1:0", taken, 1))
        assert furnished.run("serve").failed_with(taken, "listens there already", "[listen]")
        assert furnished.run("check").failed_with("1 problem")


@pytest.mark.parametrize(
    ("name", "octets", "words"),
    [
        ("posthouse.db", b"x" * 9000, ("not a database", "posthouse restore")),
        ("posthouse.db", None, ("no database", "posthouse init")),
        ("self-signed.crt", b"x", ("self-signed.key", "[tls]")),
        ("posthouse.toml", CONFIG.replace("postmaster", "postmeister").encode(), ("did you mean postmaster",)),
        ("posthouse.toml", b"x = [", ("not valid TOML",)),
        ("posthouse.toml", None, ("posthouse init",)),
    ],
)
def test_what_is_damaged_or_missing_is_one_line(
    furnished: Command, name: str, octets: bytes | None, words: tuple[str, ...]
) -> None:
    for path in Path().glob(f"{name}*"):
        path.unlink()
    if octets is not None:
        Path(name).write_bytes(octets)
    assert furnished.run("serve").failed_with(*words)


def test_a_damaged_page_is_told_with_its_mending(furnished: Command) -> None:
    with open("posthouse.db", "r+b") as file:
        file.seek(20_000)
        file.write(os.urandom(9000))
    assert furnished.run("serve").failed_with("damaged", "posthouse restore")


def test_a_newer_schema_is_refused(furnished: Command) -> None:
    connection = apsw.Connection("posthouse.db")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    assert furnished.run("serve").failed_with("newer version", "99")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_a_low_port_without_root_and_anothers_folder_are_one_line(public_folder: Path) -> None:
    program = (
        "import os, sys, importlib.readers, uvloop, encodings.idna, posthouse.app, posthouse.log, posthouse.cli.house;"
        "from posthouse.cli import main;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); sys.argv = ['posthouse', 'serve']; main()"
    )
    (public_folder / "posthouse.toml").write_text(CONFIG.replace("127.0.0.1:0", "127.0.0.1:26", 1))
    asyncio.run(furnish(house_config(public_folder), World(), ("ada@here.test",)))

    def as_nobody() -> str:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
        command = [sys.executable, "-c", program]
        ran = subprocess.run(command, cwd=public_folder, env=environment, capture_output=True, text=True)
        assert ran.returncode == 1
        assert ran.stderr.count("\n") == 1, ran.stderr
        return ran.stderr

    assert "sudo -u root" in as_nobody()
    for path in [public_folder, *public_folder.rglob("*")]:
        os.chown(path, 65534, 65534)
    assert "need root" in (refused := as_nobody())
    assert "run: sudo posthouse serve, or change [listen]" in refused
    database = public_folder / "posthouse.db"
    database.chmod(0o400)
    assert f"run: chmod u+rw {database}" in as_nobody()
    os.chown(database, 0, 0)
    assert f"run: sudo chown nobody {database}" in as_nobody()
    public_folder.chmod(0o500)
    assert f"run: chmod u+rwx {public_folder}" in as_nobody()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
@pytest.mark.parametrize("workers", [1, 2])
def test_root_opens_low_ports_and_serves_as_the_owner(public_folder: Path, workers: int) -> None:
    """No process that takes mail is root's, and no file in the folder comes to be."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        high = probe.getsockname()[1]
    low = 1023 - high % 300
    config = CONFIG.replace("127.0.0.1:0", f"127.0.0.1:{low}", 1)
    (public_folder / "posthouse.toml").write_text(f"workers = {workers}\n{config}")
    asyncio.run(furnish(house_config(public_folder), World(), ("ada@here.test",)))
    for path in [public_folder, *public_folder.rglob("*")]:
        os.chown(path, 65534, 65534)
    process = spawn("serve", folder=public_folder)
    try:
        assert process.stderr is not None
        assert "house open" in process.stderr.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        serving = children or [str(process.pid)]
        assert len(serving) == workers
        assert {Path(f"/proc/{pid}").stat().st_uid for pid in serving} == {65534}
        with smtplib.SMTP("127.0.0.1", low, timeout=20) as client:
            client.sendmail("a@far.test", ["ada@here.test"], b"Subject: x\r\n\r\n" + b"x\r\n" * 80_000)
        assert {path.stat().st_uid for path in (public_folder, *public_folder.rglob("*"))} == {65534}
        with pytest.raises(AlreadyServed):
            lock_folder(public_folder)
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0
