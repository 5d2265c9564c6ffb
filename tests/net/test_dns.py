"""The resolver against a real name server on loopback: no temporary failure ever becomes a certain "no"."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from pathlib import Path
from typing import cast

import dns.asyncresolver
import pytest

from posthouse.net import dns as posthouse_dns
from posthouse.net import dns_exchange
from posthouse.net.dns import (
    KEEP_AT_LEAST_S,
    KEEP_AT_MOST_S,
    KEEP_NOTHING_AT_MOST_S,
    RECORDS_LIMIT,
    Addresses,
    DnsResolver,
    MxHost,
    NoSuchName,
    TemporaryDnsFailure,
)
from tests.dns_server import DnsServer, Fault, Raw, dns_server
from tests.fake_world import FakeClock

ZONE = {
    ("example.test", "MX"): ["10 MX1.Example.test.", "20 mx2.example.test."],
    ("mx1.example.test", "A"): ["192.0.2.1"],
    ("mx1.example.test", "AAAA"): ["2001:db8::1"],
    ("null.test", "MX"): ["0 ."],
    ("alias.test", "CNAME"): ["example.test."],
    ("nowhere.test", "CNAME"): ["gone.test."],
    ("loop.test", "CNAME"): ["loop.test."],
    ("bare.test", "A"): ["192.0.2.3"],
    ("half.test", "A"): ["192.0.2.4"],
    ("half.test", "AAAA"): Fault.SERVFAIL,
    ("six.test", "AAAA"): ["2001:db8::6"],
    ("six.test", "A"): Fault.SERVFAIL,
    ("unsure.test", "A"): Fault.SERVFAIL,
    ("single", "A"): ["192.0.2.5"],
    ("xn--bcher-kva.test", "MX"): ["1 mx.xn--bcher-kva.test."],
    ("large.test", "MX"): [f"{number} mx{number}.a-rather-long-name.large.test." for number in range(100)],
    **{(f"{fault.name.lower()}.test".replace("_", "-"), "*"): fault for fault in Fault},
}
FAULTS = [f"{fault.name.lower()}.test".replace("_", "-") for fault in Fault]


def resolver(server: DnsServer, lifetime_s: float = 5.0) -> DnsResolver:
    return DnsResolver((server.address,), lifetime_s=lifetime_s)


async def test_mail_exchangers() -> None:
    async with dns_server(ZONE) as server:
        found = await resolver(server).mail_exchangers("example.test")
    assert sorted(found, key=lambda host: host.preference) == [
        MxHost(10, "mx1.example.test"),
        MxHost(20, "mx2.example.test"),
    ]


async def test_null_mx() -> None:
    async with dns_server(ZONE) as server:
        assert await resolver(server).mail_exchangers("null.test") == (MxHost(0, ""),)


async def test_addresses_of_both_families() -> None:
    async with dns_server(ZONE) as server:
        assert await resolver(server).addresses("mx1.example.test") == Addresses(("2001:db8::1", "192.0.2.1"))


async def test_a_name_without_the_record_is_no_failure() -> None:
    async with dns_server(ZONE) as server:
        ours = resolver(server)
        assert await ours.mail_exchangers("bare.test") == ()
        assert await ours.addresses("null.test") == Addresses(())
        assert await ours.addresses("bare.test") == Addresses(("192.0.2.3",))


async def test_no_such_name() -> None:
    async with dns_server(ZONE) as server:
        ours = resolver(server)
        for name in ("gone.test", "nowhere.test"):
            with pytest.raises(NoSuchName):
                await ours.mail_exchangers(name)
            with pytest.raises(NoSuchName):
                await ours.addresses(name)


async def test_an_alias_is_followed() -> None:
    async with dns_server(ZONE) as server:
        assert len(await resolver(server).mail_exchangers("alias.test")) == 2


@pytest.mark.conformance("C86", "C302", "S21")
@pytest.mark.parametrize("name", [*FAULTS, "loop.test"])
async def test_what_is_not_certain_is_temporary(name: str) -> None:
    async with dns_server(ZONE) as server:
        ours = resolver(server, 0.05)
        with pytest.raises(TemporaryDnsFailure):
            await ours.mail_exchangers(name)
        with pytest.raises(TemporaryDnsFailure):
            await ours.addresses(name)


async def test_no_server_at_all() -> None:
    async with dns_server(ZONE) as server:
        pass
    with pytest.raises(TemporaryDnsFailure):
        await resolver(server, 0.05).mail_exchangers("example.test")


@pytest.mark.conformance("C86", "C87")
async def test_one_family_that_fails_does_not_hide_the_other() -> None:
    async with dns_server(ZONE) as server:
        ours = resolver(server)
        assert await ours.addresses("half.test") == Addresses(("192.0.2.4",), complete=False)
        assert await ours.addresses("six.test") == Addresses(("2001:db8::6",), complete=False)
        with pytest.raises(TemporaryDnsFailure):
            await ours.addresses("unsure.test")


@pytest.mark.conformance("C89")
async def test_names_are_asked_for_as_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 5321 §2.3.5: no search domains, not even for a single label."""
    monkeypatch.setenv("LOCALDOMAIN", "search.test")
    async with dns_server(ZONE) as server:
        ours = resolver(server)
        assert await ours.addresses("single") == Addresses(("192.0.2.5",))
        with pytest.raises(NoSuchName):
            await ours.mail_exchangers("lonely")
    assert {name for _transport, name, _kind in server.asked} == {"single", "lonely"}


