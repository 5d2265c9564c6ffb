"""Fixtures that give tests real mail programs, or skip the test with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.peers import postfix as postfix_server
from tests.peers.load import SmtpSink, SmtpSource
from tests.peers.postfix import PostfixServer
from tests.peers.programs import Program, find


def program(name: str) -> Program:
    path = find(name)
    if path is None:
        pytest.skip(f"{name} is not here: run scripts/peers")
    return Program(path)


@pytest.fixture
def swaks() -> Program:
    return program("swaks")


@pytest.fixture
def curl() -> Program:
    return program("curl")


@pytest.fixture
def mpop() -> Program:
    return program("mpop")


@pytest.fixture
def msmtp() -> Program:
    return program("msmtp")


@pytest.fixture
def s_nail() -> Program:
    return program("s-nail")


@pytest.fixture
def nmap() -> Program:
    return program("nmap")


@pytest.fixture
def testssl() -> Program:
    return program("testssl")


@pytest.fixture
def strace() -> Program:
    return program("strace")


@pytest.fixture
def smtp_source() -> SmtpSource:
    return SmtpSource(program("smtp-source"))


@pytest.fixture
def smtp_sink(tmp_path: Path) -> Iterator[SmtpSink]:
    """A sink that is running."""
    program("smtp-sink")
    with SmtpSink(folder=tmp_path / "sink") as sink:
        yield sink


@pytest.fixture
def new_postfix() -> Iterator[Callable[[str], PostfixServer]]:
    """Makes Postfix servers by host name, not yet started; they end with the test."""
    if (reason := postfix_server.why_not()) is not None:
        pytest.skip(reason)
    servers: list[PostfixServer] = []

    def make(hostname: str = "postfix.test") -> PostfixServer:
        servers.append(PostfixServer(hostname=hostname))
        return servers[-1]

    yield make
    for server in servers:
        server.remove()


@pytest.fixture
def postfix(new_postfix: Callable[[str], PostfixServer]) -> PostfixServer:
    """One Postfix, not yet started, so that the test can say what it does."""
    return new_postfix("postfix.test")
