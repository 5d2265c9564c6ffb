"""What `posthouse check` says of the doors."""

from __future__ import annotations

import errno
import json
import socket
from pathlib import Path

import pytest

from posthouse.net import listener
from posthouse.net.listener import PortTaken
from tests.cli.conftest import CONFIG, Command

DOORS = """
smtp = ["127.0.0.1:25", "[::1]:25"]
submission = ["127.0.0.1:587"]
pop3 = ["127.0.0.1:110"]
"""
NAMES = "smtp 127.0.0.1:25 and [::1]:25, submission 127.0.0.1:587, pop3 127.0.0.1:110"


def told(command: Command) -> list[tuple[str, str]]:
    before, _listen, after = CONFIG.partition("[listen]\n")
    Path("posthouse.toml").write_text(f"{before}[listen]{DOORS}[auth]{after.partition('[auth]')[2]}")
    found = json.loads(command.run("check", "--json").out)
    return [(each["state"], each["text"]) for each in found if each["check"] == "port"]


def forbidden(host: str, port: int) -> socket.socket:
    raise PortTaken(host, port, PermissionError(errno.EACCES, "Permission denied"))


def test_ports_that_need_root_are_one_problem(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "bind", forbidden)
    ((state, text),) = told(furnished)
    assert state == "problem"
    assert text.startswith(f"{NAMES} cannot be opened: ports below 1024 need root")
    assert text.count("sudo") == 1


def test_free_ports_are_one_line_and_a_port_that_fares_otherwise_has_its_own(
    furnished: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "bind", lambda host, port: socket.socket())
    assert told(furnished) == [("ok", f"{NAMES} are free")]

    def one_taken(host: str, port: int) -> socket.socket:
        if port == 587:
            raise PortTaken(host, port, OSError(errno.EADDRINUSE, "Address already in use"))
        return socket.socket()

    monkeypatch.setattr(listener, "bind", one_taken)
    free, taken = told(furnished)
    assert free == ("ok", f"{NAMES.replace(', submission 127.0.0.1:587', '')} are free")
    assert taken[1].startswith("submission 127.0.0.1:587 cannot be opened: another program listens there already")
