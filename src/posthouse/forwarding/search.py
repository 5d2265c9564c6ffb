"""Which host next: the hosts of one destination, best first, and of each its addresses (RFC 5321 §5.1)."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from posthouse.config_forwarding import Credentials
from posthouse.config_values import Endpoint, parse_next_hop
from posthouse.forwarding.dial import Dialer, NoConnection, OpenConnection, Target
from posthouse.forwarding.hosts import DeadHosts
from posthouse.forwarding.pool import Pool
from posthouse.forwarding.routes import Hop, NoRoute, Route, Router
from posthouse.forwarding.transaction import by_reply
from posthouse.mail.acceptance import Destination
from posthouse.mail.account import server_of
from posthouse.mail.journey import LEFT_ALONE
from posthouse.mail.outcome import Deferred, Failed, Outcome
from posthouse.mail.pressure import asks_to_slow_down
from posthouse.mail.reply import Reply, reply
from posthouse.net.smtp_transcript import Dialogue
from posthouse.vault import SecretMissing

CONNECTIONS_LIMIT = 20
"""How many addresses one search for a host that answers goes through."""


class Ways(Protocol):
    """How hosts are found and spoken to."""

    @property
    def router(self) -> Router: ...
    @property
    def dialer(self) -> Dialer: ...
    @property
    def hosts(self) -> DeadHosts: ...
    @property
    def pool(self) -> Pool: ...

    async def login(self, hop: Endpoint, identity: str) -> Credentials | None:
        """The login at an identity's own server. Raises SecretMissing."""
        ...

    def target(self, domain: str, hop: Hop, address: str, login: Credentials | None = None) -> Target:
        """How one address of a host is spoken to, for mail to a domain; `login`: that of an identity."""
        ...


class HostSearch:
    """Gives connections to the hosts of one destination, one after another; why there is none says `failure`.

    `skipped_for_s`: nobody was asked, since all were found dead a moment ago; the first may be asked again then.
    """

    def __init__(self, ways: Ways, destination: Destination) -> None:
        self._ways = ways
        self._destination = destination
        self._hops: deque[Hop] | None = None
        self._addresses: deque[tuple[Hop, str]] = deque()
        self._login: Credentials | None = None
        self._connections_left = 0
        self._failure_before: Outcome | None = None
        self._skipped_for_s: float | None = None
        self._asked = False
        self.failure: Outcome | None = None
        self.hop_count = 0
        self.next_hop = ""
        self.address = ""
        self.pressure: Reply | None = None
        self.asks_dead = False
        """Whether hosts are asked that were found dead a moment ago: where a person wants it."""

    @property
    def has_begun(self) -> bool:
        """Whether there is a search under way."""
        return self._hops is not None

    @property
    def can_go_on(self) -> bool:
        """Whether there are hosts that were not tried."""
        return bool(self._hops or self._addresses) and self._connections_left > 0

    @property
    def skipped_for_s(self) -> float | None:
        """Seconds until the first host that was left alone may be asked; None where one was asked."""
        return None if self._asked else self._skipped_for_s

    def restart(self) -> None:
        """The next connection is to the best host again."""
        self._hops = None

    def skip_host(self) -> None:
        """Another address of the same host would not help."""
        self._addresses.clear()

    def still_there(self, opened: OpenConnection) -> None:
        """The host answered a transaction: it is not dead, whatever other connections meet with."""
        self._ways.hosts.answered(opened.target.endpoint)

    async def open(self, transcript: Dialogue) -> OpenConnection | None:
        """A connection to the first host, of those not tried yet, that greets us. Else `failure` tells why."""
        if self._hops is None:
            await self._begin()
        while self.can_go_on:
            found = await self._next_address()
            if found is None:
                break
            opened = await self._open_one(*found, transcript)
            if opened is not None:
                # That another address of this host was dead says nothing any more.
                self.failure = self._failure_before
                return opened
        self._hops = None
        return None

    async def _begin(self) -> None:
        self.failure = self._skipped_for_s = self.pressure = None
        self._asked = False
        self._addresses.clear()
        self._connections_left = CONNECTIONS_LIMIT
        self.next_hop = self.address = ""
        route = await self._route()
        if isinstance(route, NoRoute):
            self.failure = by_reply(route.reply, from_peer=False)
            self._hops = deque()
        else:
            self._hops = deque(route)
            self.hop_count = len(route)

    async def _route(self) -> Route:
        via = self._destination.via
        if not via:
            return await self._ways.router.route(self._destination.domain)
        server, identity = server_of(via)
        try:
            hop = parse_next_hop(server)
        except ValueError:
            return NoRoute(_not_configured(f"{server!r}, which an identity sends through, is not host:port"))
        try:
            self._login = await self._ways.login(hop, identity)
        except SecretMissing as exc:
            return NoRoute(_not_configured(f"The login of {identity} at {hop} cannot be had: {exc}"))
        if self._login is None:
            whose = f"{identity} is no account of this house that could log in at {hop}"
            return NoRoute(
                _not_configured(whose if identity else f"This house has no login for {hop}: see forwarding.login")
            )
        return (Hop(hop.host, hop.port, configured=True),)

    async def _next_address(self) -> tuple[Hop, str] | None:
        """The next address to try; names are looked up only when their turn has come."""
        while not self._addresses and self._hops:
            hop = self._hops.popleft()
            self._failure_before = self.failure
            found = await self._ways.router.addresses(hop)
            if isinstance(found, NoRoute):
                self.failure = worse(self.failure, by_reply(found.reply, from_peer=False))
            else:
                self._addresses.extend((hop, address) for address in found)
        return self._addresses.popleft() if self._addresses else None

    async def _open_one(self, hop: Hop, address: str, transcript: Dialogue) -> OpenConnection | None:
        """A connection that has greeted us, or None, with the reason in `failure`."""
        self.next_hop, self.address = str(Endpoint(hop.host, hop.port)), address
        target = self._ways.target(self._destination.domain, hop, address, self._login)
        idle = self._ways.pool.take(target)
        if idle is not None:
            return idle
        left_alone_s = 0.0 if self.asks_dead else self._ways.hosts.dead_for_s(target.endpoint)
        if left_alone_s:
            self._skipped_for_s = min(left_alone_s, self._skipped_for_s or left_alone_s)
            if not (self._asked and isinstance(self.failure, Deferred)):
                # What a host said that was asked tells more.
                self.failure = worse(self.failure, _left_alone(hop, address))
            transcript.append(f"C: (leaves {hop.host}, {target.endpoint}, alone: it did not answer a moment ago)")
            return None
        self._asked = True
        self._connections_left -= 1
        try:
            opened = await self._ways.dialer.dial(target, transcript)
        except NoConnection as exc:
            if exc.dead:
                self._ways.hosts.failed(target.endpoint)
            else:
                self._ways.hosts.answered(target.endpoint)
            if exc.greeting is not None and asks_to_slow_down(exc.greeting):
                self.pressure = exc.greeting
            self.failure = worse(self.failure, exc.outcome)
            return None
        self._ways.hosts.answered(target.endpoint)
        return opened


def worse(before: Outcome | None, now: Outcome) -> Outcome:
    """What to tell when several hosts failed: "later" wins over "never", since one of them may come back."""
    return before if isinstance(before, Deferred) and isinstance(now, Failed) else now


def _not_configured(text: str) -> Reply:
    return reply(451, "4.3.5", text)


def _left_alone(hop: Hop, address: str) -> Deferred:
    return Deferred(reply(451, "4.4.1", f"{hop.at(address)} {LEFT_ALONE}"), from_peer=False)
