"""Where a destination's mail goes: the explicit next hop, or the MX hosts of RFC 5321 §5.1 in order."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeAlias

from posthouse.config_values import Endpoint
from posthouse.mail.reply import Reply, reply
from posthouse.mail.world import Random
from posthouse.net.address_scope import is_host, is_loopback, is_public, plain_address
from posthouse.net.dns import Addresses, MxHost, NoSuchName, Resolver, TemporaryDnsFailure

MX_HOSTS_LIMIT = 20
ADDRESSES_LIMIT = 6
"""How many addresses of one host are tried; RFC 5321 §5.1 asks for two."""
LOCALHOST = Addresses(("::1", "127.0.0.1"))
"""Not a question for name servers (RFC 6761 §6.3)."""
REFUSAL_TIMEOUT_S = 5.0
"""How long a sender waits at RCPT for what name servers say."""
RIVALS_TIMEOUT_S = 5.0
"""How long an attempt waits to learn whether another host of the domain is this house."""

NULL_MX = reply(556, "5.1.10", "The domain says that it accepts no mail")
NULL_MX_AND_OTHERS = reply(
    550, "5.1.10", "The domain says that it accepts no mail, and names hosts for it all the same"
)
NO_SUCH_DOMAIN = reply(550, "5.1.2", "There is no such domain")
NO_MAIL_HOST = reply(550, "5.4.4", "The domain has no host for mail")
LOOPS_BACK = reply(554, "5.4.6", "Mail for this domain comes back to this house, which does not know the domain")
DNS_LATER = reply(451, "4.4.3", "The name servers gave no answer")
NEXT_HOP_UNKNOWN = reply(451, "4.3.5", "The next hop that this house is configured to use has no address")
NEXT_HOP_IS_OURSELVES = reply(451, "4.3.5", "The next hop that this house is configured to use is this house")
PRIVATE_ONLY = reply(550, "5.4.4", "The domain's mail hosts have only private addresses")


@dataclass(frozen=True, slots=True)
class Hop:
    """A host to try. `configured`: named in the configuration, so a private address is meant.

    `rivals`: other hosts of the domain that are no less preferred. If one of them is this house, it is not tried.
    """

    host: str
    port: int
    configured: bool
    rivals: tuple[str, ...] = ()

    def at(self, address: str) -> str:
        """The host and its address, for people; once where the host is an address itself."""
        return address if self.host.strip("[]") == address else f"{self.host} ({address})"


@dataclass(frozen=True, slots=True)
class NoRoute:
    """There is none: for ever (5yz) or for now (4yz)."""

    reply: Reply


Route: TypeAlias = tuple[Hop, ...] | NoRoute


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """Finds next hops. `explicit` answers from the configuration, `is_own` whether a door of ours is at an address."""

    resolver: Resolver
    explicit: Callable[[str], Endpoint | None]
    hostname: str
    port: int
    allow_private: bool
    random: Random
    is_own: Callable[[str, int], bool] = lambda _address, _port: False

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
            looked_up = LOCALHOST if hop.configured and hop.host == "localhost" else await self._look_up(hop.host)
        except TemporaryDnsFailure:
            return NoRoute(DNS_LATER)
        except NoSuchName:
            looked_up = Addresses(())
        if hop.configured:
            # A mistake in our own configuration is no reason to return mail to anybody.
            if any(self.is_own(address, hop.port) for address in looked_up.found):
                return NoRoute(NEXT_HOP_IS_OURSELVES)
            return _few(looked_up.found) or NoRoute(NEXT_HOP_UNKNOWN)
        if not looked_up.found:
            return NoRoute(NO_MAIL_HOST)
        if self._has_own(looked_up, hop.port) or await self._leads_back(hop):
            return NoRoute(LOOPS_BACK)
        allowed = tuple(address for address in looked_up.found if self._is_allowed(address))
        if not allowed and not looked_up.complete:
            return NoRoute(DNS_LATER)
        return _few(allowed) or NoRoute(PRIVATE_ONLY)

    async def _look_up(self, host: str) -> Addresses:
        """Raises what a Resolver raises. An address in place of a name is taken for what it is."""
        try:
            looked_up = Addresses((str(ipaddress.ip_address(host)),))
        except ValueError:
            looked_up = await self.resolver.addresses(host)
        found = dict.fromkeys(plain_address(address) for address in looked_up.found)
        return Addresses(tuple(found), looked_up.complete)

    async def _leads_back(self, hop: Hop) -> bool:
        """Whether an equal or better host is this house under another name. What cannot be asked now is not."""
        found = False

        async def look(name: str) -> None:
            nonlocal found
            try:
                found = self._has_own(await self._look_up(name), hop.port) or found
            except (NoSuchName, TemporaryDnsFailure):
                pass

        try:
            async with asyncio.timeout(RIVALS_TIMEOUT_S), asyncio.TaskGroup() as group:
                for name in hop.rivals:
                    group.create_task(look(name))
        except TimeoutError:
            pass
        return found

    def _has_own(self, looked_up: Addresses, port: int) -> bool:
        """Whether a door of this house is there. In somebody's zone, loopback is every machine, not this one."""
        return any(
            self.is_own(address, port) for address in looked_up.found if self.allow_private or not is_loopback(address)
        )

    def _is_allowed(self, address: str) -> bool:
        return is_host(address) if self.allow_private else is_public(address)

    async def _mail_exchangers(self, domain: str) -> tuple[MxHost, ...]:
        found = await self.resolver.mail_exchangers(domain)
        return found or (MxHost(0, domain),)

    def _ordered(self, hosts: tuple[MxHost, ...]) -> Route:
        named = tuple(host for host in hosts if host.name)
        if not named:
            return NoRoute(NULL_MX)
        if len(named) < len(hosts):
            # RFC 7505 §3: the null MX stands alone. Whichever they mean, it is not for us to guess.
            return NoRoute(NULL_MX_AND_OTHERS)
        ours = [host.preference for host in named if host.name == self.hostname]
        if ours:
            # RFC 5321 §5.1: hosts no better than ourselves would only send it back.
            named = tuple(host for host in named if host.preference < min(ours))
            if not named:
                return NoRoute(LOOPS_BACK)
        ranked = sorted(named, key=lambda host: (host.preference, self.random.uniform(0, 1)))
        # A host named twice is tried once, where it is named best.
        best = {host.name: host.preference for host in reversed(ranked)}
        names = tuple(dict.fromkeys(host.name for host in ranked))[:MX_HOSTS_LIMIT]
        return tuple(Hop(name, self.port, configured=False, rivals=_rivals(name, names, best)) for name in names)


def _rivals(name: str, names: tuple[str, ...], preferences: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(other for other in names if other != name and preferences[other] <= preferences[name])


def _few(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """The first addresses of both families in turn, so that a network without one of them reaches the other."""
    six = [address for address in addresses if ":" in address]
    four = [address for address in addresses if ":" not in address]
    mixed = [address for pair in zip_longest(six, four) for address in pair if address is not None]
    return tuple(mixed[:ADDRESSES_LIMIT])


def _literal_address(literal: str) -> str:
    inside = literal[1:-1]
    return inside[5:] if inside[:5].lower() == "ipv6:" else inside
