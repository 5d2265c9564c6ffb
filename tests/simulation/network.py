"""A network in memory: hosts by IP address, connections that deliver late, in pieces, in part or not at all.

What is lost on the way is lost as TCP loses it: octets arrive in order and without gaps, until they do not arrive any
more; then one side hears of it (a reset), both, or nobody before its own time limit.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from random import Random
from typing import Any, cast

from posthouse.net.stream import Stream
from tests.simulation.loop import SimulatedLoop

LATENCY_S = 0.02
CONNECT_S = 130.0
"""When the system gives up a connection that nobody answers (Linux: six SYNs)."""

Tell = Callable[..., None]


class End(Enum):
    """How a connection breaks."""

    RESET = "reset"
    SILENCE = "silence"
    HALF_CLOSE = "half-close"
    CLOSE = "close"


@dataclass(slots=True)
class Break:
    """What happens to one direction once so many octets have gone that way.

    `at_reply`: instead, when the side that answers speaks next after a final dot went the other way.
    """

    how: End
    octets: int
    at_reply: bool = False


@dataclass(slots=True)
class Weather:
    """What befalls one connection."""

    latency_s: float = LATENCY_S
    out: Break | None = None
    """From who connected to who was connected to."""
    back: Break | None = None
    pieces: bool = False
    """Octets arrive in pieces of any size."""


class Host:
    """Who has an address. A process that dies takes its sockets along: `generation` tells those of its successor."""

    def __init__(self, network: Network, name: str, address: str) -> None:
        self.network = network
        self.name = name
        self.address = address
        self.listening: dict[int, Door] = {}
        self.ends: list[Transport] = []
        self.has_patience = False
        """Whether it waits for ever where nothing comes any more; nobody needs to wait for it then."""
        self.is_off = False
        """A machine without power answers nobody; one that runs, with nobody behind the port, refuses."""
        self.on_traffic: Callable[[], None] = lambda: None

    def open(self, port: int) -> Door:
        return Door(self, port)

    def die(self, how: End) -> None:
        """The process is gone: what it says from now on nobody hears."""
        ends, self.ends = self.ends, []
        self.listening.clear()
        for end in ends:
            end.die(how)


class Door:
    """What a `net.listener.Listener` needs of a listening socket; or, with `serve`, a door of the outside world."""

    def __init__(self, host: Host, port: int, serve: Callable[[], asyncio.Protocol] | None = None) -> None:
        self._host = host
        self._port = port
        self._serve = serve
        self._waiting: list[Arrival] = []
        self._watcher: Callable[[], None] | None = None
        self.is_open = True
        if serve is not None:
            self.listen(1)

    def getsockname(self) -> tuple[str, int]:
        return self._host.address, self._port

    def listen(self, _backlog: int) -> None:
        self._host.listening[self._port] = self

    def watch(self, watcher: Callable[[], None] | None) -> None:
        self._watcher = watcher
        if watcher is not None and self._waiting:
            self._host.network.loop.call_soon(watcher)

    def accept(self) -> tuple[Arrival, tuple[str, int]]:
        if not self._waiting:
            raise BlockingIOError
        arrival = self._waiting.pop(0)
        return arrival, (arrival.transport.peer_address, 1025)

    def close(self) -> None:
        self.is_open = False
        if self._host.listening.get(self._port) is self:
            del self._host.listening[self._port]

    def arrive(self, transport: Transport) -> None:
        """Somebody connects."""
        if self._serve is not None:
            transport.begin(self._serve())
            return
        self._waiting.append(Arrival(transport))
        if self._watcher is not None:
            self._host.network.loop.call_soon(self._watcher)


class Arrival:
    """An accepted socket, until it is a connection."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    def setblocking(self, _flag: bool) -> None:
        pass

    def begin(self, protocol: asyncio.Protocol) -> Transport:
        self.transport.begin(protocol)
        return self.transport

    def close(self) -> None:
        self.transport.abort()


