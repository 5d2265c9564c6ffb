"""Where a destination's mail goes: the explicit next hop, or the MX hosts of RFC 5321 §5.1 in order."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeAlias

from posthouse.config_values import Endpoint
from posthouse.mail.reply import Reply, reply
from posthouse.mail.world import Random
from posthouse.net.dns import MxHost, NoSuchName, Resolver, TemporaryDnsFailure

MX_HOSTS_LIMIT = 20
ADDRESSES_LIMIT = 6
"""How many addresses of one host are tried; RFC 5321 §5.1 asks for two."""
REFUSAL_TIMEOUT_S = 5.0
"""How long a sender waits at RCPT for what name servers say."""

NULL_MX = reply(556, "5.1.10", "The domain says that it accepts no mail")
NO_SUCH_DOMAIN = reply(550, "5.1.2", "There is no such domain")
NO_MAIL_HOST = reply(550, "5.4.4", "The domain has no host for mail")
LOOPS_BACK = reply(554, "5.4.6", "Mail for this domain comes back to this house, which does not know the domain")
DNS_LATER = reply(451, "4.4.3", "The name servers gave no answer")
NEXT_HOP_UNKNOWN = reply(451, "4.3.5", "The next hop that this house is configured to use has no address")
PRIVATE_ONLY = reply(550, "5.4.4", "The domain's mail hosts have only private addresses")


@dataclass(frozen=True, slots=True)
class Hop:
    """A host to try. `configured`: named in the configuration, so a private address is meant."""

    host: str
    port: int
    configured: bool


@dataclass(frozen=True, slots=True)
class NoRoute:
    """There is none: for ever (5yz) or for now (4yz)."""

    reply: Reply


Route: TypeAlias = tuple[Hop, ...] | NoRoute


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """Finds next hops. `explicit` answers from the configuration."""

    resolver: Resolver
    explicit: Callable[[str], Endpoint | None]
    hostname: str
    port: int
    allow_private: bool
    random: Random

    async def route(self, domain: str) -> Route:
        """The hosts to try for a domain, best first."""
        named = self.explicit(domain)
        if named is not None:
            return (Hop(named.host, named.port, configured=True),)
        if domain.startswith("["):
            return (Hop(_literal_address(domain), self.port, configured=False),)
        try:
            hosts = await self._mail_exchangers(domain)
        except NoSuchName:
            return NoRoute(NO_SUCH_DOMAIN)
        except TemporaryDnsFailure:
            return NoRoute(DNS_LATER)
        return self._ordered(hosts)

    async def refusal(self, domain: str) -> Reply | None:
        """Why mail for a domain can never leave, as its name servers say; None where it can, or they say nothing."""
        try:
            async with asyncio.timeout(REFUSAL_TIMEOUT_S):
                found = await self.route(domain)
        except TimeoutError:
            return None
        return found.reply if isinstance(found, NoRoute) and found.reply.is_permanent else None

    async def addresses(self, hop: Hop) -> tuple[str, ...] | NoRoute:
        """The IP addresses of one host that may be connected to, both families in turn, a few at most."""
        try:
            found = await self._look_up(hop.host)
        except TemporaryDnsFailure:
            return NoRoute(DNS_LATER)
        except NoSuchName:
            found = ()
        if hop.configured:
            # A mistake in our own configuration is no reason to return mail to anybody.
            return _few(found) or NoRoute(NEXT_HOP_UNKNOWN)
        if not found:
            return NoRoute(NO_MAIL_HOST)
        if not self.allow_private:
            found = tuple(address for address in found if _is_public(address))
        return _few(found) or NoRoute(PRIVATE_ONLY)

    async def _look_up(self, host: str) -> tuple[str, ...]:
        try:
            return (str(ipaddress.ip_address(host)),)
        except ValueError:
            return await self.resolver.addresses(host)

    async def _mail_exchangers(self, domain: str) -> tuple[MxHost, ...]:
        found = await self.resolver.mail_exchangers(domain)
        return found or (MxHost(0, domain),)

    def _ordered(self, hosts: tuple[MxHost, ...]) -> Route:
        named = tuple(host for host in hosts if host.name)
        if not named:
            return NoRoute(NULL_MX)
        ours = [host.preference for host in named if host.name == self.hostname]
        if ours:
            # RFC 5321 §5.1: hosts no better than ourselves would only send it back.
            named = tuple(host for host in named if host.preference < min(ours))
            if not named:
                return NoRoute(LOOPS_BACK)
        ranked = sorted(named, key=lambda host: (host.preference, self.random.uniform(0, 1)))
        # A host named twice is tried once, where it is named best.
        names = tuple(dict.fromkeys(host.name for host in ranked))
        return tuple(Hop(name, self.port, configured=False) for name in names[:MX_HOSTS_LIMIT])


def _few(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """The first addresses of both families in turn, so that a network without one of them reaches the other."""
    six = [address for address in addresses if ":" in address]
    four = [address for address in addresses if ":" not in address]
    mixed = [address for pair in zip_longest(six, four) for address in pair if address is not None]
    return tuple(mixed[:ADDRESSES_LIMIT])


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return parsed.is_global and not parsed.is_multicast


def _literal_address(literal: str) -> str:
    inside = literal[1:-1]
    return inside[5:] if inside[:5].lower() == "ipv6:" else inside
