"""What systemd hears."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.service.notify import Notifier


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket that systemd would listen at."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        yield listening


def heard(supervisor: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in supervisor.recv(4096).decode().split("\n"))


def test_each_change_is_one_datagram(supervisor: socket.socket, tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "notify"), 30)
    notifier.ready("open\nMAINPID=1")
    notifier.reloading()
    notifier.stopping()
    notifier.alive()
    assert heard(supervisor) == {"READY": "1", "STATUS": "open MAINPID=1"}
    reloading = heard(supervisor)
    assert reloading.pop("RELOADING") == "1"
    assert int(reloading.pop("MONOTONIC_USEC")) > 0
    assert not reloading
    assert heard(supervisor)["STOPPING"] == "1"
    assert heard(supervisor) == {"WATCHDOG": "1"}


def test_an_abstract_name_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")
        name = listening.getsockname()
        Notifier("@" + name[1:].decode()).status("here")
        listening.settimeout(5)
        assert listening.recv(100) == b"STATUS=here"


def test_the_variables_are_taken_out() -> None:
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "9000000", "WATCHDOG_PID": "7", "HOME": "/"}
    notifier = Notifier.from_environment(environment, 7)
    assert environment == {"HOME": "/"}
    assert notifier.watchdog_every_s == 3.0


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_USEC": "x"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "9000000", "WATCHDOG_PID": "8"},
    ],
)
def test_no_sign_of_life_where_none_is_awaited(variables: dict[str, str]) -> None:
    assert Notifier.from_environment(variables, 7).watchdog_every_s is None


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "relative", "vsock:2:1234"])
def test_nobody_who_listens_harms_nobody(address: str) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address}, 1)
    notifier.ready("open")
    notifier.alive()


def test_a_full_socket_does_not_hold_us(supervisor: socket.socket, tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "notify"))
    for _ in range(1000):
        notifier.status("x" * 1000)
