"""Two connected streams on loopback; or one stream and a plain blocking socket at its other end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from posthouse.net.stream import Stream


@asynccontextmanager
async def stream_and_socket(*, small_buffers: bool = False) -> AsyncIterator[tuple[Stream, socket.socket]]:
    """A stream, and the socket of its peer (blocking, but both ends are in this process: send little)."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.create_connection(listening.getsockname())
        ours, _address = listening.accept()
    if small_buffers:
        for end in (ours, peer):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    ours.setblocking(False)
    _transport, stream = await loop.connect_accepted_socket(Stream, ours)
    try:
        with peer:
            yield stream, peer
    finally:
        stream.abort()
        await turns()


@asynccontextmanager
async def streams() -> AsyncIterator[tuple[Stream, Stream]]:
    """Two ends of one connection."""
    loop = asyncio.get_running_loop()
    async with stream_and_socket() as (stream, peer):
        copy = peer.dup()
        copy.setblocking(False)
        peer.close()
        _transport, other = await loop.connect_accepted_socket(Stream, copy)
        try:
            yield stream, other
        finally:
            other.abort()
            await turns()


async def turns(count: int = 5) -> None:
    """Let the loop call what it has to call."""
    for _turn in range(count):
        await asyncio.sleep(0)


async def read_exactly(stream: Stream, count: int) -> bytes:
    """At least `count` octets, unless the stream ends."""
    octets = b""
    while len(octets) < count and (more := await stream.read()):
        octets += more
    return octets
