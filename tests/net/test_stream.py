"""Streams over real sockets on loopback, on asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from typing import cast

import pytest

from posthouse.net.stream import HIGH_WATER_OCTETS, Interrupted, Stream
from tests.net.pairs import read_exactly, stream_and_socket, streams, turns

PATIENCE_S = 10.0


async def test_octets_go_both_ways() -> None:
    async with streams() as (ours, theirs):
        ours.write(b"220 hello\r\n")
        assert await read_exactly(theirs, 11) == b"220 hello\r\n"
        theirs.write(b"EHLO x\r\n")
        assert await read_exactly(ours, 8) == b"EHLO x\r\n"
        assert not ours.is_tls


async def test_the_peer_address_outlives_the_connection() -> None:
    async with stream_and_socket() as (stream, _peer):
        stream.abort()
        await turns()
        assert stream.is_lost
        assert stream.peer_address == "127.0.0.1"


async def test_half_close_still_gets_its_replies() -> None:
    async with stream_and_socket() as (stream, peer):
        peer.sendall(b"QUIT\r\n")
        peer.shutdown(socket.SHUT_WR)
        assert await read_exactly(stream, 100) == b"QUIT\r\n"
        assert await stream.read() == b""
        assert stream.has_input
        assert not stream.is_lost
        stream.write(b"221 bye\r\n")
        await stream.close()
        assert peer.recv(100) == b"221 bye\r\n"
        assert peer.recv(100) == b""


async def test_reset_reads_as_the_end() -> None:
    async with stream_and_socket() as (stream, peer):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        assert await stream.read() == b""
        await turns()
        assert stream.is_lost
        stream.write(b"x")
        await stream.drain()
        await stream.close()


async def test_after_abort_everything_is_quiet() -> None:
    """On uvloop a closed transport raises RuntimeError at write, pause and resume."""
    async with stream_and_socket() as (stream, peer):
        peer.setblocking(False)
        while stream._buffered <= HIGH_WATER_OCTETS:
            try:
                peer.send(bytes(65536))
            except BlockingIOError:
                pass
            await turns(2)
        stream.abort()
        stream.write(b"never")
        assert len(await stream.read()) > HIGH_WATER_OCTETS
        assert await stream.read() == b""
        await stream.drain()
        await stream.close()
        stream.abort()


async def test_interrupt_wakes_only_who_may_be_interrupted() -> None:
    async with stream_and_socket() as (stream, peer):
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(stream.read())
            await turns()
            stream.interrupt()
            await turns()
            assert not reading.done()
            peer.sendall(b"x")
        assert reading.result() == b"x"
        with pytest.raises(Interrupted):
            await stream.read(interruptible=True)
        peer.sendall(b"y")
        while not stream.has_input:
            await asyncio.sleep(0)
        assert await stream.read(interruptible=True) == b"y"


async def test_interrupt_wakes_a_reader_that_waits() -> None:
    async with stream_and_socket() as (stream, _peer):
        async with asyncio.TaskGroup() as group:

            async def read() -> None:
                with pytest.raises(Interrupted):
                    await stream.read(interruptible=True)

            group.create_task(read())
            await turns()
            stream.interrupt()


async def test_cancelled_read_loses_nothing() -> None:
    async with stream_and_socket() as (stream, peer):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await stream.read()
        peer.sendall(b"abc")
        assert await read_exactly(stream, 3) == b"abc"


async def test_a_peer_that_never_stops_is_not_buffered_without_end() -> None:
    async with stream_and_socket() as (stream, peer):
        peer.setblocking(False)
        sent, refused = 0, 0
        while refused < 200:
            try:
                sent += peer.send(bytes(65536))
            except BlockingIOError:
                refused += 1
            await asyncio.sleep(0)
            assert sent < 64 * 1024 * 1024
        assert stream._buffered <= 2 * HIGH_WATER_OCTETS
        received = len(await read_exactly(stream, sent))
        assert received == sent


async def test_drain_waits_for_a_peer_that_does_not_read() -> None:
    async with stream_and_socket(small_buffers=True) as (stream, _peer):
        stream.write(bytes(4 * HIGH_WATER_OCTETS))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await stream.drain()
        async with asyncio.TaskGroup() as group:
            draining = group.create_task(stream.drain())
            await turns()
            assert not draining.done()
            stream.abort()
        assert stream.is_lost


async def test_drain_ends_when_the_peer_reads() -> None:
    async with stream_and_socket(small_buffers=True) as (stream, peer):
        peer.setblocking(False)
        total = 4 * HIGH_WATER_OCTETS
        stream.write(bytes(total))
        async with asyncio.TaskGroup() as group:
            draining = group.create_task(stream.drain())
            loop = asyncio.get_running_loop()
            got = 0
            while got < total:
                got += len(await loop.sock_recv(peer, 65536))
        assert draining.done()


async def test_close_gives_up_on_a_peer_that_never_reads() -> None:
    async with stream_and_socket(small_buffers=True) as (stream, _peer):
        stream.write(bytes(4 * HIGH_WATER_OCTETS))
        await stream.close(grace_s=0.01)
        assert stream.is_lost
        await turns()
        assert stream.has_closed


async def test_cancelled_close_leaves_no_transport_behind() -> None:
    async with stream_and_socket(small_buffers=True) as (stream, _peer):
        stream.write(bytes(4 * HIGH_WATER_OCTETS))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await stream.close(grace_s=60.0)
        await turns()
        assert stream.has_closed


async def upgrade(ours: Stream, theirs: Stream, server: ssl.SSLContext, client: ssl.SSLContext) -> list[bool]:
    async with asyncio.TaskGroup() as group:
        both = [
            group.create_task(ours.start_tls(server, server_side=True)),
            group.create_task(theirs.start_tls(client, server_side=False, server_name="house.test")),
        ]
    return [task.result() for task in both]


async def test_upgrade(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with streams() as (ours, theirs):
        ours.write(b"220 go\r\n")
        assert await read_exactly(theirs, 8) == b"220 go\r\n"
        assert await upgrade(ours, theirs, server_tls, client_tls) == [True, True]
        assert ours.is_tls
        assert theirs.is_tls
        theirs.write(b"EHLO x\r\n")
        assert await read_exactly(ours, 8) == b"EHLO x\r\n"
        assert ours.peer_address == "127.0.0.1"
        ours.write(b"250 x\r\n")
        await ours.close()
        assert await read_exactly(theirs, 100) == b"250 x\r\n"


async def test_much_goes_through_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """Both ends pause and resume several times."""
    async with streams() as (ours, theirs):
        await upgrade(ours, theirs, server_tls, client_tls)
        total = 3 * 1024 * 1024

        async def send() -> None:
            for _chunk in range(total // 65536):
                theirs.write(bytes(65536))
                await theirs.drain()

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            got = 0
            while got < total:
                got += len(await ours.read())
                assert ours._buffered <= 3 * HIGH_WATER_OCTETS
        assert got == total


async def test_octets_before_the_upgrade_forbid_it(server_tls: ssl.SSLContext) -> None:
    """CVE-2011-0411: commands sent in clear with STARTTLS, to be executed after it."""
    async with stream_and_socket() as (stream, peer):
        peer.sendall(b"MAIL FROM:<eve@evil.test>\r\n")
        while not stream.has_input:
            await asyncio.sleep(0)
        assert not await stream.start_tls(server_tls, server_side=True)
        assert not stream.is_tls
        assert not stream.is_lost


async def test_octets_that_come_later_break_the_handshake(server_tls: ssl.SSLContext) -> None:
    """Clear text that arrives after the check is taken for TLS, and never for a command."""
    async with stream_and_socket() as (stream, peer):
        peer.sendall(b"MAIL FROM:<eve@evil.test>\r\n")
        assert not stream.has_input
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await stream.start_tls(server_tls, server_side=True)
        assert stream.is_lost
        assert await stream.read() == b""
        await stream.close(grace_s=PATIENCE_S)


async def test_replies_injected_before_the_upgrade_are_never_read(client_tls: ssl.SSLContext) -> None:
    """CVE-2021-38371: what an attacker adds to the 220 in clear must not pass for a protected answer."""
    async with stream_and_socket() as (stream, peer):
        peer.sendall(b"250-AUTH PLAIN\r\n")
        assert not stream.has_input
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await stream.start_tls(client_tls, server_side=False, server_name="house.test")
        assert await stream.read() == b""


async def test_clear_text_inside_tls_breaks_it(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with stream_and_socket() as (stream, peer):
        async with asyncio.TaskGroup() as group:
            upgrading = group.create_task(stream.start_tls(server_tls, server_side=True))
            # A ClientHello before that would be octets in clear, and no upgrade.
            await asyncio.sleep(0)
            raw = await asyncio.to_thread(_handshake, peer, client_tls)
        assert upgrading.result()
        raw.sendall(b"MAIL FROM:<eve@evil.test>\r\n")
        assert await stream.read() == b""
        raw.close()


def _handshake(peer: socket.socket, context: ssl.SSLContext) -> socket.socket:
    """Shake hands in a thread; returns the socket beneath, for speaking clear text."""
    raw = peer.dup()
    with context.wrap_socket(peer.dup(), server_hostname="house.test", suppress_ragged_eofs=True):
        pass
    return raw


async def test_no_certificate_that_does_not_fit(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with streams() as (ours, theirs):
        failures: list[type[BaseException]] = []

        async def shake(stream: Stream, context: ssl.SSLContext, name: str | None) -> None:
            try:
                await stream.start_tls(context, server_side=name is None, server_name=name)
                await stream.read()
            except OSError as exc:
                failures.append(type(exc))

        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            group.create_task(shake(ours, server_tls, None))
            group.create_task(shake(theirs, client_tls, "other.test"))
        assert ssl.SSLCertVerificationError in failures
        assert theirs.is_lost


async def test_peer_that_leaves_during_the_handshake(server_tls: ssl.SSLContext) -> None:
    async with stream_and_socket() as (stream, peer):
        async with asyncio.TaskGroup() as group:

            async def shake() -> None:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await stream.start_tls(server_tls, server_side=True)

            group.create_task(shake())
            await turns()
            peer.close()
        assert stream.is_lost
        await stream.close(grace_s=PATIENCE_S)


async def test_cancelled_handshake(server_tls: ssl.SSLContext) -> None:
    async with stream_and_socket() as (stream, peer):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await stream.start_tls(server_tls, server_side=True)
        assert stream.is_lost
        assert await stream.read() == b""
        await stream.close(grace_s=PATIENCE_S)
        await turns()
        peer.settimeout(PATIENCE_S)
        assert await asyncio.to_thread(_rest, peer) == b""


def _rest(peer: socket.socket) -> bytes:
    try:
        return peer.recv(100)
    except ConnectionResetError:
        return b""


async def test_upgrade_of_a_lost_stream(server_tls: ssl.SSLContext) -> None:
    async with stream_and_socket() as (stream, _peer):
        stream.abort()
        assert not await stream.start_tls(server_tls, server_side=True)


async def test_end_inside_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """Over TLS there is no half-close: both ends are closed."""
    async with streams() as (ours, theirs):
        await upgrade(ours, theirs, server_tls, client_tls)
        theirs.write(b"QUIT\r\n")
        await theirs.close()
        assert await read_exactly(ours, 100) == b"QUIT\r\n"
        await turns()
        assert cast(bool, ours.is_lost)
        await ours.close(grace_s=PATIENCE_S)
