"""A network that fails after an exact number of octets: between a client and a house, or a house and its next hop.

    with Network() as network:
        link = network.run(network.link(port, Break(Way.UP, 17, How.RESET)))   # link.client is a socket
        network.run(network.listen(("127.78.0.1", 0), next_hop, lambda: Break(Way.DOWN, 3, How.STOP)))

One loop in a thread of its own carries all connections. UP is from the one that connected to the one that listens.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")
Place = tuple[str, int]
"""Address and port."""
PIECE_OCTETS = 65_536
LINGER_NOT = struct.pack("ii", 1, 0)


class Way(Enum):
    """From whom to whom."""

    UP = auto()
    DOWN = auto()


class How(Enum):
    """What happens when so many octets have passed."""

    CLOSE = auto()
    """Both ends see the other one leave in good order."""
    RESET = auto()
    """Both ends see a reset."""
    HALF = auto()
    """Who hears this way sees its end; the other way goes on."""
    STOP = auto()
    """Nothing passes any more, either way, and nobody is told."""
    DRIBBLE = auto()
    """The rest passes octet by octet."""


@dataclass(frozen=True, slots=True)
class Break:
    """Where, when and how a connection fails."""

    way: Way
    after_octets: int
    how: How


@dataclass(slots=True)
class Link:
    """One connection. `passed` counts what reached the other end. `client` is our end where a test is the client."""

    broken: Break | None
    passed: dict[Way, int] = field(default_factory=lambda: dict.fromkeys(Way, 0))
    client: socket.socket | None = None


class _Stopped(Exception):
    """The break has come."""


class Network:
    """Carries connections until the end of the `with` block; those that are open then are reset."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listeners: list[socket.socket] = []

    def __enter__(self) -> Network:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = 600.0) -> T:
        """Do something on the loop of the network, from a test that may block."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    async def link(self, port: int, broken: Break | None) -> Link:
        """A connection to a port of loopback. Raises OSError."""
        ours, theirs = socket.socketpair()
        server = socket.socket()
        for each in (ours, theirs, server):
            each.setblocking(False)
        try:
            await self._loop.sock_connect(server, ("127.0.0.1", port))
        except OSError:
            for each in (ours, theirs, server):
                each.close()
            raise
        link = Link(broken, client=ours)
        self._carry(link, theirs, server)
        return link

    async def listen(self, at: Place, to: Place, plan: Callable[[], Break | None]) -> Place:
        """Accept at an address of loopback and carry on to another; `plan` is asked at each connection. Where we are.

        Port 0 is one that the system picks.
        """
        listener = socket.socket()
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(at)
        listener.listen(16)
        self._listeners.append(listener)
        self._start(self._accept(listener, to, plan))
        return (at[0], listener.getsockname()[1])

    async def _accept(self, listener: socket.socket, to: Place, plan: Callable[[], Break | None]) -> None:
        while True:
            client, _ = await self._loop.sock_accept(listener)
            client.setblocking(False)
            server = socket.socket()
            server.setblocking(False)
            try:
                await self._loop.sock_connect(server, to)
            except BaseException:
                client.close()
                server.close()
                raise
            self._carry(Link(plan()), client, server)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _carry(self, link: Link, client: socket.socket, server: socket.socket) -> None:
        """Both ends are closed when it has ended, also where it was cancelled before it began."""
        task = self._start(_carry(link, client, server))
        task.add_done_callback(lambda _task: (client.close(), server.close()))

    async def _end(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for listener in self._listeners:
            listener.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()


async def _carry(link: Link, client: socket.socket, server: socket.socket) -> None:
    for each in (client, server):
        if each.family == socket.AF_INET:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ends = {Way.UP: (client, server), Way.DOWN: (server, client)}
    how = None
    try:
        async with asyncio.TaskGroup() as group:
            # A way that ends in good order leaves the other one alone.
            for way in Way:
                group.create_task(_pass(link, way, *ends[way]))
    except* _Stopped:
        assert link.broken is not None
        how = link.broken.how
    except* OSError:
        # One end was reset, so the other one is.
        how = How.RESET
    await _leave(how, client, server)


async def _pass(link: Link, way: Way, source: socket.socket, target: socket.socket) -> None:
    """Carry one way to its end, or to its break. Raises _Stopped where that concerns the other way too."""
    loop = asyncio.get_running_loop()
    broken = link.broken if link.broken is not None and link.broken.way is way else None
    piece = PIECE_OCTETS
    while True:
        if broken is not None:
            left = broken.after_octets - link.passed[way]
            if left == 0 and broken.how is not How.DRIBBLE:
                break
            piece = min(left, PIECE_OCTETS) if left > 0 else 1
        octets = await loop.sock_recv(source, piece)
        if not octets:
            broken = None
            break
        await loop.sock_sendall(target, octets)
        link.passed[way] += len(octets)
    if broken is not None and broken.how is not How.HALF:
        raise _Stopped
    target.shutdown(socket.SHUT_WR)
    if broken is not None:
        await _discard(source)


async def _leave(how: How | None, client: socket.socket, server: socket.socket) -> None:
    """What the ends see before we close them."""
    match how:
        case How.RESET:
            for each in (client, server):
                if each.family == socket.AF_INET:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
        case How.CLOSE | How.STOP:
            for each in (client, server):
                with suppress(OSError):
                    if how is How.CLOSE:
                        each.shutdown(socket.SHUT_WR)
            for each in (client, server):
                await _discard(each)
        case _:
            pass


async def _discard(source: socket.socket) -> None:
    """Hear all that is said, to its end, and tell nobody."""
    with suppress(OSError):
        while await asyncio.get_running_loop().sock_recv(source, PIECE_OCTETS):
            pass
