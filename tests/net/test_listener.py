"""Doors: one bad session or peer never closes them, and nothing leaks."""

from __future__ import annotations

import asyncio
import contextlib
import io
import ipaddress
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import posthouse
from posthouse.log import make_log
from posthouse.net import arrival
from posthouse.net.arrival import Threshold
from posthouse.net.handshake import DoorContext
from posthouse.net.listener import Listener, PortTaken, Serve, bind
from posthouse.net.plain_socket import PlainSocket
from posthouse.net.sessions import Admittance, SessionCounter
from posthouse.net.stream import Stream
from tests.net.pairs import turns


class _Closed(Exception):
    """Ends a test's group."""


@asynccontextmanager
async def door(
    serve: Serve,
    *,
    out: io.StringIO | None = None,
    refuse: Serve | None = None,
    host: str = "127.0.0.1",
    **threshold: Any,
) -> AsyncIterator[int]:
    """An open door; its sessions are cancelled at the end."""
    listener = Listener(
        bind(host, 0), serve, refuse=refuse, threshold=Threshold(**threshold), log=make_log(out or io.StringIO())
    )
    try:
        async with asyncio.TaskGroup() as group:
            await listener.start(group)
            yield listener.port
            listener.stop()
            raise _Closed
    except* _Closed:
        pass


async def talk(port: int, octets: bytes = b"", host: str = "127.0.0.1") -> bytes:
    """All that the server says until it closes."""
    reader, writer = await asyncio.open_connection(host, port)
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
    def refuse(_self: socket.socket, _address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(PlainSocket, "bind", refuse)
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


@pytest.mark.conformance("S26")
def test_one_line_with_many_networks_leaves_room_for_others() -> None:
    """Whoever has one IPv6 /64 often has the whole /48 around it, or a /56 of it."""
    counter = SessionCounter(Admittance(sessions=1000, sessions_per_address=2))
    entered = [f"2001:db8:0:{number:x}::1" for number in range(100) if counter.enter(f"2001:db8:0:{number:x}::1")]
    assert len(entered) == 8
    assert counter.enter("2001:db8:1::1")
    assert counter.enter("192.0.2.1")
    counter.leave(entered[0])
    assert counter.enter("2001:db8:0:ff::1")
    assert not counter.enter("2001:db8:0:fe::1")


def test_a_refused_address_is_not_remembered() -> None:
    counter = SessionCounter(Admittance(sessions=1, sessions_per_address=1))
    assert counter.enter("192.0.2.1")
    for number in range(100):
        assert not counter.enter(f"198.51.100.{number}")
    counter.leave("192.0.2.1")
    assert counter.open == 0
    assert not counter._by_network


# Who has to wait for a handshake, and who is one too many.


@pytest.mark.conformance("C147", "C285")
async def test_half_open_handshakes_leave_the_door_open(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """They hold nothing but their own place, and are gone with their peers."""
    counter = SessionCounter(Admittance(sessions=1000, sessions_per_address=1000))
    before = len(os.listdir("/proc/self/fd"))
    loop = asyncio.get_running_loop()
    async with door(echo, tls=server_tls, sessions=counter) as port:
        peers = [socket.socket() for _ in range(100)]
        for number, peer in enumerate(peers):
            peer.setblocking(False)
            await loop.sock_connect(peer, ("127.0.0.1", port))
            if number % 2:
                peer.send(b"\x16\x03\x01\x02\x00\x01")
        while counter.open < len(peers):
            await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_tls, server_hostname="house.test")
        writer.write(b"hello")
        assert await reader.read() == b"hello"
        writer.close()
        for peer in peers:
            peer.close()
        while counter.open:
            await asyncio.sleep(0)
        assert len([task for task in asyncio.all_tasks() if "_run" in repr(task.get_coro())]) == 0
    await turns(20)
    assert len(os.listdir("/proc/self/fd")) <= before + 2


@pytest.mark.conformance("C147")
async def test_a_handshake_has_a_time_limit(server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "HANDSHAKE_TIMEOUT_S", 0.02)
    out = io.StringIO()
    async with door(echo, tls=server_tls, out=out) as port:
        assert await talk(port) == b""
        await turns()
    assert out.getvalue().count("TLS handshake failed") == 1


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"EHLO x\r\n", "wrong version number"),
        (b"\x16\x03\x01\x00\x05\x02\x00\x00\x01x", "the first message is no ClientHello"),
        (b"", "ConnectionResetError"),
    ],
)
async def test_why_a_handshake_failed_is_one_short_line(server_tls: ssl.SSLContext, octets: bytes, reason: str) -> None:
    out = io.StringIO()
    strange = DoorContext(lambda _name: server_tls, ("smtp",))
    counter = SessionCounter(Admittance(sessions=10, sessions_per_address=10))
    async with door(echo, tls=strange, out=out, sessions=counter) as port:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(octets)
        while not counter.open:
            await asyncio.sleep(0)
        writer.close()
        while counter.open:
            await asyncio.sleep(0)
    (line,) = out.getvalue().splitlines()
    assert reason in line
    assert "TLS handshake failed" in line