async def test_a_labels() -> None:
    async with dns_server(ZONE) as server:
        assert await resolver(server).mail_exchangers("xn--bcher-kva.test") == (MxHost(1, "mx.xn--bcher-kva.test"),)


async def test_answers_in_another_case() -> None:
    async with dns_server(ZONE, mixed_case=True) as server:
        assert await resolver(server).addresses("bare.test") == Addresses(("192.0.2.3",))
        assert len(await resolver(server).mail_exchangers("alias.test")) == 2


async def test_a_long_answer_comes_over_tcp() -> None:
    async with dns_server(ZONE) as server:
        assert len(await resolver(server).mail_exchangers("large.test")) == 100
    assert [transport for transport, _name, _kind in server.asked] == ["udp", "tcp"]


@pytest.mark.parametrize("name", ["x" * 64 + ".test", ".".join(["x" * 60] * 5), "a..test"])
async def test_names_that_cannot_be(name: str) -> None:
    async with dns_server(ZONE) as server:
        with pytest.raises(NoSuchName):
            await resolver(server).mail_exchangers(name)
    assert server.asked == []


KEPT = [
    ("example.test", 3600, 3600),
    ("example.test", 10**9, KEEP_AT_MOST_S),
    ("example.test", 0, KEEP_AT_LEAST_S),
    ("bare.test", 60, 60),
    ("bare.test", 3600, KEEP_NOTHING_AT_MOST_S),
    ("gone.test", 60, 60),
    ("gone.test", 3600, KEEP_NOTHING_AT_MOST_S),
    ("servfail.test", 3600, KEEP_AT_LEAST_S),
]
"""Name, TTL, and how long its MX records, or that it has none, are kept."""


@pytest.mark.parametrize("soa", [True, False])
@pytest.mark.parametrize(("name", "ttl", "kept_s"), KEPT)
async def test_answers_are_kept_for_their_ttl_within_bounds(name: str, ttl: int, kept_s: float, soa: bool) -> None:
    """Without a SOA, dnspython would keep a "no" for 68 years."""
    clock = FakeClock()
    async with dns_server(ZONE, ttl=ttl, soa=soa) as server:
        ours = DnsResolver((server.address,), monotonic=clock.monotonic)
        await asked_once(ours, server, name)
        if soa:
            clock.advance(kept_s - 0.1)
            await ask(ours, name)
            assert len(server.asked) == 1
        clock.advance(KEEP_NOTHING_AT_MOST_S if not soa and name != "example.test" else kept_s)
        await ask(ours, name)
        assert len(server.asked) == 2


async def ask(ours: DnsResolver, name: str) -> None:
    try:
        await ours.mail_exchangers(name)
    except (NoSuchName, TemporaryDnsFailure):
        pass


async def asked_once(ours: DnsResolver, server: DnsServer, name: str) -> None:
    for _again in range(2):
        await ask(ours, name)
    assert len(server.asked) == 1


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posthouse_dns, "CACHE_RECORDS", 250)
    zone = {(f"d{number}.test", "MX"): [f"{n} mx{n}.test." for n in range(20)] for number in range(20)}
    async with dns_server(zone) as server:
        ours = resolver(server)
        for number in range(20):
            await ours.mail_exchangers("d0.test")
            await ours.mail_exchangers(f"d{number}.test")
        # What was asked for all along is there, what was asked for once is gone.
        assert [name for _transport, name, _kind in server.asked].count("d0.test") == 1
        await ours.mail_exchangers("d1.test")
        assert [name for _transport, name, _kind in server.asked].count("d1.test") == 2
    assert ours._cache.size <= 250
    assert ours._cache.size == sum(1 + len(found.hosts) for found, _until in ours._cache._kept.values())  # type: ignore[union-attr]


