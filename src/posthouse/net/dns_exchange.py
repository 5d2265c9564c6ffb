"""One question to one name server, over UDP or TCP (RFC 1035 §4.2), as far as it can be trusted.

An answer is measured before it is parsed: a long one is expensive to take apart, and no host's records are long.
"""

from __future__ import annotations

import asyncio
import struct
from contextlib import closing
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.nameserver
import dns.query
import dns.rcode
import dns.rdatatype

ANSWER_OCTETS_LIMIT = 16_384
HEADER_OCTETS = 12


class UnusableAnswer(dns.exception.FormError):
    """The server is no good for this question; of all errors, this kind makes dnspython ask the next one."""


class NameServer(dns.nameserver.Do53Nameserver):
    """A server of dnspython's resolver, which decides whom to ask when, and how often."""

    async def async_query(self, *args: Any, **options: Any) -> dns.message.Message:
        """Raises dns.exception.DNSException, OSError, EOFError."""
        request: dns.message.QueryMessage = args[0]
        ask = _over_tcp if options["max_size"] else _over_udp
        try:
            async with asyncio.timeout(options["timeout"]):
                response = await ask(request, self.address, self.port)
        except TimeoutError as exc:
            # As an OSError it would mean that the server is never asked again.
            raise dns.exception.Timeout from exc
        if _is_lame(response):
            raise UnusableAnswer
        return response


async def _over_udp(request: dns.message.QueryMessage, host: str, port: int) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    # Connected, so that only this server is heard, and a dead one at once.
    transport, answers = await loop.create_datagram_endpoint(lambda: _Datagrams(request), remote_addr=(host, port))
    with closing(transport):
        transport.sendto(request.to_wire())
        return await answers.first


class _Datagrams(asyncio.DatagramProtocol):
    """`first` is the first that answers the question; whatever else comes is dropped as it comes."""

    def __init__(self, request: dns.message.QueryMessage) -> None:
        self._request = request
        self.first: asyncio.Future[dns.message.Message] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002
        if self.first.done() or not _is_meant(self._request, data):
            return
        try:
            response = _parse(data, raise_on_truncation=True)
        except dns.exception.DNSException as exc:
            self.first.set_exception(exc)
            return
        if self._request.is_response(response):
            self.first.set_result(response)

    def error_received(self, exc: Exception) -> None:
        if not self.first.done():
            self.first.set_exception(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.first.done():
            self.first.set_exception(exc or EOFError())


async def _over_tcp(request: dns.message.QueryMessage, host: str, port: int) -> dns.message.Message:
    reader, writer = await asyncio.open_connection(host, port)
    with closing(writer):
        octets = request.to_wire()
        writer.write(struct.pack("!H", len(octets)) + octets)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        if length > ANSWER_OCTETS_LIMIT:
            raise UnusableAnswer
        response = _parse(await reader.readexactly(length))
    if not request.is_response(response):
        raise UnusableAnswer
    return response


def _is_meant(request: dns.message.QueryMessage, octets: bytes) -> bool:
    """Whether a datagram has the number of the question and says that it is an answer."""
    return len(octets) >= HEADER_OCTETS and octets[:2] == struct.pack("!H", request.id) and bool(octets[2] & 0x80)


def _parse(octets: bytes, *, raise_on_truncation: bool = False) -> dns.message.Message:
    if len(octets) > ANSWER_OCTETS_LIMIT:
        raise UnusableAnswer
    return dns.message.from_wire(octets, raise_on_truncation=raise_on_truncation)


def _is_lame(response: dns.message.Message) -> bool:
    """Whether a server that has no answer has no say in it either: a referral, or no recursion (RFC 2308 §2.2)."""
    if response.answer or response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return False
    if has_authority(response, dns.rdatatype.SOA):
        return False
    referral = has_authority(response, dns.rdatatype.NS)
    return referral or not response.flags & (dns.flags.AA | dns.flags.RA)


def has_authority(response: dns.message.Message, kind: dns.rdatatype.RdataType) -> bool:
    """Whether the authority section has a record of this type; SOA stands there beside a certain "no"."""
    return any(rrset.rdtype == kind for rrset in response.authority)
