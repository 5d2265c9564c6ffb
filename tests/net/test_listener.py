"""Doors: one bad session or peer never closes them, and nothing leaks."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from posthouse.log import make_log
from posthouse.net.arrival import Threshold
from posthouse.net.listener import Listener, PortTaken, Serve, bind
from posthouse.net.sessions import Admittance, SessionCounter
from posthouse.net.stream import Stream
from tests.net.pairs import turns


class _Closed(Exception):
    """Ends a test's group."""


@asynccontextmanager
async def door(
    serve: Serve, *, tls: ssl.SSLContext | None = None, out: io.StringIO | None = None
) -> AsyncIterator[int]:
    """An open door; its sessions are cancelled at the end."""
    listener = Listener(bind("127.0.0.1", 0), serve, threshold=Threshold(tls=tls), log=make_log(out or io.StringIO()))
    try:
        async with asyncio.TaskGroup() as group:
            await listener.start(group)
            yield listener.port
            listener.stop()
            raise _Closed
    except* _Closed:
        pass


async def talk(port: int, octets: bytes = b"") -> bytes:
    """All that the server says until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(octets)
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def echo(stream: Stream) -> None:
    octets = await stream.read()
    if octets == b"fail":
        raise ValueError("a bug")
    stream.write(octets)
    await stream.close()


async def test_a_session_that_fails_harms_nobody() -> None:
    out = io.StringIO()
    async with door(echo, out=out) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await talk(port, b"fail") == b""
        writer.write(b"sibling")
        assert await reader.read() == b"sibling"
        writer.close()
        assert await talk(port, b"next") == b"next"
    assert out.getvalue().count("session failed") == 1
    assert "a bug" in out.getvalue()


async def test_a_session_that_forgets_to_close_is_closed() -> None:
    async def forgetful(_stream: Stream) -> None:
        return

    async with door(forgetful) as port:
        assert await talk(port) == b""


async def test_sessions_are_cancelled_with_their_group_and_leave_no_descriptor() -> None:
    async def patient(stream: Stream) -> None:
        await stream.read()

    before = len(os.listdir("/proc/self/fd"))
    async with door(patient) as port:
        peers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        await turns(10)
    for reader, writer in peers:
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    await turns()
    # uvloop keeps one in reserve for the day when there is none left.
    assert len(os.listdir("/proc/self/fd")) <= before + 1


async def test_who_connects_while_the_group_closes_is_turned_away() -> None:
    listener = Listener(bind("127.0.0.1", 0), echo)
    group = asyncio.TaskGroup()
    async with group:
        await listener.start(group)
    assert await talk(listener.port, b"late") == b""
    listener.stop()
    await turns()


async def test_stop_closes_the_door_and_not_the_sessions() -> None:
    async with asyncio.TaskGroup() as group:
        listener = Listener(bind("127.0.0.1", 0), echo)
        await listener.start(group)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        await turns(10)
        listener.stop()
        await turns()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"still here")
        assert await reader.read() == b"still here"
        writer.close()


async def test_stop_before_start_frees_the_port() -> None:
    listener = Listener(bind("127.0.0.1", 0), echo)
    listener.stop()
    bind("127.0.0.1", listener.port).close()


async def test_a_failed_handshake_begins_no_session(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    sessions = 0

    async def count(stream: Stream) -> None:
        nonlocal sessions
        sessions += 1
        await echo(stream)

    problems: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: problems.append(context))
    before = len(os.listdir("/proc/self/fd"))
    async with door(count, tls=server_tls) as port:
        await talk(port, b"EHLO in clear\r\n")
        stranger = ssl.create_default_context()
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("127.0.0.1", port, ssl=stranger, server_hostname="house.test")
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_tls, server_hostname="house.test")
        writer.write(b"hello")
        assert await reader.read() == b"hello"
        writer.close()
        await turns(20)
    await turns(20)
    assert sessions == 1
    assert problems == []
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_port_that_is_taken() -> None:
    first = bind("127.0.0.1", 0)
    first.listen()
    with first, pytest.raises(PortTaken, match=r"^127\.0\.0\.1:\d+ cannot be opened: another program listens there"):
        bind("127.0.0.1", first.getsockname()[1])


def test_an_address_of_another_machine() -> None:
    with pytest.raises(PortTaken, match=r"^192\.0\.2\.1:25 cannot be opened: this machine does not have that address"):
        bind("192.0.2.1", 25)


def test_a_port_for_root_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Refusing)
    with pytest.raises(PortTaken, match=r"^\[::1\]:25 cannot be opened: ports below 1024 need root"):
        bind("::1", 25)


def test_sessions_are_counted_in_all() -> None:
    counter = SessionCounter(Admittance(sessions=2, sessions_per_address=2))
    assert counter.enter("192.0.2.1")
    assert counter.enter("192.0.2.2")
    assert not counter.enter("192.0.2.3")
    counter.leave("192.0.2.1")
    assert counter.enter("192.0.2.3")


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("", "", True),
    ],
)
def test_sessions_are_counted_by_network(first: str, second: str, same: bool) -> None:
    counter = SessionCounter(Admittance(sessions=10, sessions_per_address=1))
    assert counter.enter(first)
    assert counter.enter(second) is not same
    counter.leave(first)
    assert counter.enter(first)


def test_a_refused_address_is_not_remembered() -> None:
    counter = SessionCounter(Admittance(sessions=1, sessions_per_address=1))
    assert counter.enter("192.0.2.1")
    for number in range(100):
        assert not counter.enter(f"198.51.100.{number}")
    counter.leave("192.0.2.1")
    assert counter.open == 0
    assert not counter._by_network


EMFILE = """
import asyncio, resource, socket, sys, uvloop
from posthouse.net.listener import Listener, bind

async def serve(stream):
    stream.write(await stream.read())
    await stream.close()

async def main():
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    try:
        async with asyncio.TaskGroup() as group:
            listener = Listener(bind("127.0.0.1", 0), serve)
            await listener.start(group)
            peers = [socket.socket() for _ in range(10)]
            hold = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
            try:
                while True:
                    hold.append(open("/dev/null"))
            except OSError:
                pass
            for peer in peers:
                peer.setblocking(False)
                try:
                    await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", listener.port))
                except OSError:
                    pass
            for _ in range(20):
                await asyncio.sleep(0)
            for file in (*hold, *peers):
                file.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(b"alive")
            async with asyncio.timeout(5):
                print((await reader.read()).decode())
            raise SystemExit
    except* SystemExit:
        pass

runner = asyncio.Runner(loop_factory=uvloop.new_event_loop if sys.argv[1] == "uvloop" else None)
with runner:
    runner.run(main())
"""


@pytest.mark.long
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_door_survives_having_no_descriptors(loop: str) -> None:
    """asyncio accepts again a second later; uvloop closes what it cannot take."""
    command = [sys.executable, "-c", EMFILE, loop]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, env={**os.environ, "PYTHONPATH": "src"})
    assert (ran.stdout.strip(), ran.returncode) == ("alive", 0), ran.stderr
