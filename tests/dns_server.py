"""A name server on loopback, UDP and TCP on one port: answers what a test tells it to, also what none should.

    async with dns_server({("example.test", "MX"): ["10 mx.example.test."]}) as server:
        resolver = DnsResolver((server.address,))

A zone maps (name, type) to records in zone-file spelling, or to one of the `Fault`s; `"*"` as type is any type. A
CNAME record answers for every type of its name, and its target is added. Names without an entry are NXDOMAIN;
a name that has other types is NOERROR and empty.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
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


Zone: TypeAlias = Mapping[tuple[str, str], Sequence[str] | Fault]

TRUNCATE_ABOVE_OCTETS = 512


@dataclass(slots=True)
class DnsServer:
    """A running server. `zone` may be replaced while it runs; `asked` lists questions as (transport, name, type)."""

    zone: Zone
    ttl: int = 60
    soa: bool = True
    mixed_case: bool = False
    address: tuple[str, int] = ("127.0.0.1", 0)
    asked: list[tuple[str, str, str]] = field(default_factory=list)

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
                return _short(query)
            case Fault.WRONG_ID:
                response = dns.message.make_response(query)
                response.id = (query.id + 1) % 65536
                return response.to_wire()
            case Fault.WRONG_QUESTION:
                response = dns.message.make_response(query)
                response.question = [
                    dns.rrset.RRset(dns.name.from_text("other.test"), question.rdclass, question.rdtype)
                ]
                return response.to_wire()
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if isinstance(found, Fault):
            response.set_rcode(dns.rcode.from_text(found.name))
            return response.to_wire()
        self._fill(response, question.name, kind, found)
        octets = response.to_wire(max_size=65535)
        if transport == "udp" and len(octets) > TRUNCATE_ABOVE_OCTETS:
            cut = dns.message.make_response(query)
            cut.flags |= dns.flags.TC
            return cut.to_wire()
        return octets

    def _find(self, name: str, kind: str) -> Sequence[str] | Fault | None:
        for key in ((name, kind), (name, "*"), (name, "CNAME")):
            if key in self.zone:
                return self.zone[key]
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
                following = self._find(owner.to_text().rstrip(".").lower(), kind)
                found = None if isinstance(following, Fault) else following
                continue
            response.answer.append(dns.rrset.from_text_list(shown, self.ttl, "IN", kind, list(found)))
            return
        if found is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        if self.soa:
            soa = f"ns.test. admin.test. 1 3600 600 86400 {self.ttl}"
            response.authority.append(dns.rrset.from_text(dns.name.root, self.ttl, "IN", "SOA", soa))


def _short(query: dns.message.Message) -> bytes:
    """An answer with one record of the asked type whose data is one octet."""
    wire = bytearray(dns.message.make_response(query, use_edns=False).to_wire())
    wire[6:8] = b"\x00\x01"
    return bytes(wire) + b"\xc0\x0c" + struct.pack("!HHIH", query.question[0].rdtype, 1, 60, 1) + b"\x00"


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        octets = self._server.answer(data, "udp")
        if octets is not None:
            self._transport.sendto(octets, addr)


@asynccontextmanager
async def dns_server(
    zone: Zone, *, ttl: int = 60, soa: bool = True, mixed_case: bool = False
) -> AsyncIterator[DnsServer]:
    """A server on a port that the system picked."""
    server = DnsServer(zone, ttl=ttl, soa=soa, mixed_case=mixed_case)
    sessions: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        sessions.append(task)
        try:
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            octets = server.answer(await reader.readexactly(length), "tcp")
            if octets is not None:
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
