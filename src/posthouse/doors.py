"""The doors of a house: their sockets, certificates and limits. What stands behind each is made by `app.py`.

All but the sockets may change while the house runs; whoever is inside keeps what there was.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from posthouse.config import Config, Reception, Retrieval
from posthouse.config_values import Endpoint
from posthouse.log import Log
from posthouse.mail.world import Clock
from posthouse.net.arrival import Threshold
from posthouse.net.certificates import Certificates, Pair, PairSet
from posthouse.net.handshake import DoorContext
from posthouse.net.listener import Listener, bind
from posthouse.net.own_addresses import listens_at
from posthouse.net.sessions import Admittance, SessionCounter
from posthouse.net.stream import Stream
from posthouse.net.tls import CertificateUnusable
from posthouse.workers import Part

SELF_SIGNED = ("self-signed.crt", "self-signed.key")
SERVICES = {
    "smtp": ("smtp", "esmtp"),
    "submission": ("smtp", "esmtp"),
    "submissions": ("smtp", "esmtp"),
    "pop3": ("pop3",),
    "pop3s": ("pop3",),
}
"""The doors, and what clients that use ALPN call the service (RFC 7301; SMTP's names are those of Exim)."""
ADMIN = "admin"
"""The door for operators: no sessions, no certificate; HTTP behind it."""
IMPLICIT_TLS = ("submissions", "pop3s")
POP3 = ("pop3", "pop3s")
TOGETHER = {
    "smtp": "exchange",
    "submission": "submission",
    "submissions": "submission",
    "pop3": "pop3",
    "pop3s": "pop3",
}
"""Doors whose sessions are counted together: strangers who fill port 25 keep nobody from submission."""

ServeDoor = Callable[[str, Stream], Awaitable[None]]


class Doors:
    """`prepare` before anything opens, `start` to open, `furnish` whenever the configuration was read again."""

    def __init__(self, part: Part, clock: Clock, log: Log, held: Certificates | None = None) -> None:
        """`held`: what serves where the files cannot be used at the start, for another process serves with it."""
        self.endpoints: dict[str, tuple[Endpoint, ...]] = {}
        self._part = part
        self._clock = clock
        self._log = log
        self._listeners: list[tuple[str, Listener]] = []
        self.admin: tuple[socket.socket, ...] = ()
        """Bound, for whoever answers there and closes them."""
        self._counters = {name: SessionCounter(Admittance(0, 0)) for name in TOGETHER.values()}
        self._held = held
        self._certificates: Certificates | None = None
        self._tls: dict[str, DoorContext] = {}

    def use_certificates(self, config: Config) -> None:
        """Read the certificates that a configuration names. Raises CertificateUnusable; nothing has changed then."""
        pairs = certificate_pairs(config)
        if pairs is None:
            self._certificates, self._tls = None, {}
        elif self._certificates is None:
            self._certificates = self._first(pairs)
            self._tls = {door: self._certificates.door(door) for door in SERVICES}
        else:
            self._certificates.configure(pairs)

    def _first(self, pairs: PairSet) -> Certificates:
        try:
            return Certificates(pairs, SERVICES, self._clock, self._log)
        except CertificateUnusable as exc:
            if self._held is None or not self._held.is_for(pairs):
                raise
            self._log.error("certificate cannot be used; the one before stays in use", reason=str(exc))
            return self._held.inherited(self._log)

    def tls(self, door: str) -> DoorContext | None:
        """The context of a door; None where the house has no certificate."""
        return self._tls.get(door)

    def is_own(self, address: str, port: int) -> bool:
        """Whether a connection to there would come to one of these doors."""
        return any(listens_at(endpoints, address, port) for endpoints in self.endpoints.values())

    def bind(self, config: Config, serve: ServeDoor, refuse: ServeDoor) -> None:
        """Bind every door before any of them opens, so that a taken port is told before mail is taken.

        Raises PortTaken; `stop` closes what is bound then.
        """
        bound = self._part.doors if self._part.doors is not None else bind_doors(config)
        for door in SERVICES:
            listeners = [
                Listener(listening, partial(serve, door), refuse=partial(refuse, door), log=self._log)
                for listening in bound.get(door, ())
            ]
            self._listeners += [(door, listener) for listener in listeners]
            self.endpoints[door] = tuple(Endpoint(listener.host, listener.port) for listener in listeners)
        self.admin = bound.get(ADMIN, ())
        self.endpoints[ADMIN] = tuple(Endpoint(*opened.getsockname()[:2]) for opened in self.admin)

    def furnish(self, config: Config) -> None:
        """What whoever comes next has to pass."""
        for name, counter in self._counters.items():
            counter.admittance = self._admittance(config.retrieval if name == "pop3" else config.reception)
        for door, listener in self._listeners:
            listener.threshold = Threshold(
                tls=self._tls[door] if door in IMPLICIT_TLS else None,
                proxies=config.retrieval.proxy_from if door in POP3 else config.reception.proxy_from,
                sessions=self._counters[TOGETHER[door]],
            )

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Open them all."""
        for _door, listener in self._listeners:
            await listener.start(group)

    def turned_away(self) -> dict[str, int]:
        """How many connections were one too many, by service."""
        return {name: counter.turned_away for name, counter in self._counters.items()}

    def stop(self) -> None:
        """Nobody comes in any more."""
        for _door, listener in self._listeners:
            listener.stop()

    def close(self) -> None:
        """`stop`, and close the admin door, which answers until the house has closed."""
        self.stop()
        for opened in self.admin:
            opened.close()

    def _admittance(self, limits: Reception | Retrieval) -> Admittance:
        return Admittance(self._part.of(limits.sessions), self._part.of(limits.sessions_per_address))


def certificate_pairs(config: Config) -> PairSet | None:
    """The certificates that a configuration names; None where there is none, and no door that needs one."""
    tls, folder = config.tls, config.data_dir
    named = {name.host: Pair(name.certificate, name.key) for name in tls.names}
    if tls.certificate is not None and tls.key is not None:
        return PairSet(Pair(tls.certificate, tls.key), named)
    own = Pair(folder / SELF_SIGNED[0], folder / SELF_SIGNED[1])
    if own.certificate.exists() or named or any(getattr(config.listen, door) for door in IMPLICIT_TLS):
        return PairSet(own, named)
    return None


def bind_doors(
    config: Config, handed: Mapping[tuple[str, Endpoint], socket.socket] | None = None
) -> dict[str, tuple[socket.socket, ...]]:
    """Listening sockets for every door of the configuration. Raises PortTaken, with none left open.

    `handed`: those that are open already, by door and endpoint.
    """
    there = handed or {}
    bound: dict[str, tuple[socket.socket, ...]] = {}
    opened: list[socket.socket] = []
    try:
        for door in (*SERVICES, ADMIN):
            first = len(opened)
            for endpoint in getattr(config.listen, door):
                opened.append(there.get((door, endpoint)) or bind(endpoint.host, endpoint.port))
            bound[door] = tuple(opened[first:])
    except BaseException:
        for listening in opened:
            listening.close()
        raise
    return bound
