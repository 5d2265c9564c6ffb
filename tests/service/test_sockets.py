"""Sockets of systemd's: under which door they come to stand, and what is told when they do not fit."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from posthouse.config_values import Endpoint
from posthouse.service.sockets import HandedSocket, WrongSockets, for_doors, handed_over

PROGRAM = """
import os, sys
from posthouse.service.sockets import WrongSockets, handed_over
os.environ["LISTEN_PID"] = sys.argv[1] or str(os.getpid())
try:
    found = handed_over(os.environ, os.getpid())
except WrongSockets as exc:
    print("wrong:", exc)
else:
    print([(one.door, str(one.endpoint), os.get_inheritable(one.listening.fileno())) for one in found])
print(sorted(name for name in os.environ if name.startswith("LISTEN")))
"""


@contextmanager
def opened(family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> Iterator[socket.socket]:
    with socket.socket(family, kind) as one:
        yield one


def take_over(sockets: list[socket.socket], names: str, process: str = "") -> list[str]:
    """Hand the sockets to a process from descriptor 3 on, as systemd does; what it printed."""

    def place() -> None:
        kept = [os.dup2(one.fileno(), 100 + number) for number, one in enumerate(sockets)]
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, 3 + number, inheritable=True)

    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, process],
        env={**os.environ, "LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": names, "PYTHONPATH": _source()},
        preexec_fn=place,
        close_fds=False,
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout.splitlines()


def _source() -> str:
    return str(Path(__file__).parents[2] / "src")


def listening(held: ExitStack) -> socket.socket:
    one = held.enter_context(opened())
    one.bind(("127.0.0.1", 0))
    one.listen()
    return one


def test_sockets_come_with_the_names_of_doors() -> None:
    with ExitStack() as held:
        sockets = [listening(held), listening(held)]
        first, second = (f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)
        assert take_over(sockets, "smtp:pop3s") == [str([("smtp", first, False), ("pop3s", second, False)]), "[]"]
        # Fewer names than sockets: the others have none.
        assert take_over(sockets, "smtp")[0] == str([("smtp", first, False), ("", second, False)])
        assert take_over(sockets, "smtp:pop3s", process="1") == ["[]", "[]"]


def test_what_is_no_door_is_told() -> None:
    with ExitStack() as held:
        silent = held.enter_context(opened())
        silent.bind(("127.0.0.1", 0))
        assert "Accept=no" in take_over([silent], "smtp")[0]
        local = held.enter_context(opened(socket.AF_UNIX))
        assert "not one of TCP" in take_over([local], "smtp")[0]
        datagrams = held.enter_context(opened(kind=socket.SOCK_DGRAM))
        assert "not one of TCP" in take_over([datagrams], "smtp")[0]
        both = held.enter_context(opened(socket.AF_INET6))
        both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        both.bind(("::", 0))
        both.listen()
        assert "BindIPv6Only=ipv6-only" in take_over([both], "smtp")[0]


@pytest.mark.parametrize("variables", [{}, {"LISTEN_PID": "7"}, {"LISTEN_PID": "7", "LISTEN_FDS": "x"}])
def test_nothing_is_handed_over(variables: dict[str, str]) -> None:
    assert handed_over(variables, 7) == ()
    assert not variables


SMTP, POP3 = Endpoint("192.0.2.1", 25), Endpoint("192.0.2.1", 110)
DOORS = {"smtp": (SMTP,), "pop3": (POP3,), "pop3s": ()}


def test_each_goes_to_its_door() -> None:
    with opened() as one, opened() as other:
        handed = (HandedSocket("smtp", SMTP, one), HandedSocket("posthouse.socket", POP3, other))
        assert for_doors(handed, DOORS) == {("smtp", SMTP): one, ("pop3", POP3): other}


@pytest.mark.parametrize(
    ("name", "endpoint", "words"),
    [
        ("smtp", POP3, "listen.smtp names 192.0.2.1:25"),
        ("pop3s", POP3, "listen.pop3s names nothing"),
        ("posthouse.socket", Endpoint("192.0.2.1", 26), "FileDescriptorName="),
    ],
)
def test_a_mismatch_is_told(name: str, endpoint: Endpoint, words: str) -> None:
    with opened() as one, pytest.raises(WrongSockets, match=words.replace(".", r"\.")):
        for_doors((HandedSocket(name, endpoint, one),), DOORS)
