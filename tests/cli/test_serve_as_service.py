"""`serve` as systemd starts it: whom it becomes, the sockets it is handed, what it says, what stops it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from posthouse.world import World
from tests.cli.conftest import CONFIG, Command, spawn
from tests.running_house import furnish, house_config

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
NOBODY = 65534


class Supervisor:
    """What a house told, datagram by datagram."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening

    def hears(self, key: str, value: str = "1") -> dict[str, str]:
        """The next datagram with this field."""
        while True:
            fields = dict(line.split("=", 1) for line in self._listening.recv(4096).decode().split("\n"))
            if fields.get(key) == value:
                return fields


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "300000")
        yield Supervisor(listening)


@contextmanager
def serving(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = spawn("serve", folder=folder)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("workers", [1, 2])
def test_systemd_hears_how_it_goes(furnished: Command, supervisor: Supervisor, workers: int) -> None:
    (furnished.folder / "posthouse.toml").write_text(f"workers = {workers}\n{CONFIG}")
    with serving(furnished.folder) as process:
        assert supervisor.hears("READY")["STATUS"].startswith("mx.here.test is open: smtp 127.0.0.1:")
        supervisor.hears("WATCHDOG")
        process.send_signal(signal.SIGHUP)
        assert int(supervisor.hears("RELOADING")["MONOTONIC_USEC"]) > 0
        supervisor.hears("READY")
        (furnished.folder / "posthouse.toml").write_text("x = [")
        process.send_signal(signal.SIGHUP)
        supervisor.hears("RELOADING")
        supervisor.hears("READY")
        process.send_signal(signal.SIGTERM)
        assert supervisor.hears("STOPPING")["STATUS"].startswith("Closing")
        assert process.wait(30) == 0


def with_sockets(folder: Path, names: str, *sockets: socket.socket) -> subprocess.Popen[str]:
    """`serve` with these sockets from descriptor 3 on, as systemd starts it."""

    def place() -> None:
        kept = [os.dup2(one.fileno(), 100 + number) for number, one in enumerate(sockets)]
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, 3 + number, inheritable=True)

    environment = {
        **os.environ,
        "LISTEN_FDS": str(len(sockets)),
        "LISTEN_FDNAMES": names,
        "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
    }
    return subprocess.Popen(
        ["/bin/sh", "-c", f'LISTEN_PID=$$ exec "{sys.executable}" -m posthouse.cli serve'],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=place,
        close_fds=False,
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_socket_of_systemd_is_a_door(furnished: Command, workers: int) -> None:
    """Who connected before the house was open is served, since the socket listens all along."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        port = opened.getsockname()[1]
        config = CONFIG.replace("127.0.0.1:0", f"127.0.0.1:{port}", 1)
        (furnished.folder / "posthouse.toml").write_text(f"workers = {workers}\n{config}")
        early = socket.create_connection(("127.0.0.1", port), timeout=30)
        process = with_sockets(furnished.folder, "smtp", opened)
        try:
            assert early.recv(100).startswith(b"220 mx.here.test")
            with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
                client.sendmail("a@far.test", ["ada@here.test"], b"Subject: x\r\n\r\nx\r\n")
        finally:
            early.close()
            process.terminate()
            process.communicate(timeout=30)
        assert process.returncode == 0


def test_a_socket_that_stands_not_in_listen_is_one_line(furnished: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        process = with_sockets(furnished.folder, "smtp", opened)
        _out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.count("\n") == 1
    assert "make ListenStream= and [listen] the same" in err


@needs_root
@pytest.mark.parametrize("workers", [1, 2])
def test_it_becomes_the_user_with_all_its_processes(public_folder: Path, workers: int) -> None:
    """Python may lie where only root can read; nothing of root is left, of groups neither, in the parent neither."""
    furnish_for_nobody(public_folder, f'workers = {workers}\nuser = "nobody"\n{CONFIG}')
    with serving(public_folder) as process:
        assert process.stderr is not None
        opened = json.loads(process.stderr.readline())
        assert (opened["event"], opened["user"], opened["level"]) == ("house open", "nobody", "info")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == (0 if workers == 1 else workers)
        for pid in (str(process.pid), *children):
            status = Path(f"/proc/{pid}/status").read_text()
            ids = {line.split(":")[0]: line.split()[1:] for line in status.splitlines() if ":" in line}
            assert ids["Uid"] == ["65534"] * 4
            assert ids["Gid"] == ["65534"] * 4
            assert ids["Groups"] == ["65534"]
            assert int(ids["CapEff"][0], 16) == 0
        process.send_signal(signal.SIGHUP)
        for _worker in range(workers):
            assert "configuration reloaded" in process.stderr.readline()


def furnish_for_nobody(folder: Path, config: str) -> None:
    (folder / "posthouse.toml").write_text(config)
    asyncio.run(furnish(house_config(folder), World(), ("ada@here.test",)))
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, NOBODY, NOBODY)


def refused(folder: Path) -> str:
    process = spawn("serve", folder=folder)
    _out, err = process.communicate(timeout=30)
    assert process.returncode == 1, err
    assert err.count("\n") == 1, err
    return err


@needs_root
def test_what_the_user_cannot_do_is_one_line_with_its_command(public_folder: Path) -> None:
    furnish_for_nobody(public_folder, f'user = "nobody"\n{CONFIG}')
    config = public_folder / "posthouse.toml"
    os.chown(config, 0, 0)
    config.chmod(0o600)
    err = refused(public_folder)
    assert f"chgrp nogroup {config} && chmod g+r {config}" in err
    assert os.system(err.partition("run: ")[2]) == 0
    key = public_folder / "own.key"
    key.write_text("no key")
    key.chmod(0o600)
    config.write_text(f'user = "nobody"\n{CONFIG}\n[tls]\ncertificate = "own.key"\nkey = "own.key"\n')
    assert "own.key cannot be read" in refused(public_folder)
    os.chown(public_folder, 0, 0)
    public_folder.chmod(0o755)
    assert f"run: chown -R nobody: {public_folder}" in refused(public_folder)
    config.write_text(f'user = "who.is.it"\n{CONFIG}')
    assert "posthouse service install --user who.is.it" in refused(public_folder)


@needs_root
def test_root_alone_is_told_so(furnished: Command) -> None:
    with serving(furnished.folder) as process:
        assert process.stderr is not None
        opened = json.loads(process.stderr.readline())
        assert (opened["user"], opened["level"]) == ("root", "warning")
        assert "posthouse service install" in opened["mend"]


@pytest.mark.parametrize("user", ["root", "0", "no one", "", "-x"])
def test_nobody_may_be_root_by_configuration(furnished: Command, user: str) -> None:
    Path("posthouse.toml").write_text(f'user = "{user}"\n{CONFIG}')
    assert furnished.run("serve").failed_with("user")


def test_another_user_than_the_configured_one_is_refused(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("posthouse.toml").write_text(f'user = "nobody"\n{CONFIG}')
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert furnished.run("serve").failed_with("sudo -u nobody posthouse serve")


@needs_root
def test_a_real_disk_that_is_full_or_read_only(furnished: Command) -> None:
    """In a mount namespace of its own, whose disk ends with it."""
    script = f"""
mount -t tmpfs -o size=2m none /mnt && cp -r {furnished.folder}/. /mnt && cd /mnt || exit 9
"{sys.executable}" -m posthouse.cli serve; head -c 2000000 /dev/zero >fill 2>/dev/null
"{sys.executable}" -m posthouse.cli serve
rm fill; mount -o remount,ro /mnt && "{sys.executable}" -m posthouse.cli serve
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    script = script.replace(" serve; head", " queue list >/dev/null; head")
    ran = subprocess.run(
        ["unshare", "--mount", "/bin/sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    full, read_only = ran.stderr.splitlines()
    assert "is full: " in full
    assert read_only.endswith("run: sudo mount -o remount,rw /mnt")
    assert ran.returncode == 1


def test_no_reload_drops_a_session_under_load(furnished: Command) -> None:
    """Letters go in over four sessions that stay open, while the file is read again thirty times."""
    (furnished.folder / "posthouse.toml").write_text(f"workers = 2\n{CONFIG}")
    with serving(furnished.folder) as process:
        assert process.stderr is not None
        port = int(json.loads(process.stderr.readline())["smtp"].rpartition(":")[2])
        drain = threading.Thread(target=process.stderr.read, daemon=True)
        drain.start()
        done: list[int] = []

        def deliver() -> None:
            with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
                for number in range(60):
                    assert client.sendmail("a@far.test", ["ada@here.test"], b"Subject: x\r\n\r\nx\r\n") == {}
                    done.append(number)

        sessions = [threading.Thread(target=deliver) for _ in range(4)]
        for session in sessions:
            session.start()
        reloads = 0
        while any(session.is_alive() for session in sessions) and reloads < 1000:
            process.send_signal(signal.SIGHUP)
            reloads += 1
            sessions[0].join(0.02)
        for session in sessions:
            session.join(60)
        assert reloads >= 5
        assert len(done) == 240, "a session was dropped"


HANGS = """
import asyncio, sys, time
from posthouse.cli import main
from posthouse.service import watchdog
from posthouse.storage.sqlite.storage import SqliteStorage

watchdog.BEAT_EVERY_S = 0.02
watchdog.Watchdog.__init__.__kwdefaults__["limit_s"] = 2.0
async def tick(self):
    WHAT
SqliteStorage.tick = tick
sys.argv = ["posthouse", "serve"]
main()
"""


@pytest.mark.parametrize(
    ("what", "name"), [("await asyncio.sleep(60)", "writer"), ("time.sleep(60)", "loop and the writer")]
)
def test_a_house_that_hangs_is_ended(furnished: Command, what: str, name: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS.replace("WHAT", what)],
        cwd=furnished.folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 70, err
    assert f"posthouse: no tick of the {name} for 2 s; the process ends, to be started again" in err
