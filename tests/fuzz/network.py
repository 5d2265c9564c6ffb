"""Targets: what comes before a session, and what name servers say."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from unittest import mock

import dns.exception
import dns.message
from tests.fuzz.draw import Draw, same_however_cut

from posthouse.net import dns_exchange
from posthouse.net.client_hello import MAX_HELLO_OCTETS, ClientHello, HelloReader, MalformedHello, NotTls
from posthouse.net.dns import RECORDS_LIMIT, DnsResolver, NoSuchName, TemporaryDnsFailure
from posthouse.net.proxy import MAX_V2_OCTETS, ProxyHeader, ProxyHeaderError, read_proxy_header

MOST_ANSWERS = 16


def proxy(octets: bytes) -> None:
    """PROXY headers: IP addresses and a length within what came, or ProxyHeaderError; more octets change nothing."""
    seed, wire = octets[-1] if octets else 0, octets[:-1]

    def run(pieces: list[bytes]) -> tuple[ProxyHeader, bytes] | str | None:
        came = b""
        for number, piece in enumerate(pieces):
            came += piece
            try:
                found = read_proxy_header(came)
            except ProxyHeaderError:
                return "refused"
            if found is not None:
                header, length = found
                assert 0 < length <= min(len(came), MAX_V2_OCTETS)
                return header, came[length:] + b"".join(pieces[number + 1 :])
        return None

    found = same_however_cut(wire, seed, run)
    if isinstance(found, tuple):
        for address in (found[0].peer, found[0].local):
            if address is not None:
                assert str(ipaddress.ip_address(address)) == address
    if found is None:
        assert len(wire) <= MAX_V2_OCTETS


def client_hello(octets: bytes) -> None:
    """A TLS client's first octets: what it asks for, or a declared error, the same however they are cut."""
    seed, wire = octets[-1] if octets else 0, octets[:-1]

    def run(pieces: list[bytes]) -> ClientHello | str | None:
        reader, came = HelloReader(), 0
        try:
            for piece in pieces:
                came += len(piece)
                found = reader.feed(piece)
                if found is not None:
                    return found
                assert came <= MAX_HELLO_OCTETS
        except (NotTls, MalformedHello) as exc:
            return type(exc).__name__
        return None

    found = same_however_cut(wire, seed, run)
    if isinstance(found, ClientHello):
        assert found.server_name is None or len(found.server_name) <= MAX_HELLO_OCTETS
        assert sum(map(len, found.protocols or ())) <= MAX_HELLO_OCTETS


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def dns_answers(octets: bytes) -> None:
    """Any answers of name servers: records in plain text, few and short, or one of the two declared errors."""
    draw = Draw(octets)
    over_tcp, kind = draw.chance(), draw.choice(("mx", "addresses", "TXT", "PTR"))
    answers = [draw.piece(b"\xff\xfe\xff") for _ in range(MOST_ANSWERS)]
    with _answering(answers, over_tcp=over_tcp):
        _loop().run_until_complete(_ask(kind))


async def _ask(kind: str) -> None:
    resolver = DnsResolver((("192.0.2.53", 53),), lifetime_s=0.05)
    try:
        match kind:
            case "mx":
                hosts = await resolver.mail_exchangers("there.test")
                found = [host.name for host in hosts]
                assert len(hosts) <= RECORDS_LIMIT
            case "addresses":
                found = list((await resolver.addresses("mx.there.test")).found)
                for address in found:
                    ipaddress.ip_address(address)
            case _:
                found = list(await resolver.texts("there.test", kind))
    except (NoSuchName, TemporaryDnsFailure):
        return
    assert len(found) <= 2 * RECORDS_LIMIT
    if kind != "TXT":
        # Names are spelled in ASCII with escapes; texts of TXT records are made visible by who shows them.
        assert all(text.isascii() and text.isprintable() for text in found), found


@contextmanager
def _answering(answers: list[bytes], *, over_tcp: bool) -> Iterator[None]:
    """Name servers that answer one after the other with these octets, the number of the question put before them."""

    async def udp(request: dns.message.QueryMessage, host: str, port: int) -> dns.message.Message:
        heard = dns_exchange._Datagrams(request)
        while answers and not heard.first.done():
            heard.datagram_received(_numbered(request, answers.pop(0)), None)
        if not heard.first.done():
            raise EOFError
        return await heard.first

    async def tcp(request: dns.message.QueryMessage, host: str, port: int) -> dns.message.Message:
        response = dns_exchange._parse(_numbered(request, answers.pop(0) if answers else b""))
        if not request.is_response(response):
            raise dns_exchange.UnusableAnswer
        return response

    answer = tcp if over_tcp else udp
    with mock.patch.object(dns_exchange, "_over_udp", answer), mock.patch.object(dns_exchange, "_over_tcp", answer):
        yield


def _numbered(request: dns.message.QueryMessage, octets: bytes) -> bytes:
    return struct.pack("!H", request.id) + octets


def dns_message(octets: bytes) -> None:
    """One answer taken apart: only errors of the library's own kind, and every record can be told as text."""
    try:
        response = dns_exchange._parse(octets)
    except dns.exception.DNSException:
        return
    dns_exchange._is_lame(response)
    for rrset in response.answer:
        for record in rrset:
            assert "\n" not in record.to_text()
