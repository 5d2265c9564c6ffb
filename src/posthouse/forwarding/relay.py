"""Handing messages to next hops: what all sessions share, from the configuration and from what is remembered.

A session (`session`) finds a host (`search`), opens a connection (`dial`) or takes one that waits (`pool`), and hands
over message after message (`transaction`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from posthouse.config_forwarding import Credentials, Forwarding, TlsMode
from posthouse.config_values import Endpoint
from posthouse.forwarding.attempt import Attempt as Attempt
from posthouse.forwarding.dial import Dialer, Target
from posthouse.forwarding.hosts import DeadHosts
from posthouse.forwarding.logins import FindLogin, nobodys
from posthouse.forwarding.pool import Pool
from posthouse.forwarding.routes import Hop, Router
from posthouse.forwarding.search import HostSearch
from posthouse.forwarding.session import Mark, RelaySession
from posthouse.mail.acceptance import Destination
from posthouse.mail.world import Clock
from posthouse.storage.interfaces import Content


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """Makes a session for each claim. `hosts` and `pool` outlive it: they remember."""

    router: Router
    dialer: Dialer
    content: Content
    clock: Clock
    hello_name: str
    hosts: DeadHosts
    pool: Pool
    terms: Forwarding = field(default_factory=Forwarding)
    credentials: Mapping[str, Credentials] = field(default_factory=dict)
    """Logins by next hop, `host:port`."""
    logins: FindLogin = nobodys
    """Logins of identities that the configuration does not have."""

    def session(
        self, destination: Destination, reached: Callable[[], None] = lambda: None, mark: Mark | None = None
    ) -> RelaySession:
        """Attempts at one destination. `reached` is called when a host of it has greeted us.

        `mark` is for mail of identities that leaves through their own server: it precedes each final dot.
        """
        search = HostSearch(self, destination)
        return RelaySession(
            search, self.pool, self.content, self.clock, reached=reached, mark=mark if destination.via else None
        )

    def together(self, destination: Destination) -> str:
        """What mail of several destinations has in common: their next hop where it is named, else the domain."""
        if destination.via:
            return destination.via
        named = self.router.explicit(destination.domain)
        return str(named) if named is not None else destination.domain

    async def login(self, hop: Endpoint, identity: str) -> Credentials | None:
        """The login at an identity's own server, the configuration's before its own. Raises SecretMissing."""
        found = self.credentials.get(_key(hop))
        return found if found is not None or not identity else await self.logins(identity)

    def target(self, domain: str, hop: Hop, address: str, login: Credentials | None = None) -> Target:
        """How one address of a host is spoken to, for mail to a domain; `login`: that of an identity.

        Only hosts that the configuration names are logged in at: who answers for MX records is not asked who they are.
        """
        endpoint = Endpoint(hop.host.lower(), hop.port)
        mode = self.terms.tls_mode(domain, endpoint)
        if login is not None and login.tls is not None:
            # In clear only where that was asked for, which is on this machine.
            mode = login.tls if login.tls is TlsMode.NEVER else max(mode, login.tls, key=list(TlsMode).index)
        elif login is None and hop.configured:
            login = self.credentials.get(_key(endpoint))
        return Target(
            hop=hop,
            address=address,
            mode=mode,
            credentials=login,
            source_address=self.terms.source_address(address),
            hello_name=self.hello_name,
        )


def _key(hop: Endpoint) -> str:
    return str(Endpoint(hop.host.lower(), hop.port))
