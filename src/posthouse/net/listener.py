"""Doors: listening sockets, and one task of the house's TaskGroup for each connection."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache

from posthouse.log import Log
from posthouse.net.outbox import Outbox
from posthouse.net.stream import Stream

BACKLOG = 1024
HANDSHAKE_TIMEOUT_S = 30.0

Serve = Callable[[Stream], Awaitable[None]]


class PortTaken(Exception):
    """A door cannot be opened; the message names the address and the reason."""


@dataclass(frozen=True, slots=True)
class Admittance:
    """How many sessions may be open at a door's service, in all and from one address (IPv6: one /64)."""

    sessions: int
    sessions_per_address: int


class SessionCounter:
    """Counts open sessions of one service over all its doors."""

    def __init__(self, admittance: Admittance) -> None:
        self.admittance = admittance
        self.open = 0
        self._by_network: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count one more session, or say that it is too many; then `leave` must not be called."""
        network = _network(address)
        if self.open >= self.admittance.sessions:
            return False
        if self._by_network[network] >= self.admittance.sessions_per_address:
            return False
        self.open += 1
        self._by_network[network] += 1
        return True

    def leave(self, address: str) -> None:
        network = _network(address)
        self.open -= 1
        self._by_network[network] -= 1
        if not self._by_network[network]:
            del self._by_network[network]


@lru_cache(maxsize=4096)
def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return address


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet. Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((host, port))
    except OSError as exc:
        listening.close()
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise PortTaken(f"{shown} cannot be opened: {_reason(exc)}") from exc
    listening.setblocking(False)
    return listening


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another program listens there already"
        case errno.EACCES | errno.EPERM:
            return "ports below 1024 need root or the right to bind them (CAP_NET_BIND_SERVICE)"
        case errno.EADDRNOTAVAIL:
            return "this machine does not have that address"
        case _:
            return error.strerror or str(error)


class Listener:
    """One door. Connections become tasks of `group`; a session that fails never cancels its siblings."""

    def __init__(
        self, listening: socket.socket, serve: Serve, *, tls: ssl.SSLContext | None = None, log: Log | None = None
    ) -> None:
        self._socket = listening
        self._serve = serve
        self._tls = tls
        self._log = log
        self._server: asyncio.Server | None = None
        host, port = listening.getsockname()[:2]
        self.host: str = host
        self.port: int = port

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Accept connections from now on."""
        loop = asyncio.get_running_loop()

        outbox = Outbox(loop)

        def connected() -> Stream:
            return _ServedStream(lambda stream: self._begin(group, stream), outbox)

        handshake = HANDSHAKE_TIMEOUT_S if self._tls is not None else None
        self._server = await loop.create_server(
            connected, sock=self._socket, backlog=BACKLOG, ssl=self._tls, ssl_handshake_timeout=handshake
        )

    def stop(self) -> None:
        """Accept no more; open sessions go on."""
        if self._server is not None:
            self._server.close()
        else:
            self._socket.close()

    def _begin(self, group: asyncio.TaskGroup, stream: Stream) -> None:
        session = self._run(stream)
        try:
            group.create_task(session)
        except RuntimeError:
            # The group is closing: whoever connected in the last moment is turned away.
            session.close()
            stream.abort()

    async def _run(self, stream: Stream) -> None:
        try:
            await self._serve(stream)
        except Exception:  # noqa: BLE001
            # Sessions catch their own errors; this is for bugs in what is around them.
            if self._log is not None:
                self._log.exception("session failed", peer=stream.peer_address)
        finally:
            # Nothing after a session may hold its descriptor; one that closed itself is gone already.
            stream.abort()


class _ServedStream(Stream):
    """A stream that starts its session when the connection (and the TLS handshake) is made."""

    def __init__(self, started: Callable[[Stream], object], outbox: Outbox) -> None:
        super().__init__(outbox)
        self._started = started

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        first = self._transport is None
        super().connection_made(transport)
        if first:
            self._started(self)
