"""From an accepted socket to a stream, in this order: PROXY header, place among the sessions, TLS handshake.

So whoever only stands at the door, in the middle of a handshake say, counts as a session and has a time limit.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from dataclasses import dataclass

from posthouse.net.outbox import Outbox
from posthouse.net.proxy import MAX_V2_OCTETS, ProxyHeader, ProxyHeaderError, read_proxy_header
from posthouse.net.sessions import SessionCounter
from posthouse.net.stream import Stream

HANDSHAKE_TIMEOUT_S = 30.0
PROXY_TIMEOUT_S = 10.0

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """What each connection has to pass before its session begins."""

    tls: ssl.SSLContext | None = None
    """For TLS from the first octet."""
    proxies: tuple[Network, ...] = ()
    """Who must begin with a PROXY header, and is believed."""
    sessions: SessionCounter | None = None


def is_among(address: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address is in one of the networks. A peer that has gone already has none."""
    if not networks:
        return False
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in network for network in networks)


async def proxy_header(connection: socket.socket) -> ProxyHeader:
    """Read the header and not one octet more: what follows may be a TLS handshake.

    Raises ProxyHeaderError, TimeoutError, OSError; the caller closes the socket.
    """
    header = b""
    async with asyncio.timeout(PROXY_TIMEOUT_S):
        while True:
            await _readable(connection)
            try:
                seen = connection.recv(MAX_V2_OCTETS, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                continue
            if not seen:
                raise ProxyHeaderError("the connection ended before its PROXY header")
            found = read_proxy_header(header + seen)
            wanted = len(seen) if found is None else found[1] - len(header)
            taken = connection.recv(wanted)
            if found is not None and len(taken) == wanted:
                return found[0]
            header += taken


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def readable() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection, readable)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


async def open_stream(
    connection: socket.socket, threshold: Threshold, outbox: Outbox, *, peer_address: str, local_address: str | None
) -> Stream:
    """The socket becomes a stream, after the handshake where there is one. Raises OSError."""
    loop = asyncio.get_running_loop()
    handshake_s = HANDSHAKE_TIMEOUT_S if threshold.tls is not None else None
    stream = Stream(outbox, peer_address=peer_address, local_address=local_address)
    # uvloop returns its own TLS protocol beside the transport, so the stream is not taken from there.
    await loop.connect_accepted_socket(lambda: stream, connection, ssl=threshold.tls, ssl_handshake_timeout=handshake_s)
    return stream


async def begin_tls(stream: Stream, context: ssl.SSLContext) -> bool:
    """The handshake of STARTTLS or STLS; False when it failed or octets were waiting: the session is to end then."""
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            return await stream.start_tls(context, server_side=True)
    except (OSError, TimeoutError):
        return False
