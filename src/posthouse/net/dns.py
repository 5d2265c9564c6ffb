"""DNS questions that mail asks. A temporary failure is never "no such name" (RFC 5321 §5.1)."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
from dns.rdata import Rdata
from dns.rdtypes.ANY.MX import MX

LOOKUP_LIFETIME_S = 20.0
CACHE_ENTRIES = 10_000
KEEP_AT_MOST_S = 86_400.0
KEEP_NOTHING_AT_MOST_S = 300.0
"""How long "no such name" and "no such record" are believed, whatever their SOA says."""


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
        """IP addresses, IPv6 before IPv4; empty when the name exists and has none.

        When only one family can be asked, its addresses are the answer; without any, it is a temporary failure.
        """
        ...


class DnsResolver:
    """The real one, over dnspython. No search domains: a name is looked up as it stands (RFC 5321 §2.3.5)."""

    def __init__(self, servers: tuple[tuple[str, int], ...] = (), *, lifetime_s: float = LOOKUP_LIFETIME_S) -> None:
        """`servers` are (IP address, port); empty means the system's. A look-up takes `lifetime_s` at most."""
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        except dns.resolver.NoResolverConfiguration:
            # As resolv.conf(5): without the file, the name server is on this machine.
            servers = (("127.0.0.1", 53),)
            self._resolver = dns.asyncresolver.Resolver(configure=False)
        if servers:
            self._resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in servers]
        self._resolver.search = []
        self._resolver.lifetime = lifetime_s
        self._resolver.cache = _Cache(CACHE_ENTRIES)

    async def mail_exchangers(self, domain: str) -> tuple[MxHost, ...]:
        answer = await self._ask(domain, dns.rdatatype.MX)
        return tuple(
            MxHost(record.preference, record.exchange.to_text(omit_final_dot=True).lower().removesuffix("."))
            for record in answer
            if isinstance(record, MX)
        )

    async def addresses(self, host: str) -> tuple[str, ...]:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._try(host, kind)) for kind in (dns.rdatatype.AAAA, dns.rdatatype.A)]
        answers = [task.result() for task in asked]
        found = tuple(record.to_text() for answer in answers if not isinstance(answer, Exception) for record in answer)
        if found:
            return found
        for kind in (TemporaryDnsFailure, NoSuchName):
            for answer in answers:
                if isinstance(answer, kind):
                    raise answer
        return ()

    async def _try(self, name: str, kind: dns.rdatatype.RdataType) -> list[Rdata] | NoSuchName | TemporaryDnsFailure:
        try:
            return await self._ask(name, kind)
        except (NoSuchName, TemporaryDnsFailure) as exc:
            return exc

    async def _ask(self, name: str, kind: dns.rdatatype.RdataType) -> list[Rdata]:
        try:
            absolute = dns.name.from_text(name, origin=dns.name.root)
        except (dns.exception.DNSException, UnicodeError) as exc:
            # No zone can hold it: a label or the whole is too long, or empty.
            raise NoSuchName(name) from exc
        try:
            answer = await self._resolver.resolve(absolute, kind, search=False)
        except dns.resolver.NXDOMAIN as exc:
            raise NoSuchName(name) from exc
        except dns.resolver.NoAnswer:
            return []
        except (dns.exception.DNSException, OSError, ValueError) as exc:
            raise TemporaryDnsFailure(f"{name}: {type(exc).__name__}") from exc
        return list(answer)


class _Cache(dns.resolver.LRUCache):
    """Keeps answers for their TTL, within bounds.

    An answer that says "nothing" without a SOA has no TTL (RFC 2308 §5), and dnspython would keep it for 68 years.
    """

    def put(self, key: dns.resolver.CacheKey, value: dns.resolver.Answer) -> None:
        """Remember an answer."""
        bound = KEEP_AT_MOST_S if value.rrset is not None else KEEP_NOTHING_AT_MOST_S
        value.expiration = min(value.expiration, time.time() + bound)
        super().put(key, value)