@pytest.mark.conformance("C147")
async def test_a_closing_house_waits_for_no_handshake(server_tls: ssl.SSLContext) -> None:
    listener = Listener(bind("127.0.0.1", 0), echo, threshold=Threshold(tls=server_tls))
    async with asyncio.TaskGroup() as group:
        await listener.start(group)
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"\x16\x03\x01")
        while not listener._arriving:
            await asyncio.sleep(0)
        listener.stop()
    assert await talk_rest(reader) == b""
    writer.close()
    await turns()


async def talk_rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


@pytest.mark.conformance("C285", "S26")
async def test_one_session_too_many_is_told_in_clear_and_closed_over_tls(server_tls: ssl.SSLContext) -> None:
    async def refuse(stream: Stream) -> None:
        stream.write(b"421 too many")
        await stream.close()

    out = io.StringIO()
    for tls, answer in ((None, b"421 too many"), (server_tls, b"")):
        counter = SessionCounter(Admittance(sessions=10, sessions_per_address=1))
        async with door(echo, refuse=refuse, tls=tls, sessions=counter, out=out) as port:
            _reader, first = await asyncio.open_connection("127.0.0.1", port)
            while not counter.open:
                await asyncio.sleep(0)
            assert await talk(port) == answer
            assert counter.open == 1
            first.close()
            while counter.open:
                await asyncio.sleep(0)
            assert await talk(port, b"clear") == (b"" if tls else b"clear")
    assert out.getvalue().count("too many sessions") == 2


# Behind a proxy.

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


async def who(stream: Stream) -> None:
    """Says who the peer is, and what it said."""
    octets = await stream.read()
    stream.write(f"{stream.peer_address} {stream.local_address} ".encode() + octets)
    await stream.close()


@pytest.mark.conformance("C296")
@pytest.mark.parametrize(
    ("header", "answer"),
    [
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 25\r\n", b"192.0.2.7 198.51.100.1 x"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 4000 25\r\n", b"2001:db8::7 2001:db8::1 x"),
        (b"PROXY UNKNOWN\r\n", b"127.0.0.1 127.0.0.1 x"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\7\xc6\x33\x64\1\x0f\xa0\0\x19", b"192.0.2.7 198.51.100.1 x"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", b"127.0.0.1 127.0.0.1 x"),
        (b"PROXY TCP4 192.0.2.7\r\n", b""),
        (b"EHLO x\r\n", b""),
    ],
)
@pytest.mark.parametrize("cut", [1, 1000])
async def test_a_proxy_names_the_peer(header: bytes, answer: bytes, cut: int) -> None:
    out = io.StringIO()
    async with door(who, proxies=LOOPBACK, out=out) as port:
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.setblocking(False)
            with contextlib.suppress(ConnectionError):
                for at in range(0, len(header), cut):
                    peer.send(header[at : at + cut])
                    await turns(2)
                peer.send(b"x")
            said = b""
            with contextlib.suppress(ConnectionError):
                while octets := await asyncio.get_running_loop().sock_recv(peer, 100):
                    said += octets
            assert said == answer
    assert ("PROXY header refused" in out.getvalue()) is (answer == b"")


