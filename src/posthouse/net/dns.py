"""DNS questions that mail asks. A temporary failure is never "no such name" (RFC 5321 §5.1).

Name servers are taken for hostile: an answer is bounded, checked and reduced to plain text before it is kept. What
cannot be right is a temporary failure, so that it costs one attempt and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, assert_never

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.rdatatype
import dns.resolver
import dns.reversename
from dns.rdata import Rdata
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.TXT import TXT

from posthouse.net.dns_exchange import NameServer, has_authority

LOOKUP_LIFETIME_S = 20.0
KEEP_AT_LEAST_S = 5.0
"""Also what failed and what has a TTL of nothing: the messages of one attempt ask once (RFC 9520 §3.2)."""
KEEP_AT_MOST_S = 86_400.0
KEEP_NOTHING_AT_MOST_S = 300.0
"""How long "no such name" and "no such record" are believed, whatever their SOA says."""
CACHE_RECORDS = 30_000
"""How much is kept in all; a record has at most about 1 KiB, and is far smaller where nobody is hostile."""
RECORDS_LIMIT = 100
"""How many records of one answer are looked at."""
ALIASES_LIMIT = 8
"""How often the target of an incomplete CNAME chain is asked for."""


class NoSuchName(Exception):
    """The name certainly does not exist (NXDOMAIN)."""


class TemporaryDnsFailure(Exception):
    """No certain answer: timeout, SERVFAIL, or something malformed."""


@dataclass(frozen=True, slots=True)
class MxHost:
    """One MX record. `name` is "" for the null MX (RFC 7505)."""

    preference: int
    name: str


@dataclass(frozen=True, slots=True)
class Service:
    """One SRV record (RFC 2782). `host` is "" where the service is not offered."""

    priority: int
    weight: int
    port: int
    host: str


@dataclass(frozen=True, slots=True)
class Addresses:
    """IP addresses of a host, IPv6 before IPv4; empty when the name exists and has none.

    Not `complete`: one family could not be asked. What was found is good, and there may be more.
    """

    found: tuple[str, ...]
    complete: bool = True


class Resolver(Protocol):
    """Answers, or NoSuchName, or TemporaryDnsFailure."""

    async def mail_exchangers(self, domain: str) -> tuple[MxHost, ...]:
        """The MX records, in any order; empty when the name exists and has none. Aliases are followed."""
        ...

    async def addresses(self, host: str) -> Addresses:
        """Both families. When only one can be asked, its addresses are the answer; without any, it is a failure."""
        ...


@dataclass(frozen=True, slots=True)
class _Records:
    """What was found, in plain text; both empty: certainly nothing."""

    hosts: tuple[MxHost, ...] = ()
    texts: tuple[str, ...] = ()
    """Addresses, and whatever else a record of another type says."""


@dataclass(frozen=True, slots=True)
class _NoName:
    pass


@dataclass(frozen=True, slots=True)
class _Unknown:
    reason: str


_Found: TypeAlias = _Records | _NoName | _Unknown
_Question: TypeAlias = tuple[dns.name.Name, dns.rdatatype.RdataType]


class DnsResolver:
    """The real one, over dnspython. No search domains: a name is looked up as it stands (RFC 5321 §2.3.5).

    One question is in flight for each (name, type); whoever asks it meanwhile waits for the same answer.
    """

    def __init__(
        self,
        servers: tuple[tuple[str, int], ...] = (),
        *,
        lifetime_s: float = LOOKUP_LIFETIME_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`servers` are (IP address, port); empty means the system's. A look-up takes `lifetime_s` at most."""
        self._lifetime_s = lifetime_s
        self._resolver = _stub(servers)
        self._resolver.lifetime = lifetime_s
        self._cache = _Cache(monotonic)
        self._in_flight: dict[_Question, asyncio.Event] = {}

    async def mail_exchangers(self, domain: str) -> tuple[MxHost, ...]:
        return _certain(await self._find(domain, dns.rdatatype.MX), domain).hosts

    async def addresses(self, host: str) -> Addresses:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._find(host, kind)) for kind in (dns.rdatatype.AAAA, dns.rdatatype.A)]
        answers = [task.result() for task in asked]
        found = tuple(address for answer in answers if isinstance(answer, _Records) for address in answer.texts)
        unknown = next((answer for answer in answers if isinstance(answer, _Unknown)), None)
        if not found:
            for answer in answers:
                _certain(unknown or answer, host)
        return Addresses(found, complete=unknown is None)

    async def texts(self, name: str, kind: str) -> tuple[str, ...]:
        """Records of another type as text, names without the final dot; none where the name or the type is not there.

        The strings of a TXT record are one text (RFC 7208 §3.3). For `posthouse check`, which may show it, and for
        nothing that decides about mail. Raises TemporaryDnsFailure.
        """
        try:
            return _certain(await self._find(name, dns.rdatatype.from_text(kind)), name).texts
        except NoSuchName:
            return ()

    async def services(self, name: str) -> tuple[Service, ...]:
        """The SRV records of a name such as `_pop3s._tcp.example.org`, in any order. Raises TemporaryDnsFailure."""
        found = [text.split(" ") for text in await self.texts(name, "SRV")]
        return tuple(
            Service(int(priority), int(weight), int(port), host.lower()) for priority, weight, port, host in found
        )

    async def names_of(self, address: str) -> tuple[str, ...]:
        """What reverse DNS calls an IP address (RFC 1035 §3.5). Raises TemporaryDnsFailure."""
        return await self.texts(dns.reversename.from_address(address).to_text(omit_final_dot=True), "PTR")

    async def _find(self, text: str, kind: dns.rdatatype.RdataType) -> _Found:
        """From what is kept, else from the name servers. Whoever asks first asks for all who wait."""
        try:
            question = dns.name.from_text(text, origin=dns.name.root), kind
        except (dns.exception.DNSException, UnicodeError):
            # No zone can hold it: a label or the whole is too long, or empty.
            return _NoName()
        if question[0] == dns.name.root:
            # What a null MX names is no host (RFC 7505 §3).
            return _NoName()
        while (kept := self._cache.get(question)) is None:
            asking = self._in_flight.get(question)
            if asking is not None:
                # Then it is kept; or whoever asked was cancelled, and the next one asks.
                await asking.wait()
                continue
            self._in_flight[question] = answered = asyncio.Event()
            try:
                self._cache.put(question, *await self._ask(*question))
            finally:
                del self._in_flight[question]
                answered.set()
        return kept

    async def _ask(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> tuple[_Found, float]:
        """What the name servers say, and for how many seconds it is kept."""
        try:
            async with asyncio.timeout(self._lifetime_s):
                return await self._follow(name, kind)
        except dns.resolver.NXDOMAIN as exc:
            responses: dict[dns.name.Name, dns.message.QueryMessage] = exc.kwargs["responses"]
            ttl = min(response.resolve_chaining().minimum_ttl for response in responses.values())
            return _NoName(), _between(ttl, KEEP_NOTHING_AT_MOST_S)
        except (dns.exception.DNSException, OSError, ValueError) as exc:
            return _Unknown(type(exc).__name__), KEEP_AT_LEAST_S

    async def _follow(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> tuple[_Found, float]:
        """Ask for a name, and for its alias where the name servers leave that to us (RFC 5321 §5.1)."""
        ttl = KEEP_AT_MOST_S
        for _step in range(ALIASES_LIMIT):
            answer = await self._resolver.resolve(name, kind, raise_on_no_answer=False, search=False)
            ttl = min(ttl, answer.chaining_result.minimum_ttl)
            if answer.rrset is not None:
                return _records(answer), _between(ttl, KEEP_AT_MOST_S)
            if not answer.response.answer or has_authority(answer.response, dns.rdatatype.SOA):
                return _Records(), _between(ttl, KEEP_NOTHING_AT_MOST_S)
            if answer.canonical_name == name:
                return _Unknown("records that nobody asked for"), KEEP_AT_LEAST_S
            name = answer.canonical_name
        return _Unknown("too many aliases"), KEEP_AT_LEAST_S


class _Cache:
    """Answers for their time, in monotonic seconds; beyond CACHE_RECORDS those go that were asked for longest ago."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._kept: OrderedDict[_Question, tuple[_Found, float]] = OrderedDict()
        self.size = 0

    def get(self, question: _Question) -> _Found | None:
        found, until = self._kept.get(question, (None, 0.0))
        if found is None:
            return None
        if until <= self._monotonic():
            self._forget(question)
            return None
        self._kept.move_to_end(question)
        return found

    def put(self, question: _Question, found: _Found, keep_s: float) -> None:
        """Keep an answer."""
        self._forget(question)
        self._kept[question] = found, self._monotonic() + keep_s
        self.size += _size(found)
        while self.size > CACHE_RECORDS:
            self._forget(next(iter(self._kept)))

    def _forget(self, question: _Question) -> None:
        kept = self._kept.pop(question, None)
        if kept is not None:
            self.size -= _size(kept[0])


def _stub(servers: tuple[tuple[str, int], ...]) -> dns.asyncresolver.Resolver:
    """dnspython's resolver, which asks one server after the other until one knows."""
    try:
        stub = dns.asyncresolver.Resolver(configure=not servers)
    except dns.resolver.NoResolverConfiguration:
        # As resolv.conf(5): without the file, the name server is on this machine.
        servers = (("127.0.0.1", 53),)
        stub = dns.asyncresolver.Resolver(configure=False)
    asked = servers or tuple((str(server), stub.port) for server in stub.nameservers)
    stub.nameservers = [NameServer(host, port) for host, port in asked]
    stub.search = []
    return stub


def _records(answer: Iterable[Rdata]) -> _Records:
    hosts: dict[str, int] = {}
    texts: list[str] = []
    for record in answer:
        if isinstance(record, MX):
            name = record.exchange.to_text(omit_final_dot=True).lower().removesuffix(".")
            hosts[name] = min(record.preference, hosts.get(name, record.preference))
        elif isinstance(record, TXT):
            texts.append(b"".join(record.strings).decode("utf-8", "replace"))
        else:
            texts.append(record.to_text().removesuffix("."))
    # Of too many the best are kept. The null MX is never left out: it says what the others are worth.
    best = sorted(hosts.items(), key=lambda host: (bool(host[0]), host[1]))[:RECORDS_LIMIT]
    return _Records(
        tuple(MxHost(preference, name) for name, preference in best), tuple(dict.fromkeys(texts))[:RECORDS_LIMIT]
    )


def _certain(found: _Found, name: str) -> _Records:
    match found:
        case _Records():
            return found
        case _NoName():
            raise NoSuchName(name)
        case _Unknown(reason=reason):
            raise TemporaryDnsFailure(f"{name}: {reason}")
        case _:
            assert_never(found)


def _between(ttl: float, most_s: float) -> float:
    return max(KEEP_AT_LEAST_S, min(ttl, most_s))


def _size(found: _Found) -> int:
    return 1 + len(found.hosts) + len(found.texts) if isinstance(found, _Records) else 1
