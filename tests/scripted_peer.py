"""A server on loopback that plays a list of steps to each connection: what a strange or hostile peer would do.

    async with scripted_peer(Send("220 x"), Expect("EHLO"), Send("250 x"), Hang()) as peer:
        await connect(peer.port)
        ...
    peer.check()

Connections play their own script when several are given (`scripted_peers`); one more than scripts is closed.
`received` is all that came; `failures` says which expectation was not met.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

PATIENCE_S = 10.0
"""How long a step waits for its peer before the script has failed: only a broken test gets there."""


@dataclass(frozen=True, slots=True)
class Send:
    """Lines, each ended by CRLF, in one write."""

    lines: tuple[str, ...]

    def __init__(self, *lines: str) -> None:
        object.__setattr__(self, "lines", lines)


@dataclass(frozen=True, slots=True)
class Raw:
    """Octets as they are."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Drip:
    """Octets one by one, `pause_s` seconds after each."""

    octets: bytes
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Expect:
    """One line that begins with `prefix` (case does not matter)."""

    prefix: str


@dataclass(frozen=True, slots=True)
class TakeContent:
    """Read until CRLF.CRLF."""


@dataclass(frozen=True, slots=True)
class TakeOctets:
    """Read at least so many octets."""

    count: int


@dataclass(frozen=True, slots=True)
class Hang:
    """Do nothing until the other side leaves; reads, so that it is seen to leave."""


@dataclass(frozen=True, slots=True)
class Deaf:
    """Do nothing, read nothing, until the test ends."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection in good order."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Close the connection by RST: what was sent may be lost."""


@dataclass(frozen=True, slots=True)
class StartTls:
    """The server's side of a handshake; what follows is said inside."""

    context: ssl.SSLContext


Step: TypeAlias = Send | Raw | Drip | Expect | TakeContent | TakeOctets | Hang | Deaf | Close | Reset | StartTls


@dataclass(slots=True)
class ScriptedPeer:
    """What happened. `received` has one entry for each connection."""

    port: int = 0
    received: list[bytearray] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def octets(self) -> bytes:
        """All that the first connection sent."""
        return bytes(self.received[0]) if self.received else b""

    def check(self) -> None:
        """Fail the test if a step was not met."""
        assert self.failures == []


@asynccontextmanager
async def scripted_peer(*steps: Step) -> AsyncIterator[ScriptedPeer]:
    """One connection, one script."""
    async with scripted_peers(steps) as peer:
        yield peer


@asynccontextmanager
async def scripted_peers(*scripts: tuple[Step, ...]) -> AsyncIterator[ScriptedPeer]:
    """The first connection plays the first script, the second one the second."""
    peer = ScriptedPeer()
    waiting = list(scripts)
    ended = asyncio.Event()
    connections: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.append(task)
        taken = bytearray()
        peer.received.append(taken)
        steps = waiting.pop(0) if waiting else ()
        try:
            async with asyncio.timeout(PATIENCE_S):
                for step in steps:
                    await _play(step, reader, writer, taken, ended)
        except (AssertionError, ConnectionError, EOFError, TimeoutError, ssl.SSLError) as exc:
            peer.failures.append(f"{step}: {type(exc).__name__} {exc}")
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        ended.set()
        server.close()
        while pending := [task for task in connections if not task.done()]:
            await asyncio.wait(pending)


async def _play(
    step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, taken: bytearray, ended: asyncio.Event
) -> None:
    match step:
        case Send(lines=lines):
            writer.write("".join(f"{line}\r\n" for line in lines).encode())
            await writer.drain()
        case Raw(octets=octets):
            writer.write(octets)
            await writer.drain()
        case Drip(octets=octets, pause_s=pause_s):
            for octet in octets:
                if writer.is_closing():
                    break
                writer.write(bytes([octet]))
                await asyncio.sleep(pause_s)
        case Expect(prefix=prefix):
            line = await reader.readuntil(b"\r\n")
            taken += line
            assert line.upper().startswith(prefix.encode().upper()), line
        case TakeContent():
            taken += await reader.readuntil(b"\r\n.\r\n")
        case TakeOctets(count=count):
            taken += await reader.readexactly(count)
        case Hang():
            await _read_rest(reader, taken, ended)
        case Deaf():
            await ended.wait()
        case Close():
            writer.close()
        case StartTls(context=context):
            await writer.start_tls(context)
        case Reset():
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


async def _read_rest(reader: asyncio.StreamReader, taken: bytearray, ended: asyncio.Event) -> None:
    try:
        while octets := await reader.read(65536):
            taken += octets
    except ConnectionError:
        pass
