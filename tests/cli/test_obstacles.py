"""What would stop a house from starting: one line each with the command that mends it, the same from both commands."""

from __future__ import annotations

import errno
import json
import os
import re
import smtplib
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest

from posthouse.cli.obstacles import clock, clock_problem, disk, port_advice
from posthouse.cli.port_owner import port_owner
from posthouse.net.listener import PortTaken
from tests.cli.conftest import CONFIG, Command
from tests.running_house import RunningHouse

MIB = 1024 * 1024


def same_words(furnished: Command, *words: str, status: int = 1) -> None:
    """`serve` refuses in one line, and `check` has that very line among what it found."""
    served = furnished.run("serve")
    assert served.failed_with(*words)
    checked = furnished.run("check")
    assert checked.status == status
    assert served.err.removeprefix("posthouse: ").strip() in checked.out + checked.err


def facts(monkeypatch: pytest.MonkeyPatch, *, free: int = 10**12, files: int = 10**6, flags: int = 0) -> None:
    told = SimpleNamespace(f_bavail=free, f_frsize=1, f_files=10**7, f_favail=files, f_flag=flags)
    monkeypatch.setattr(os, "statvfs", lambda _: told)


def test_a_read_only_disk(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    facts(monkeypatch, flags=os.ST_RDONLY)
    same_words(furnished, "is mounted read-only", "mount -o remount,rw /")
    assert furnished.run("account", "add", "bob@here.test").failed_with("is mounted read-only")


@pytest.mark.parametrize("lack", [{"free": MIB}, {"files": 0}])
def test_a_full_disk(furnished: Command, monkeypatch: pytest.MonkeyPatch, lack: dict[str, int]) -> None:
    facts(monkeypatch, **lack)
    same_words(furnished, "df -i" if "files" in lack else "is full: 1 MB are free; see what is large: sudo du")


@pytest.mark.parametrize(
    ("free", "files", "state"), [(10**12, 10**6, "ok"), (300 * MIB, 10**6, "note"), (50 * MIB, 9, "problem")]
)
def test_a_disk_that_fills(monkeypatch: pytest.MonkeyPatch, free: int, files: int, state: str) -> None:
    facts(monkeypatch, free=free, files=files)
    assert disk(Path()).state == state
    facts(monkeypatch, free=50 * MIB)
    assert disk(Path()).state == "problem"


def test_a_nearly_full_disk_serves_still(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who deletes mail makes room, so the doors have to open."""
    facts(monkeypatch, free=50 * MIB)
    Path("posthouse.db").unlink()
    assert furnished.run("serve").failed_with("no database")


def test_a_folder_that_is_not_there(furnished: Command) -> None:
    Path("posthouse.toml").write_text(CONFIG.replace('"."', '"elsewhere"'))
    same_words(furnished, "elsewhere does not exist", "posthouse init")


def test_a_clock_that_was_never_set(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 86_400.0)
    same_words(furnished, "the machine's clock says 2 January 1970", "timedatectl set-ntp true")


def test_a_clock_that_was_set_back(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 2 * 86_400)
    same_words(furnished, "before the last change in this house", "touch ", "timedatectl set-ntp true")


def test_a_small_jump_is_told_and_stops_nothing(tmp_path: Path) -> None:
    assert clock(tmp_path, now=1.8e9).state == "ok"
    assert clock(tmp_path, now=1.6e9).state == "problem"
    for newest in (1.8e9, None):
        assert clock(tmp_path, newest, now=1.8e9 - 60).state == "ok"
        assert clock(tmp_path, newest, now=1.8e9 - 900).state == "problem"
        assert clock_problem(tmp_path, now=1.8e9 - 900) is None
        (tmp_path / "posthouse.db-wal").touch()
        os.utime(tmp_path / "posthouse.db-wal", (1.8e9, 1.8e9))
    assert clock_problem(tmp_path, now=1.8e9 - 90_000) is not None


def test_the_newest_journey_says_that_the_clock_is_wrong(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the files tell nothing, as after a copy."""
    with RunningHouse(Path(), ("ada@here.test",)) as house, smtplib.SMTP("127.0.0.1", house.ports["smtp"]) as client:
        client.sendmail("", ["ada@here.test"], b"Subject: x\r\n\r\nx\r\n")
    for file in Path().glob("posthouse.db*"):
        os.utime(file, (1.75e9, 1.75e9))
    now = time.time()
    assert "ok       clock" in furnished.run("check").out
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    for file in Path().glob("posthouse.db*"):
        os.utime(file, (1.75e9, 1.75e9))
    assert re.search("problem +clock .*1 h before the newest message", furnished.run("check").out)


def test_a_newer_database(furnished: Command) -> None:
    connection = apsw.Connection("posthouse.db")
    connection.execute("PRAGMA user_version=99")
    connection.close()
    same_words(furnished, "newer version", "99", "install")


def test_an_old_sqlite(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.40.1")
    same_words(furnished, "SQLite 3.40.1", "pip install --upgrade apsw")


@pytest.mark.parametrize(
    ("was", "becomes", "words"),
    [
        ("postmaster", "postmeister", ("unknown key postmeister", "did you mean postmaster")),
        ('"mx.here.test"', "5", ("hostname",)),
        ('"mx.here.test"', '"192.0.2.1"', ("is an IP address", "[192.0.2.1]")),
        ('"mx.here.test"', '"mx"', ("not a full name",)),
        ("hostname", "hostname = ", ("not valid TOML",)),
        ("[listen]", '[tls]\ncertificate = "c.pem"\n[listen]', ("tls.certificate and tls.key",)),
    ],
)
def test_a_wrong_key_or_value(furnished: Command, was: str, becomes: str, words: tuple[str, ...]) -> None:
    Path("posthouse.toml").write_text(CONFIG.replace(was, becomes))
    for command in (("serve",), ("check",), ("account", "list")):
        assert furnished.run(*command).failed_with(*words, "run: posthouse check --config posthouse.toml")


def test_a_missing_certificate(furnished: Command) -> None:
    Path("posthouse.toml").write_text(CONFIG + '\n[tls]\ncertificate = "c.pem"\nkey = "k.pem"\n')
    same_words(furnished, "c.pem does not exist", "[tls]")


def test_a_missing_pair_of_our_own(furnished: Command) -> None:
    Path("posthouse.toml").write_text(CONFIG.replace("[auth]", 'pop3s = ["127.0.0.1:0"]\n[auth]'))
    same_words(furnished, "self-signed.crt does not exist", "openssl req -x509")
    line = furnished.run("serve").err
    made = os.system(f"{line[line.index('openssl req') :].strip()} 2>/dev/null")
    assert made == 0
    assert "self-signed" in furnished.run("check").out
    assert furnished.run("check").status == 0


def test_a_port_in_use_is_told_with_who_holds_it(furnished: Command) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        Path("posthouse.toml").write_text(CONFIG.replace("127.0.0.1:0", taken, 1))
        same_words(furnished, taken, f"(process {os.getpid()})", "end it with")
        ports = [f["text"] for f in json.loads(furnished.run("check", "--json").out) if f["check"] == "port"]
        assert len(ports) == 1


@pytest.mark.parametrize(
    ("host", "listens", "held"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("::1", "::1", True),
        ("127.0.0.2", "127.0.0.1", False),
    ],
)
def test_the_owner_of_a_port(host: str, listens: str, held: bool) -> None:
    with socket.socket(socket.AF_INET6 if ":" in listens else socket.AF_INET) as other:
        other.bind((listens, 0))
        other.listen()
        found = port_owner(host, other.getsockname()[1])
    assert (found is not None and found.process == os.getpid()) is held


def test_a_unit_is_ended_for_good(tmp_path: Path) -> None:
    """What systemd started would come again if it were only killed."""
    (tmp_path / "net").mkdir()
    line = "   0: 00000000:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n"
    (tmp_path / "net" / "tcp").write_text(f"  sl  local_address rem_address\n{line}")
    (tmp_path / "812" / "fd").mkdir(parents=True)
    (tmp_path / "812" / "fd" / "7").symlink_to("socket:[4711]")
    (tmp_path / "812" / "comm").write_text("master\n")
    (tmp_path / "812" / "cgroup").write_text("0::/system.slice/system-postfix.slice/postfix@-.service\n")
    owner = port_owner("192.0.2.1", 25, proc=tmp_path)
    assert owner is not None
    assert str(owner) == "master (process 812)"
    assert owner.ending == "systemctl disable --now postfix@-.service"
    assert port_owner("192.0.2.1", 26, proc=tmp_path) is None
    (tmp_path / "812" / "cgroup").write_text("0::/user.slice\n")
    owner = port_owner("192.0.2.1", 25, proc=tmp_path)
    assert owner is not None
    assert owner.ending == "kill 812"


@pytest.mark.parametrize(
    ("started", "named"), [("/opt/x/bin/posthouse", "/opt/x/bin/posthouse"), ("/x/cli/__main__.py", "posthouse")]
)
def test_a_port_that_needs_root_is_told_with_what_sudo_finds(
    monkeypatch: pytest.MonkeyPatch, started: str, named: str
) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    advice = port_advice(PortTaken("127.0.0.1", 25, PermissionError(errno.EACCES, "Permission denied")))
    assert advice.startswith(f"; run: sudo {named} serve, or change [listen]")