async def test_one_question_is_in_flight_for_each_name_and_type() -> None:
    async with dns_server(ZONE) as server:
        ours = resolver(server)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(ours.mail_exchangers("example.test")) for _each in range(50)]
            group.create_task(ours.mail_exchangers("EXAMPLE.test"))
            for _each in range(50):
                group.create_task(ours.addresses("mx1.example.test"))
    assert len({task.result() for task in asked}) == 1
    assert sorted(kind for _transport, _name, kind in server.asked) == ["A", "AAAA", "MX"]
    assert ours._in_flight == {}


async def test_a_failure_is_shared_like_an_answer() -> None:
    async with dns_server(ZONE) as server:
        ours = resolver(server)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(ours._find("servfail.test", dns.rdatatype.MX)) for _each in range(50)]
    assert len({task.result() for task in asked}) == 1
    assert len(server.asked) == 1


async def test_an_asker_who_goes_away_takes_nobody_along() -> None:
    """The one whose question is in flight is cancelled: another asks, and the rest wait for that one."""
    async with dns_server({("example.test", "MX"): Fault.DROP}) as server:
        ours = resolver(server)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ours.mail_exchangers("example.test"))
            others = [group.create_task(ours.mail_exchangers("example.test")) for _each in range(10)]
            while not server.asked:
                await asyncio.sleep(0)
            others.pop().cancel()
            server.zone = ZONE
            first.cancel()
    assert first.cancelled()
    assert [len(task.result()) for task in others] == [2] * 9
    assert len(server.asked) == 2