async def test_the_header_comes_before_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """In one segment with the ClientHello: not one octet of that may be lost."""
    loop = asyncio.get_running_loop()
    async with door(who, proxies=LOOPBACK, tls=server_tls) as port:
        answer = await loop.run_in_executor(None, _proxied_tls, port, client_tls)
    assert answer == b"192.0.2.7 198.51.100.1 hello"


def _proxied_tls(port: int, context: ssl.SSLContext) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="house.test")
    header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 465\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        for step in (tls.do_handshake, lambda: tls.write(b"hello"), lambda: tls.read(100)):
            while True:
                try:
                    result = step()
                    break
                except ssl.SSLWantReadError:
                    peer.sendall(header + outgoing.read())
                    header = b""
                    octets = peer.recv(65536)
                    incoming.write(octets) if octets else incoming.write_eof()
            peer.sendall(outgoing.read())
    assert isinstance(result, bytes)
    return result


async def test_who_is_no_proxy_is_not_believed() -> None:
    async with door(who, proxies=(ipaddress.ip_network("192.0.2.0/24"),)) as port:
        said = b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 25\r\n"
        assert await talk(port, said) == b"127.0.0.1 127.0.0.1 " + said


async def test_a_header_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "PROXY_TIMEOUT_S", 0.02)
    out = io.StringIO()
    async with door(who, proxies=LOOPBACK, out=out) as port:
        assert await talk(port, b"PROXY TCP4 ") == b""
    assert "it did not come in time" in out.getvalue()


async def test_sessions_are_counted_for_the_named_peer() -> None:
    counter = SessionCounter(Admittance(sessions=10, sessions_per_address=1))
    async with door(who, proxies=LOOPBACK, sessions=counter) as port:
        writers = []
        for number in (7, 8):
            _reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"PROXY TCP4 192.0.2.%d 198.51.100.1 4000 25\r\n" % number)
            writers.append(writer)
        while counter.open < 2:
            await asyncio.sleep(0)
        assert await talk(port, b"PROXY TCP4 192.0.2.7 198.51.100.1 4001 25\r\n") == b""
        for writer in writers:
            writer.close()


async def test_over_ipv6() -> None:
    async with door(who, host="::1") as port:
        assert await talk(port, b"x", host="::1") == b"::1 ::1 x"
    proxies = (ipaddress.ip_network("::1/128"),)
    async with door(who, host="::1", proxies=proxies) as port:
        said = b"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 4000 25\r\nx"
        assert await talk(port, said, host="::1") == b"192.0.2.7 2001:db8::1 x"


SRC = str(Path(posthouse.__file__).parents[1])
EMFILE = """
import asyncio, resource, socket, sys, uvloop
from posthouse.log import make_log
from posthouse.net.listener import Listener, bind

async def serve(stream):
    stream.write(await stream.read())
    await stream.close()

async def main():
    try:
        async with asyncio.TaskGroup() as group:
            listener = Listener(bind("127.0.0.1", 0), serve, log=make_log(sys.stdout, json=True))
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
                peer.connect(("127.0.0.1", listener.port))
                peer.send(b"waited")
                peer.setblocking(False)
            while listener._resting is None:
                await asyncio.sleep(0)
            for file in hold:
                file.close()
            for peer in peers:
                async with asyncio.timeout(5):
                    print((await asyncio.get_running_loop().sock_recv(peer, 100)).decode())
                peer.close()
            raise SystemExit
    except* SystemExit:
        pass

runner = asyncio.Runner(loop_factory=uvloop.new_event_loop if sys.argv[1] == "uvloop" else None)
with runner:
    runner.run(main())
"""


@pytest.mark.conformance("C290")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_door_survives_having_no_descriptors(loop: str) -> None:
    """It says so once, and whoever knocked meanwhile is served when there are some again."""
    command = [sys.executable, "-c", EMFILE, loop]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, env={**os.environ, "PYTHONPATH": SRC})
    told, *answers = ran.stdout.splitlines()
    assert (answers, ran.returncode, ran.stderr) == (["waited"] * 10, 0, "")
    assert "no connection can be accepted" in told
    assert "Too many open files" in told