class Transport(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, host: Host, local: tuple[str, int], peer: tuple[str, int]) -> None:
        super().__init__()
        self._host = host
        self._loop = host.network.loop
        self._local, self._peer = local, peer
        self.other: Transport
        self.weather = Weather()
        self.breaks: Break | None = None
        """Of what this end says."""
        self._protocol: asyncio.Protocol | None = None
        self._early: list[Callable[[], None]] = []
        self._sent = 0
        self._arrives_at = 0.0
        self._on_the_way = 0
        self._asked_to_pause = False
        self._is_paused = False
        self._closing = False
        self._muted = False
        self._lost = False
        self._dead = False
        self._tail = b""
        self.said_final_dot = False
        self.on_arrival: Callable[[], None] | None = None
        """Called once, when all that was said so far has reached the other side's process."""
        self.heard_eof = False
        host.ends.append(self)

    @property
    def peer_address(self) -> str:
        return self._peer[0]

    def begin(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol
        protocol.connection_made(self)
        early, self._early = self._early, []
        for step in early:
            self._loop.call_soon(step)

    # What the protocol calls.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": self._peer, "sockname": self._local}.get(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self._on_the_way

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: Any) -> None:
        octets = bytes(data)
        if self._closing or self._dead or not octets:
            return
        self._host.on_traffic()
        if self._dead or self._muted:
            return
        self._note_dot(octets)
        self._send(octets)

    def write_eof(self) -> None:
        self._later(lambda: self.other.receive_eof())

    def close(self) -> None:
        if self._closing or self._dead:
            return
        self._closing = True
        self._later(lambda: self.other.receive_eof())
        self._loop.after(0.0, lambda: self._lose(None))

    def abort(self) -> None:
        if self._dead or self._lost:
            return
        was_closing, self._closing = self._closing, True
        if not was_closing:
            self._later(lambda: self.other.receive_reset())
        self._loop.call_soon(self._lose, None)

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        early, self._early = self._early, []
        for step in early:
            self._loop.call_soon(step)

    # What the network does.

    def _note_dot(self, octets: bytes) -> None:
        self._tail = (self._tail + octets)[-5:]
        if self._tail == b"\r\n.\r\n" or b" LAST\r\n" in octets:
            self.said_final_dot = True

    def _send(self, octets: bytes) -> None:
        broken = self.breaks
        if broken is not None:
            if broken.at_reply:
                left = 0 if self.other.said_final_dot else len(octets)
            else:
                left = max(0, broken.octets - self._sent)
            if left < len(octets):
                self._deliver(octets[:left])
                self._break(broken.how)
                return
        self._deliver(octets)

    def _deliver(self, octets: bytes) -> None:
        self._sent += len(octets)
        for piece in self._cut(octets):
            self._on_the_way += len(piece)
            self._later(partial(self._arrive, piece))

    def _cut(self, octets: bytes) -> list[bytes]:
        if not self.weather.pieces or len(octets) < 2:
            return [octets] if octets else []
        at = self._host.network.chance.randrange(1, len(octets))
        return [octets[:at], octets[at:]]

    def _arrive(self, piece: bytes) -> None:
        self._on_the_way -= len(piece)
        self.other.receive(piece)
        if self.on_arrival is not None and not self._on_the_way and not (self.other._dead or self.other._lost):
            self.on_arrival, arrived = None, self.on_arrival
            arrived()

    def _later(self, step: Callable[[], None]) -> None:
        if self._muted:
            return
        self._arrives_at = max(self._arrives_at, self._loop.time() + self.weather.latency_s)
        self._loop.at(self._arrives_at, step)

    def _break(self, how: End) -> None:
        tell = self._host.network.tell
        tell("net", how.value, self._local[0], self._peer[0])
        self.on_arrival = None
        match how:
            case End.RESET:
                self.other._later(self.receive_reset)
                self._later(self.other.receive_reset)
            case End.HALF_CLOSE:
                self._later(self.other.receive_eof)
            case End.CLOSE:
                self._later(self.other.receive_eof)
                self.other._later(self.receive_eof)
            case End.SILENCE:
                self.other._muted = True
        self._muted = True

    def receive(self, octets: bytes) -> None:
        if self._dead or self._lost:
            return
        if self._protocol is None or self._is_paused:
            self._early.append(partial(self.receive, octets))
            return
        self._host.on_traffic()
        if not self._dead:
            self._protocol.data_received(octets)

    def receive_eof(self) -> None:
        if self._dead or self._lost:
            return
        if self._protocol is None or self._is_paused:
            self._early.append(self.receive_eof)
            return
        self.heard_eof = True
        if not self._protocol.eof_received():
            self.close()
        elif self._closing:
            self._lose(None)

    def receive_reset(self) -> None:
        self._lose(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

    def _lose(self, reason: Exception | None) -> None:
        if self._lost or self._dead:
            return
        self._lost = self._closing = True
        if self in self._host.ends:
            self._host.ends.remove(self)
        if self._protocol is not None:
            self._protocol.connection_lost(reason)

    def die(self, how: End) -> None:
        """The process that has this end is gone."""
        if not self._lost:
            if how is End.RESET:
                self._later(self.other.receive_reset)
            elif how is End.CLOSE:
                self._later(self.other.receive_eof)
        self._dead = self._muted = self._closing = True


class Network:
    """Who is where, who reaches whom, and what befalls the connections."""

    def __init__(self, loop: SimulatedLoop, chance: Random, tell: Tell) -> None:
        self.loop = loop
        self.chance = chance
        self.tell = tell
        self.hosts: dict[str, Host] = {}
        self.parted: set[tuple[str, str]] = set()
        """Pairs of addresses, in order, between which nothing passes."""
        self.weather: Callable[[str, str], Weather] = lambda _source, _target: Weather()
        self._ports = 10_000
        self.connections = 0

    def host(self, name: str, address: str) -> Host:
        self.hosts[address] = Host(self, name, address)
        return self.hosts[address]

    @property
    def is_busy(self) -> bool:
        """Whether somebody has a connection open who does not wait for ever."""
        return any(host.ends for host in self.hosts.values() if not host.has_patience)

    async def connect(self, source: Host, address: str, port: int) -> Transport:
        """One end of a connection. Raises OSError."""
        await self.loop.pause(LATENCY_S)
        target = self.hosts.get(address)
        if target is None or target.is_off or (source.address, address) in self.parted:
            await self.loop.pause(CONNECT_S)
            raise _error(errno.ETIMEDOUT)
        door = target.listening.get(port)
        if door is None:
            raise _error(errno.ECONNREFUSED)
        weather = self.weather(source.address, address)
        self._ports += 1
        self.connections += 1
        ours = Transport(source, (source.address, self._ports), (address, port))
        theirs = Transport(target, (address, port), (source.address, self._ports))
        ours.other, theirs.other = theirs, ours
        ours.weather = theirs.weather = weather
        ours.breaks, theirs.breaks = weather.out, weather.back
        door.arrive(theirs)
        return ours

    def part(self, one: str, other: str) -> None:
        """Nothing passes between two addresses from now on; open connections fall silent."""
        self.parted |= {(one, other), (other, one)}
        for end in [end for host in self.hosts.values() for end in host.ends]:
            if (end._local[0], end._peer[0]) in self.parted:
                end._muted = True

    def heal(self) -> None:
        self.parted.clear()


class SimulatedConnector:
    """Implements `net.connect.Connector` for one host."""

    def __init__(self, network: Network, host: Host) -> None:
        self._network = network
        self._host = host

    async def connect(self, host: str, port: int, *, local_address: str | None = None) -> Stream:
        transport = await self._network.connect(self._host, host, port)
        stream = Stream()
        transport.begin(cast(asyncio.Protocol, stream))
        return stream


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
