"""DNS questions that mail asks. A temporary failure is never "no such name" (RFC 5321 §5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver
from dns.rdata import Rdata
from dns.rdtypes.ANY.MX import MX

LOOKUP_LIFETIME_S = 20.0


class NoSuchName(Exception):
    """The name certainly does not exist (NXDOMAIN)."""


class TemporaryDnsFailure(Exception):
    """No certain answer: timeout, SERVFAIL, or something malformed."""


@dataclass(frozen=True, slots=True)
class MxHost:
    """One MX record. `name` is "" for the null MX (RFC 7505)."""

    preference: int
    name: str


class Resolver(Protocol):
    """Answers, or NoSuchName, or TemporaryDnsFailure."""

    async def mail_exchangers(self, domain: str) -> tuple[MxHost, ...]:
        """The MX records, in any order; empty when the name exists and has none."""
        ...

    async def addresses(self, host: str) -> tuple[str, ...]:
        """IP addresses, IPv6 before IPv4; empty when the name exists and has none."""
        ...


class DnsResolver:
    """The real one, over dnspython. No search domains: a name is looked up as it stands (RFC 5321 §2.3.5)."""

    def __init__(self, servers: tuple[tuple[str, int], ...] = ()) -> None:
        """`servers` are (IP address, port); empty means the system's."""
        self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        if servers:
            self._resolver.nameservers = [host for host, _port in servers]
            self._resolver.nameserver_ports = dict(servers)
        self._resolver.search = []
        self._resolver.lifetime = LOOKUP_LIFETIME_S
        self._resolver.cache = dns.resolver.LRUCache(10_000)

    async def mail_exchangers(self, domain: str) -> tuple[MxHost, ...]:
        answer = await self._ask(domain, dns.rdatatype.MX)
        return tuple(
            MxHost(record.preference, record.exchange.to_text(omit_final_dot=True).lower().removesuffix("."))
            for record in answer
            if isinstance(record, MX)
        )

    async def addresses(self, host: str) -> tuple[str, ...]:
        found: list[str] = []
        for kind in (dns.rdatatype.AAAA, dns.rdatatype.A):
            found += [record.to_text() for record in await self._ask(host, kind)]
        return tuple(found)

    async def _ask(self, name: str, kind: dns.rdatatype.RdataType) -> list[Rdata]:
        try:
            absolute = dns.name.from_text(name, origin=dns.name.root)
            answer = await self._resolver.resolve(absolute, kind, search=False)
        except dns.resolver.NXDOMAIN as exc:
            raise NoSuchName(name) from exc
        except dns.resolver.NoAnswer:
            return []
        except (dns.exception.DNSException, OSError, ValueError) as exc:
            raise TemporaryDnsFailure(f"{name}: {type(exc).__name__}") from exc
        return list(answer)