async def test_the_systems_name_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without configured servers those of resolv.conf are asked, and lame ones are found out there too."""
    conf = tmp_path / "resolv.conf"
    conf.write_text("search search.test\nnameserver 127.0.0.1\nnameserver 127.0.0.2\n")
    reads = dns.asyncresolver.Resolver.read_resolv_conf
    monkeypatch.setattr(dns.asyncresolver.Resolver, "read_resolv_conf", lambda self, _file: reads(self, str(conf)))
    ours = DnsResolver()
    assert [(type(server).__name__, str(server)) for server in ours._resolver.nameservers] == [
        ("NameServer", "Do53:127.0.0.1@53"),
        ("NameServer", "Do53:127.0.0.2@53"),
    ]
    assert ours._resolver.search == []


async def test_a_machine_without_resolv_conf(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.asyncresolver.Resolver, "read_resolv_conf", none)
    assert [str(server) for server in DnsResolver()._resolver.nameservers] == ["Do53:127.0.0.1@53"]


@pytest.mark.conformance("C86")
@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.REFUSED, Fault.LAME, Fault.NO_RECURSION, Fault.CUT_OFF])
async def test_a_second_server_is_asked_when_the_first_does_not_know(fault: Fault) -> None:
    async with dns_server({("example.test", "*"): fault, ("bare.test", "*"): fault}) as bad, dns_server(ZONE) as good:
        ours = DnsResolver((bad.address, good.address), lifetime_s=2.0)
        assert len(await ours.mail_exchangers("example.test")) == 2
        assert await ours.mail_exchangers("bare.test") == ()
    assert bad.names_asked("MX") == good.names_asked("MX")


@pytest.mark.conformance("C84")
async def test_an_alias_whose_target_the_server_leaves_to_us() -> None:
    zone = {("a.test", "CNAME"): ["b.test."], ("b.test", "CNAME"): ["example.test."], **ZONE}
    async with dns_server(zone, follow_aliases=False) as server:
        ours = resolver(server)
        assert len(await ours.mail_exchangers("a.test")) == 2
        with pytest.raises(NoSuchName):
            await ours.mail_exchangers("nowhere.test")
        with pytest.raises(TemporaryDnsFailure):
            await ours.mail_exchangers("loop.test")


@pytest.mark.conformance("C302", "S21")
async def test_aliases_without_end_are_given_up() -> None:
    async with dns_server(ZONE) as server:
        with pytest.raises(TemporaryDnsFailure):
            await resolver(server).mail_exchangers("alias-only.test")
    assert len(server.asked) == posthouse_dns.ALIASES_LIMIT


@pytest.mark.conformance("C207")
async def test_the_root_is_no_host_and_nobody_is_asked() -> None:
    async with dns_server(ZONE) as server:
        with pytest.raises(NoSuchName):
            await resolver(server).addresses("")
    assert server.asked == []


def mx(preference: int, name: bytes) -> bytes:
    return struct.pack("!H", preference) + name


POINTER_TO_ITSELF = bytes([0xC0, 12 + len(b"\x03bad\x04test\x00") + 4 + 12 + 2])
"""Behind the header, the question, the fixed part of the first record and its preference."""
MALFORMED = {
    "nothing at all": (b"",),
    "a preference and no name": (mx(10, b""),),
    "half a preference": (b"\x00",),
    "a name without end": (mx(10, b"\x03abc"),),
    "a label beyond the end": (mx(10, b"\x3fabc\x00"),),
    "a pointer past the end": (mx(10, b"\xff\xff"),),
    "a pointer to itself": (mx(10, POINTER_TO_ITSELF),),
    "a reserved label type": (mx(10, b"\x80abc\x00"),),
    "octets behind the name": (mx(10, b"\x03abc\x00xyz"),),
    "a bad one behind a good one": (mx(10, b"\x03abc\x00"), b"\x00"),
}


@pytest.mark.conformance("C302", "S21")
@pytest.mark.parametrize("what", MALFORMED)
async def test_malformed_mx_records_are_no_answer(what: str) -> None:
    async with dns_server({("bad.test", "*"): Raw(MALFORMED[what])}) as server:
        with pytest.raises(TemporaryDnsFailure):
            await resolver(server, 0.05).mail_exchangers("bad.test")


@pytest.mark.conformance("C302", "S21")
@pytest.mark.parametrize("octets", [b"", b"\x7f", b"\x7f\x00\x00", b"\x7f\x00\x00\x01\x00", b"\x00" * 15, b"\x00" * 17])
async def test_malformed_addresses_are_no_answer(octets: bytes) -> None:
    async with dns_server({("bad.test", "*"): Raw((octets,))}) as server:
        with pytest.raises(TemporaryDnsFailure):
            await resolver(server, 0.05).addresses("bad.test")


@pytest.mark.conformance("C302", "S21")
async def test_names_of_any_octets_are_plain_text() -> None:
    """A label may hold anything. What we tell of it, in logs and reports, is ASCII without controls."""
    odd = bytes([31, *range(31)]), bytes([31, *range(225, 256)]), b"\x05a.b@c"
    async with dns_server({("odd.test", "MX"): Raw(tuple(mx(10, label + b"\x04test\x00") for label in odd))}) as server:
        hosts = await resolver(server).mail_exchangers("odd.test")
        assert len(hosts) == 3
        for host in hosts:
            assert host.name.isascii()
            assert host.name.isprintable()
            with pytest.raises(NoSuchName):
                await resolver(server).addresses(host.name)


LONGEST = b"\x3f" + b"y" * 63
"""With the names of a 64 KiB answer made of it, as much text as there can be."""


@pytest.mark.conformance("C302", "S21")
async def test_of_long_answers_the_best_records_are_kept() -> None:
    zone = {
        ("many.test", "MX"): Raw(tuple(mx(number, b"\x04%04d\xc0\x0c" % number) for number in reversed(range(700)))),
        ("same.test", "MX"): Raw((mx(7, b"\x02mx\xc0\x0c"),) * 800),
        ("long.test", "MX"): Raw(tuple(mx(n, b"\x04%04d" % n + LONGEST * 2 + b"\xc0\x0c") for n in range(105))),
        ("many.test", "A"): Raw(tuple(struct.pack("!I", 0xC6120000 + number) for number in range(1000))),
    }
    async with dns_server(zone) as server:
        ours = resolver(server)
        assert [host.preference for host in await ours.mail_exchangers("many.test")] == list(range(RECORDS_LIMIT))
        assert await ours.mail_exchangers("same.test") == (MxHost(7, "mx.same.test"),)
        assert len(await ours.mail_exchangers("long.test")) == RECORDS_LIMIT
        assert len((await ours.addresses("many.test")).found) == RECORDS_LIMIT
    assert ours._cache.size <= 5 + 3 * RECORDS_LIMIT + 1


@pytest.mark.conformance("C302", "S21")
async def test_the_longest_answers_are_not_even_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 KiB of MX records would hold up everybody for as long as it takes to parse them."""
    zone = {
        ("many.test", "MX"): Raw(tuple(mx(number, b"\x04%04d\xc0\x0c" % number) for number in range(2800))),
        ("thousand.test", "MX"): [f"{number} mx{number}.thousand.test." for number in range(1000)],
    }
    parsed: list[int] = []
    parse = dns_exchange._parse
    monkeypatch.setattr(
        dns_exchange, "_parse", lambda octets, **how: parsed.append(len(octets)) or parse(octets, **how)
    )
    async with dns_server(zone) as server:
        for name in ("many.test", "thousand.test"):
            with pytest.raises(TemporaryDnsFailure):
                await resolver(server).mail_exchangers(name)
    assert [(transport, name) for transport, name, _kind in server.asked] == [
        ("udp", "many.test"),
        ("tcp", "many.test"),
        ("udp", "thousand.test"),
        ("tcp", "thousand.test"),
    ]
    assert max(parsed) < 512


