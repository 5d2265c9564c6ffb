"""A name server on loopback, UDP and TCP on one port: answers what a test tells it to, also what none should.

    async with dns_server({("example.test", "MX"): ["10 mx.example.test."]}) as server:
        resolver = DnsResolver((server.address,))

A zone maps (name, type) to records in zone-file spelling, to a `Raw` answer, or to one of the `Fault`s; `"*"` as type
is any type. A CNAME record answers for every type of its name, and its target is added. Names without an entry are
NXDOMAIN; a name that has other types is NOERROR and empty.

`running_dns_server` is the same in a thread of its own, for tests that do not run in a loop.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeAlias, cast

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset


class Fault(Enum):
    """What goes wrong instead of an answer."""

    SERVFAIL = auto()
    REFUSED = auto()
    DROP = auto()
    GARBAGE = auto()
    SHORT_RDATA = auto()
    """A record whose data ends too early."""
    WRONG_ID = auto()
    """An answer to another question, as an attacker would send it."""
    WRONG_QUESTION = auto()
    LAME = auto()
    """A referral: "I do not know, ask those over there", as servers answer for zones that they do not have."""
    NO_RECURSION = auto()
    """Empty, without authority and without recursion: it does not know, and does not say so."""
    UNASKED = auto()
    """An answer full of records that nobody asked for."""
    ALIAS_ONLY = auto()
    """An alias without its target, to another name each time, without end."""
    CUT_OFF = auto()
    """Too long for UDP; over TCP the connection ends instead of an answer."""
    STALL = auto()
    """Too long for UDP; over TCP nothing comes, and the connection stays."""


@dataclass(frozen=True, slots=True)
class Raw:
    """An answer of records with these octets as their data, each of them possibly wrong."""

    rdata: tuple[bytes, ...]


Zone: TypeAlias = Mapping[tuple[str, str], Sequence[str] | Raw | Fault]

TRUNCATE_ABOVE_OCTETS = 512
STALLS = b"stalls"
"""In place of an answer that never comes."""


@dataclass(slots=True)
class DnsServer:
    """A running server. `zone` may be replaced while it runs; `asked` lists questions as (transport, name, type)."""

    zone: Zone
    ttl: int = 60
    soa: bool = True
    mixed_case: bool = False
    address: tuple[str, int] = ("127.0.0.1", 0)
    follow_aliases: bool = True
    """Else the target of an alias is the asker's business."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    problem: Exception | None = None
    """A mistake of this server itself, raised at the end: otherwise it would pass for one that does not answer."""

    def answer_or_note(self, wire: bytes, transport: str) -> bytes | None:
        """The response to one query, None for none."""
        try:
            return self.answer(wire, transport)
        except Exception as exc:
            self.problem = exc
            return None

    def names_asked(self, kind: str) -> set[str]:
        """The names that a type was asked of; "" is the root."""
        return {name for _transport, name, asked in self.asked if asked == kind}

    def answer(self, wire: bytes, transport: str) -> bytes | None:
        """The response to one query, None for none."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, kind = question.name.to_text().rstrip(".").lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((transport, name, kind))
        found = self._find(name, kind)
        match found:
            case Fault.DROP:
                return None
            case Fault.GARBAGE:
                return wire[:2] + b"\xff" * 30
            case Fault.SHORT_RDATA:
                return _raw(query, (b"\x00",))
            case Fault.CUT_OFF:
                return None if transport == "tcp" else _truncated(query)
            case Fault.STALL:
                return STALLS if transport == "tcp" else _truncated(query)
            case Fault():
                return _faulty(query, found).to_wire()
            case Raw(rdata=rdata):
                octets = _raw(query, rdata)
            case _:
                response = dns.message.make_response(query)
                response.flags |= dns.flags.RA
                self._fill(response, question.name, kind, found)
                octets = response.to_wire(max_size=65535)
        return _truncated(query) if transport == "udp" and len(octets) > TRUNCATE_ABOVE_OCTETS else octets

    def _find(self, name: str, kind: str) -> Sequence[str] | Raw | Fault | None:
        for key in ((name, kind), (name, "*"), (name, "CNAME")):
            if key in self.zone:
                return self.zone[key]
        above = [".".join(name.split(".")[depth:]) for depth in range(1, name.count(".") + 1)]
        if any(self.zone.get((parent, "*")) is Fault.ALIAS_ONLY for parent in above):
            return Fault.ALIAS_ONLY
        return () if any(owner == name for owner, _kind in self.zone) else None

    def _fill(
        self, response: dns.message.Message, asked: dns.name.Name, kind: str, found: Sequence[str] | None
    ) -> None:
        owner = asked
        for _step in range(8):
            name = owner.to_text().rstrip(".").lower()
            shown = dns.name.from_text(owner.to_text().swapcase()) if self.mixed_case else owner
            if not found:
                break
            if (name, kind) not in self.zone and (name, "CNAME") in self.zone:
                response.answer.append(dns.rrset.from_text(shown, self.ttl, "IN", "CNAME", found[0]))
                owner = dns.name.from_text(found[0])
                if not self.follow_aliases:
                    return
                following = self._find(owner.to_text().rstrip(".").lower(), kind)
                found = None if isinstance(following, Fault | Raw) else following
                continue
            response.answer.append(dns.rrset.from_text_list(shown, self.ttl, "IN", kind, list(found)))
            return
        if found is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        if self.soa:
            soa = f"ns.test. admin.test. 1 3600 600 86400 {self.ttl}"
            response.authority.append(dns.rrset.from_text(dns.name.root, self.ttl, "IN", "SOA", soa))


def _faulty(query: dns.message.Message, fault: Fault) -> dns.message.Message:
    response = dns.message.make_response(query)
    question = query.question[0]
    match fault:
        case Fault.WRONG_ID:
            response.id = (query.id + 1) % 65536
        case Fault.WRONG_QUESTION:
            response.question = [dns.rrset.RRset(dns.name.from_text("other.test"), question.rdclass, question.rdtype)]
        case Fault.LAME:
            response.authority.append(dns.rrset.from_text("test.", 60, "IN", "NS", "a.ns.test.", "b.ns.test."))
        case Fault.NO_RECURSION:
            pass
        case Fault.UNASKED:
            for number in range(30):
                response.answer.append(dns.rrset.from_text(f"n{number}.other.test.", 60, "IN", "A", "192.0.2.1"))
        case Fault.ALIAS_ONLY:
            deeper = dns.name.Name((b"a", *question.name.labels))
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", "CNAME", deeper.to_text()))
        case _:
            response.set_rcode(dns.rcode.from_text(fault.name))
    return response


def _truncated(query: dns.message.Message) -> bytes:
    cut = dns.message.make_response(query)
    cut.flags |= dns.flags.TC
    return cut.to_wire()


def _raw(query: dns.message.Message, rdata: Sequence[bytes]) -> bytes:
    """An answer with records of the asked type that hold these octets."""
    wire = bytearray(dns.message.make_response(query).to_wire())
    wire[6:8] = struct.pack("!H", len(rdata))
    kind = query.question[0].rdtype
    return bytes(wire) + b"".join(b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(each)) + each for each in rdata)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        octets = self._server.answer_or_note(data, "udp")
        if octets is not None:
            self._transport.sendto(octets, addr)


@asynccontextmanager
async def dns_server(
    zone: Zone, *, ttl: int = 60, soa: bool = True, mixed_case: bool = False, follow_aliases: bool = True
) -> AsyncIterator[DnsServer]:
    """A server on a port that the system picked."""
    server = DnsServer(zone, ttl=ttl, soa=soa, mixed_case=mixed_case, follow_aliases=follow_aliases)
    sessions: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        sessions.append(task)
        try:
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            octets = server.answer_or_note(await reader.readexactly(length), "tcp")
            if octets is STALLS:
                await reader.read()
            elif octets is not None:
                writer.write(struct.pack("!H", len(octets)) + octets)
        except (EOFError, ConnectionError):
            pass
        finally:
            writer.close()

    tcp = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.address = tcp.sockets[0].getsockname()
    loop = asyncio.get_running_loop()
    udp, _protocol = await loop.create_datagram_endpoint(lambda: _Udp(server), local_addr=server.address)
    try:
        yield server
    finally:
        udp.close()
        tcp.close()
        for session in sessions:
            session.cancel()
        await asyncio.sleep(0)
    if server.problem is not None:
        raise server.problem


@contextmanager
def running_dns_server(zone: Zone) -> Iterator[DnsServer]:
    """A server in a thread of its own."""
    running: Future[tuple[DnsServer, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        async with dns_server(zone) as server:
            stop = asyncio.Event()
            running.set_result((server, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    server, loop, stop = running.result(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
