"""Doors: listening sockets, and one task of the house's TaskGroup for each connection."""

from __future__ import annotations

import asyncio
import errno
import math
import socket
import ssl
from collections.abc import Awaitable, Callable

from posthouse.log import Log
from posthouse.net.arrival import Threshold, is_among, open_stream, proxy_header
from posthouse.net.outbox import Outbox
from posthouse.net.plain_socket import PlainSocket
from posthouse.net.proxy import ProxyHeader, ProxyHeaderError
from posthouse.net.stream import Stream, ip_address_of

BACKLOG = 1024
ACCEPTS_PER_TURN = 32
"""Others have their turn after so many new connections."""
REST_S = 0.2
"""How long no connection is accepted when there are no descriptors left; meanwhile they wait in the backlog."""
TELL_EVERY_S = 60.0

Serve = Callable[[Stream], Awaitable[None]]


class PortTaken(Exception):
    """A door cannot be opened; the message names the address and the reason."""

    def __init__(self, host: str, port: int, error: OSError) -> None:
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.reason = _reason(error)
        super().__init__(f"{shown} cannot be opened: {self.reason}")
        self.host = host
        self.port = port
        self.is_used = error.errno == errno.EADDRINUSE
        self.is_forbidden = error.errno in (errno.EACCES, errno.EPERM)


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet. Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = PlainSocket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((host, port))
    except OSError as exc:
        listening.close()
        raise PortTaken(host, port, exc) from exc
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
    """One door. Connections become tasks of `group`; a session that fails never cancels its siblings.

    `threshold` may be replaced at any time: each new connection takes the one of its moment.
    """

    def __init__(
        self,
        listening: socket.socket,
        serve: Serve,
        *,
        refuse: Serve | None = None,
        threshold: Threshold | None = None,
        log: Log | None = None,
    ) -> None:
        """`refuse` turns away in clear who is one session too many; over TLS, the connection is just closed."""
        self.threshold = threshold or Threshold()
        self._socket = listening
        self._serve = serve
        self._refuse = refuse
        self._log = log
        self._loop: asyncio.AbstractEventLoop | None = None
        self._group: asyncio.TaskGroup | None = None
        self._outbox: Outbox | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._shortage_told_at = -math.inf
        self._arriving: set[asyncio.Task[None]] = set()
        host, port = listening.getsockname()[:2]
        self.host: str = host
        self.port: int = port

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Accept connections from now on."""
        self._loop, self._group = asyncio.get_running_loop(), group
        self._outbox = Outbox(self._loop)
        self._socket.listen(BACKLOG)
        self._loop.add_reader(self._socket, self._accept)

    def stop(self) -> None:
        """Accept no more; open sessions go on, who is not that far yet is turned away."""
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
            self._loop = None
        if self._resting is not None:
            self._resting.cancel()
        self._socket.close()
        for task in tuple(self._arriving):
            task.cancel()

    def _accept(self) -> None:
        for _turn in range(ACCEPTS_PER_TURN):
            try:
                connection, name = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                # Others are errors of one connection that has gone again (accept(2)).
                if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._rest(exc)
                    return
                continue
            connection.setblocking(False)
            self._begin(connection, ip_address_of(name))

    def _rest(self, error: OSError) -> None:
        """There is no room for another connection: leave them in the backlog for a moment."""
        assert self._loop is not None
        self._loop.remove_reader(self._socket)
        self._resting = self._loop.call_later(REST_S, self._resume)
        now = self._loop.time()
        if self._log is not None and now - self._shortage_told_at >= TELL_EVERY_S:
            self._shortage_told_at = now
            text = "raise the limit of open files, or lower the limits of sessions"
            self._log.error("no connection can be accepted", port=self.port, reason=error.strerror, mend=text)

    def _resume(self) -> None:
        if self._loop is not None:
            self._loop.add_reader(self._socket, self._accept)

    def _begin(self, connection: socket.socket, address: str) -> None:
        assert self._group is not None
        session = self._run(connection, address)
        try:
            task = self._group.create_task(session)
        except RuntimeError:
            # The group is closing: whoever connected in the last moment is turned away.
            session.close()
            connection.close()
            return

        def left(task: asyncio.Task[None]) -> None:
            self._arriving.discard(task)
            # Who did not become a session; a task that was cancelled before its first step has closed nothing.
            connection.close()

        self._arriving.add(task)
        task.add_done_callback(left)

    async def _run(self, connection: socket.socket, address: str) -> None:
        """Over the threshold, and into the session, with few coroutines around it: each wait passes through all."""
        threshold, sessions = self.threshold, None
        peer, local = address, None
        stream: Stream | None = None
        try:
            if is_among(address, threshold.proxies):
                ends = await self._proxied(connection, address)
                if ends is None:
                    return
                peer, local = ends.peer or address, ends.local
            if threshold.sessions is not None and not threshold.sessions.enter(peer):
                await self._turn_away(connection, threshold, peer)
                return
            sessions = threshold.sessions
            stream = await self._open(connection, threshold, peer, local)
            if stream is not None:
                self._has_arrived()
                await self._serve(stream)
        except Exception:  # noqa: BLE001
            # Sessions catch their own errors; this is for bugs in what is around them.
            if self._log is not None:
                self._log.exception("session failed", peer=address)
        finally:
            # Nothing after a session may hold its descriptor; one that closed itself is gone already.
            if stream is not None:
                stream.abort()
            if sessions is not None:
                sessions.leave(peer)

    def _has_arrived(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._arriving.discard(task)

    async def _proxied(self, connection: socket.socket, address: str) -> ProxyHeader | None:
        """The PROXY header; None when it is not right."""
        reason = "it did not come in time"
        try:
            return await proxy_header(connection)
        except TimeoutError:
            pass
        except ProxyHeaderError as exc:
            reason = str(exc)
        except OSError as exc:
            reason = exc.strerror or str(exc)
        if self._log is not None:
            self._log.warning("PROXY header refused", proxy=address, reason=reason)
        return None

    async def _open(
        self, connection: socket.socket, threshold: Threshold, peer: str, local: str | None
    ) -> Stream | None:
        """The stream; None when the peer has gone, or the handshake failed."""
        assert self._outbox is not None
        try:
            return await open_stream(connection, threshold, self._outbox, peer_address=peer, local_address=local)
        except OSError as exc:
            if self._log is not None and threshold.tls is not None:
                self._log.info("TLS handshake failed", peer=peer, port=self.port, reason=_failure(exc))
            return None

    async def _turn_away(self, connection: socket.socket, threshold: Threshold, peer: str) -> None:
        """One session too many. A handshake just to say so would cost more than the session."""
        if self._log is not None:
            self._log.info("too many sessions", peer=peer, port=self.port)
        if threshold.tls is not None or self._refuse is None:
            return
        stream = await self._open(connection, threshold, peer, None)
        if stream is not None:
            try:
                await self._refuse(stream)
            finally:
                stream.abort()


def _failure(error: OSError) -> str:
    """Why a handshake failed, in a few words."""
    # Only errors of OpenSSL have a reason.
    reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    if isinstance(reason, str):
        return reason.lower().replace("_", " ")
    return error.strerror or str(error) or type(error).__name__