@pytest.mark.conformance("C207")
async def test_the_null_mx_is_seen_among_hundreds_of_others() -> None:
    zone = {("null.test", "MX"): [*(f"{number} mx{number}.test." for number in range(300)), "60000 ."]}
    async with dns_server(zone) as server:
        assert MxHost(60000, "") in await resolver(server).mail_exchangers("null.test")


class Shouting(asyncio.DatagramProtocol):
    """Answers each question, after any number of datagrams that do not."""

    def __init__(self, noise: Callable[[bytes], list[bytes]], answer: Callable[[bytes], bytes]) -> None:
        self._noise = noise
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        for octets in (*self._noise(data), self._answer(data)):
            self._transport.sendto(octets, addr)


def noise(query: bytes) -> list[bytes]:
    """What an attacker, or a broken server, may send before the answer comes."""
    other_number = bytes([query[0] ^ 1]) + query[1:2] + b"\x80" + query[3:]
    other_question = query[:2] + b"\x81" + query[3:].replace(b"\x07example", b"\x07elpmaxe")
    return [b"", b"\x00", query[:2] + b"\x80", query, other_number, other_question, b"\xff" * 30_000] * 3


@pytest.mark.conformance("C302", "S21")
async def test_what_is_no_answer_to_the_question_is_not_heard() -> None:
    server = DnsServer(ZONE)
    answering = Shouting(noise, lambda query: server.answer(query, "udp") or b"")
    loop = asyncio.get_running_loop()
    transport, _protocol = await loop.create_datagram_endpoint(lambda: answering, local_addr=("127.0.0.1", 0))
    try:
        ours = DnsResolver((transport.get_extra_info("sockname"),), lifetime_s=5.0)
        assert len(await ours.mail_exchangers("example.test")) == 2
        assert len(server.asked) == 1
    finally:
        transport.close()


@pytest.mark.conformance("C302", "S21")
async def test_a_datagram_of_64_kib_is_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    parse = dns.message.from_wire
    monkeypatch.setattr(dns.message, "from_wire", lambda wire, **how: parsed.append(len(wire)) or parse(wire, **how))
    answering = Shouting(lambda _query: [], lambda query: query[:2] + b"\x80" + query[3:] + b"\x00" * 60_000)
    loop = asyncio.get_running_loop()
    transport, _protocol = await loop.create_datagram_endpoint(lambda: answering, local_addr=("127.0.0.1", 0))
    try:
        with pytest.raises(TemporaryDnsFailure, match="NoNameservers"):
            await DnsResolver((transport.get_extra_info("sockname"),)).mail_exchangers("example.test")
    finally:
        transport.close()
    assert parsed == []


async def test_records_of_other_types_are_text() -> None:
    zone = {
        ("here.test", "TXT"): ['"v=spf1 " "mx -all"', '"other"'],
        ("_pop3s._tcp.here.test", "SRV"): ["0 1 995 mx.here.test."],
        ("8.7.6.5.in-addr.arpa", "PTR"): ["mx.here.test."],
        ("unsure.here.test", "TXT"): Fault.SERVFAIL,
    }
    async with dns_server(zone) as server:
        asked = resolver(server)
        assert set(await asked.texts("here.test", "TXT")) == {"v=spf1 mx -all", "other"}
        assert await asked.texts("_pop3s._tcp.here.test", "SRV") == ("0 1 995 mx.here.test",)
        assert await asked.names_of("5.6.7.8") == ("mx.here.test",)
        assert await asked.names_of("2001:db8::1") == ()
        assert await asked.texts("gone.test", "TXT") == await asked.texts("here.test", "SRV") == ()
        with pytest.raises(TemporaryDnsFailure):
            await asked.texts("unsure.here.test", "TXT")
