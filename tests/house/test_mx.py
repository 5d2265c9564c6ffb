"""Where a house takes mail, by its own DNS: real sockets, our name server, counting peers on addresses of loopback.

ZONES is a table of zones, each with what has to become of one message. They are sent to through aliases: a sender is
told most of it at RCPT already, and here the queue is looked at.
"""

from __future__ import annotations

import email
import smtplib
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field

import pytest

from posthouse.config_values import Endpoint
from posthouse.mail.address import parse_address
from posthouse.mail.journey import Attempted
from posthouse.net.dns import DnsResolver
from posthouse.storage.interfaces import Storage
from posthouse.world import World
from tests.dns_server import DnsServer, Fault, Raw, Zone, running_dns_server
from tests.house.counting_peers import CountingPeer, counting_peer, counting_peers
from tests.house.test_forwarding import maildrop
from tests.running_house import PASSWORD, RunningHouse

ADDRESSES = {"a": "127.0.0.2", "b": "127.0.0.3", "c": "127.0.0.4"}
"""Peers that are there all the time. At ::1 there is one only for cases that say so."""
HOSTS: Zone = {
    **{(f"{name}.hosts.test", "A"): [address] for name, address in ADDRESSES.items()},
    ("dead.hosts.test", "A"): ["127.0.0.9"],
    ("six.hosts.test", "AAAA"): ["::1"],
    ("both.hosts.test", "AAAA"): ["::1"],
    ("both.hosts.test", "A"): ["127.0.0.2"],
    ("several.hosts.test", "A"): ["127.0.0.9", "127.0.0.8", "127.0.0.3"],
    ("us.hosts.test", "A"): ["127.0.0.1"],
    ("alias.hosts.test", "CNAME"): ["a.hosts.test."],
    ("servfail.hosts.test", "*"): Fault.SERVFAIL,
    ("half.hosts.test", "AAAA"): Fault.SERVFAIL,
    ("half.hosts.test", "A"): ["127.0.0.2"],
    ("half-empty.hosts.test", "AAAA"): Fault.SERVFAIL,
    ("half-empty.hosts.test", "A"): [],
    ("empty.hosts.test", "TXT"): ["nothing"],
    ("short.hosts.test", "*"): Fault.SHORT_RDATA,
    ("localhost.hosts.test", "A"): ["0.0.0.0"],
}
A = ["127.0.0.2"]
"""The A record of a domain that peer a serves: where mail goes if it is taken for its own host."""


def mx(*records: str) -> list[str]:
    return [f"{record}.hosts.test." for record in records]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One domain. `taken_by`: the peers one of which has the message in the end; else `status` tells why not.

    A status of 4.x.x means that it waits, one of 5.x.x that a report came. `six`: a peer listens at ::1.
    """

    lines: tuple[str, ...]
    what: str
    zone: dict[str, object] = field(default_factory=dict)
    more: Zone = field(default_factory=dict)
    taken_by: str = ""
    status: str = ""
    six: bool = False
    domain: str = ""


def case(lines: str, what: str, zone: dict[str, object], **rest: object) -> Case:
    return Case(lines=tuple(lines.split()), what=what, zone=zone, **rest)  # type: ignore[arg-type]


TOO_LONG = Raw(tuple(bytes([0, 10, 4]) + b"%04d" % number + b"\xc0\x0c" for number in range(2800)))
ZONES = [
    case("C84", "the best host is there", {"MX": mx("20 b", "10 a", "30 c")}, taken_by="a"),
    case("C84", "the best host is dead", {"MX": mx("20 b", "10 dead", "30 c")}, taken_by="b"),
    case("C84", "equal hosts before a worse one", {"MX": mx("10 a", "10 b", "30 c")}, taken_by="ab"),
    case("C84", "the third address of a host", {"MX": mx("10 several")}, taken_by="b"),
    case(
        "C84",
        "an alias of an alias of the domain with MX records",
        {"CNAME": ["one.chain.test."]},
        more={
            ("one.chain.test", "CNAME"): ["two.chain.test."],
            ("two.chain.test", "MX"): mx("10 c"),
            ("two.chain.test", "A"): A,
        },
        taken_by="c",
    ),
    case("C85", "no MX: the domain is its own host", {"A": A}, taken_by="a"),
    case("C85", "no MX: an alias of a host", {"CNAME": ["b.hosts.test."]}, taken_by="b"),
    case("C85", "no MX, no address", {"TXT": ["nothing"]}, status="5.4.4"),
    case("C85", "MX to no such name, A present", {"MX": mx("10 gone"), "A": A}, status="5.4.4"),
    case("C85", "MX to a name without address, A present", {"MX": mx("10 empty"), "A": A}, status="5.4.4"),
    case("C85", "MX to a dead host, A present", {"MX": mx("10 dead"), "A": A}, status="4.4.1"),
    case("C86", "no such domain", {}, status="5.1.2"),
    case("C86", "SERVFAIL for MX, A present", {"MX": Fault.SERVFAIL, "A": A}, status="4.4.3"),
    case("C86", "no answer for MX, A present", {"MX": Fault.DROP, "A": A}, status="4.4.3"),
    case("C86", "REFUSED for MX, A present", {"MX": Fault.REFUSED, "A": A}, status="4.4.3"),
    case("C86", "a lame server for MX, A present", {"MX": Fault.LAME, "A": A}, status="4.4.3"),
    case("C86", "no recursion for MX, A present", {"MX": Fault.NO_RECURSION, "A": A}, status="4.4.3"),
    case("C86", "SERVFAIL for the address of the only host", {"MX": mx("10 servfail"), "A": A}, status="4.4.3"),
    case("C86", "one family fails, the other has nothing", {"MX": mx("10 half-empty"), "A": A}, status="4.4.3"),
    case("C86", "one family fails, the other has a host", {"MX": mx("10 half"), "A": ["127.0.0.4"]}, taken_by="a"),
    case("C86", "one host fails in DNS, the next is there", {"MX": mx("10 servfail", "20 b")}, taken_by="b"),
    case("C86", "one host fails in DNS, the next does not exist", {"MX": mx("10 servfail", "20 gone")}, status="4.4.3"),
    case("C87", "a host with IPv6 only", {"MX": mx("10 six")}, taken_by="s", six=True),
    case("C87", "both families, IPv6 alive", {"MX": mx("10 both")}, taken_by="s", six=True),
    case("C87", "both families, IPv6 dead", {"MX": mx("10 both")}, taken_by="a"),
    case("C88", "MX to an alias", {"MX": mx("10 alias")}, taken_by="a"),
    case("C88", "MX to an IP address in place of a name", {"MX": ["10 127.0.0.3."]}, taken_by="b"),
    case("C88", "MX to an IP address where nobody is", {"MX": ["10 127.0.0.9."], "A": A}, status="4.4.1"),
    case("C89", "a single label with an address", {"A": A}, taken_by="a", domain="single"),
    case("C89", "a single label that does not exist", {}, status="5.1.2", domain="localhost1"),
    case("C207", "the null MX, A present", {"MX": ["0 ."], "A": A}, status="5.1.10"),
    case("C207", "the null MX and another", {"MX": ["0 .", *mx("10 a")], "A": A}, status="5.1.10"),
    case("C77", "MX to our name", {"MX": ["10 mx.here.test."], "A": A}, status="5.4.6"),
    case("C77", "MX to our address under another name", {"MX": mx("10 us"), "A": A}, status="5.4.6"),
    case("C77", "our address, equal and worse ones", {"MX": mx("10 us", "10 a", "20 b")}, status="5.4.6"),
    case("C77", "our address, and a better one", {"MX": mx("5 c", "10 us", "20 b")}, taken_by="c"),
    case("C77", "our address, and a better one that is dead", {"MX": mx("5 dead", "10 us", "20 b")}, status="4.4.1"),
    case("C77", "our address without MX", {"A": ["127.0.0.1"]}, status="5.4.6"),
    case("C302 S21", "an alias of itself", {"CNAME": ["loop.test."]}, domain="loop.test", status="4.4.3"),
    case(
        "C302 S21",
        "two aliases of each other",
        {"CNAME": ["pong.test."]},
        more={("pong.test", "CNAME"): ["ping.test."]},
        domain="ping.test",
        status="4.4.3",
    ),
    case("C302 S21", "aliases without end", {"*": Fault.ALIAS_ONLY}, status="4.4.3"),
    case("C302 S21", "64 KiB of MX records", {"MX": TOO_LONG, "A": A}, status="4.4.3"),
    case("C302 S21", "1000 MX records", {"MX": mx(*(f"{n} no{n}" for n in range(1000))), "A": A}, status="4.4.3"),
    case("C302 S21", "300 MX records to no host", {"MX": mx(*(f"{n} no{n}" for n in range(300)))}, status="5.4.4"),
    case("C302 S21", "an MX record of one octet", {"MX": Fault.SHORT_RDATA, "A": A}, status="4.4.3"),
    case("C302 S21", "an MX record without a name", {"MX": Raw((b"\x00\x0a",)), "A": A}, status="4.4.3"),
    case("C302 S21", "an address of two octets", {"MX": mx("10 short"), "A": A}, status="4.4.3"),
    case("C302 S21", "another number", {"MX": Fault.WRONG_ID, "A": A}, status="4.4.3"),
    case("C302 S21", "another question", {"MX": Fault.WRONG_QUESTION, "A": A}, status="4.4.3"),
    case("C302 S21", "records that nobody asked for", {"MX": Fault.UNASKED, "A": A}, status="4.4.3"),
    case("C302 S21", "garbage", {"MX": Fault.GARBAGE, "A": A}, status="4.4.3"),
    case("C302 S21", "referrals for every name", {"*": Fault.LAME}, status="4.4.3"),
    case("C302 S21", "an answer over TCP that ends", {"MX": Fault.CUT_OFF, "A": A}, status="4.4.3"),
    case("C302 S21", "an answer over TCP that never comes", {"MX": Fault.STALL, "A": A}, status="4.4.3"),
    case("C302 S21", "MX to 0.0.0.0", {"MX": mx("10 localhost")}, status="5.4.4"),
]
INTERNAL = [
    "127.0.0.1",
    "127.0.0.2",
    "::1",
    "0.0.0.0",
    "::",
    "169.254.169.254",
    "10.0.0.1",
    "::ffff:127.0.0.2",
    "64:ff9b::7f00:2",
    "2002:7f00:2::",
    "::7f00:2",
]
HEALTHY = "healthy.test"
DELIVERIES = 300


def domain_of(number: int) -> str:
    return ZONES[number].domain or f"d{number}.test"


def zone() -> Zone:
    """All of it: each case has a domain of its own."""
    found: dict[tuple[str, str], object] = {**HOSTS, (HEALTHY, "MX"): mx("10 c")}
    for number, each in enumerate(ZONES):
        found |= {(domain_of(number), kind): records for kind, records in each.zone.items()}
        found |= each.more
    found |= {(f"e{number}.test", "MX"): mx("10 a", "10 b", "10 c") for number in range(DELIVERIES)}
    for number, address in enumerate(INTERNAL):
        found[f"i{number}.test", "MX"] = [f"10 host.i{number}.test."]
        found[f"host.i{number}.test", "AAAA" if ":" in address else "A"] = [address]
        found[f"host.i{number}.test", "A" if ":" in address else "AAAA"] = []
    return found  # type: ignore[return-value]


@pytest.fixture(scope="module")
def names() -> Iterator[DnsServer]:
    with running_dns_server(zone()) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Street:
    """A house, its neighbours, and the port that all of them have."""

    house: RunningHouse
    peers: dict[str, CountingPeer]
    port: int

    def connections(self) -> dict[str, int]:
        return {name: peer.connections for name, peer in self.peers.items()}

    def has(self, forward_path: str) -> list[str]:
        """The peers that have it, once for each time."""
        return [name for name, peer in self.peers.items() for taken in peer.taken if taken == forward_path]


def street(folder: str, factory: pytest.TempPathFactory, world: World, **tables: object) -> Iterator[Street]:
    with counting_peers(tuple(ADDRESSES.values())) as (port, peers):
        forwarding: dict[str, object] = {"port": port, "retry": ["1h"], **tables.pop("forwarding", {})}  # type: ignore[dict-item]
        listen = {"smtp": [f"127.0.0.1:{port}"], "submission": ["127.0.0.1:0"], "pop3": ["127.0.0.1:0"]}
        with RunningHouse(factory.mktemp(folder), world=world, listen=listen, forwarding=forwarding, **tables) as house:
            yield Street(house, dict(zip(ADDRESSES, peers, strict=True)), port)


@pytest.fixture(scope="module")
def by_mx(tmp_path_factory: pytest.TempPathFactory, names: DnsServer) -> Iterator[Street]:
    """May go to private addresses. Its resolver is the real one, and less patient."""
    world = World(resolver=DnsResolver((names.address,), lifetime_s=2.0))
    yield from street("by_mx", tmp_path_factory, world, forwarding={"allow_private_next_hops": True})


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory, names: DnsServer) -> Iterator[Street]:
    """As configured by default, but for the name server."""
    yield from street("usual", tmp_path_factory, World(), dns={"servers": ["{}:{}".format(*names.address)]})


def send(house: RunningHouse, *forward_paths: str) -> None:
    with smtplib.SMTP("127.0.0.1", house.ports["submission"]) as client:
        client.login("ada@here.test", PASSWORD)
        client.sendmail("ada@here.test", list(forward_paths), b"From: ada@here.test\r\n\r\nHello.\r\n")


def send_by_alias(house: RunningHouse, forward_path: str) -> str:
    """Past what is told at RCPT; the alias."""
    alias = f"to-{forward_path.replace('@', '-at-').strip('[]')}@here.test"

    async def add(storage: Storage) -> None:
        await storage.administration.add_alias(parse_address(alias), [parse_address(forward_path)])

    house.ask(add)
    send(house, alias)
    return alias


def attempts(house: RunningHouse, forward_path: str, *, alias: str = "") -> list[Attempted]:
    """The attempts at somebody, when there has been one. `alias`: where the message was sent to."""

    async def find(storage: Storage) -> list[Attempted]:
        while True:
            ids = await storage.journey.find(forward_path=alias or forward_path)
            events = [event for queue_id in ids for event in await storage.journey.read(queue_id)]
            found = [event for event in events if isinstance(event, Attempted) and event.forward_path == forward_path]
            if found:
                return found
            await storage.changes.wait(0.05)

    return house.ask(find)


def reported(house: RunningHouse, forward_path: str) -> list[str]:
    """The status of the report about somebody that the sender has (RFC 3464 §2.3.4)."""
    found = []
    for _uid, _size, content in maildrop(house, "ada@here.test"):
        report = email.message_from_bytes(content)
        parts = [part for part in report.walk() if part.get("Final-Recipient", "").endswith(forward_path)]
        found += [str(part["Status"]) for part in parts]
    return found


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, id=f"{each.lines[0]} {each.what}", marks=pytest.mark.conformance(*each.lines))
        for number, each in enumerate(ZONES)
    ],
)
def test_zones(number: int, by_mx: Street, names: DnsServer) -> None:
    """One attempt is what it costs, whatever the zone says; meanwhile another message arrives."""
    each, domain, house = ZONES[number], domain_of(number), by_mx.house
    forward_path, meanwhile = f"x@{domain}", f"y{number}@{HEALTHY}"
    before = by_mx.connections()
    with counting_peer("::1", by_mx.port) if each.six else nullcontext() as six:
        alias = send_by_alias(house, forward_path)
        send(house, meanwhile)
        assert [each.outcome for each in attempts(house, meanwhile)] == ["delivered"]
        (attempt,) = attempts(house, forward_path, alias=alias)
    has = by_mx.has(forward_path) + ["s" for taken in (six.taken if six else []) if taken == forward_path]
    came = {name for name, count in by_mx.connections().items() if count > before[name]}
    assert "" not in names.names_asked("A") | names.names_asked("AAAA"), "nobody asks for the address of the root"
    if each.taken_by:
        assert attempt.outcome == "delivered"
        assert len(has) == 1
        assert has[0] in each.taken_by
        return
    assert has == []
    assert came <= {"c"}, "the healthy message went to c; nobody else had a connection"
    assert attempt.reply.split()[1] == each.status
    if each.status.startswith("4"):
        assert attempt.outcome == "deferred"
        assert attempt.next_at is not None
    else:
        assert attempt.outcome == "failed"
        assert reported(house, forward_path) == [each.status]


@pytest.mark.conformance("C302", "S21")
@pytest.mark.parametrize("number", range(len(INTERNAL)), ids=INTERNAL)
def test_internal_addresses_are_refused_where_nobody_configured_them(number: int, usual: Street) -> None:
    forward_path = f"x@i{number}.test"
    before = usual.connections()
    with counting_peer("::1", usual.port) as six:
        send(usual.house, forward_path)
        (attempt,) = attempts(usual.house, forward_path)
    assert attempt.outcome == "failed"
    assert attempt.reply.split()[:2] == ["550", "5.4.4"]
    assert attempt.address == ""
    assert reported(usual.house, forward_path) == ["5.4.4"]
    assert usual.connections() == before
    assert six.connections == 0


@pytest.mark.conformance("C90")
@pytest.mark.parametrize("literal", ["[127.0.0.3]", "[IPv6:::1]"])
def test_an_address_literal_is_gone_to_without_a_question(literal: str, by_mx: Street, names: DnsServer) -> None:
    before = list(names.asked)
    # A zone before this one had nobody there, which is remembered for a while.
    by_mx.house.house.remembered.hosts.answered(Endpoint("::1", by_mx.port))
    with counting_peer("::1", by_mx.port) as six:
        send(by_mx.house, f"x@{literal}")
        (attempt,) = attempts(by_mx.house, f"x@{literal}")
    assert attempt.outcome == "delivered"
    assert by_mx.has(f"x@{literal}") + six.taken == ["b" if "v6" not in literal else f"x@{literal}"]
    assert names.asked == before


@pytest.mark.conformance("C302")
@pytest.mark.parametrize("literal", ["[127.0.0.3]", "[IPv6:::ffff:7f00:3]", "[169.254.169.254]"])
def test_an_internal_address_literal_is_refused_where_nobody_configured_it(literal: str, usual: Street) -> None:
    before = usual.connections()
    send(usual.house, f"x@{literal}")
    (attempt,) = attempts(usual.house, f"x@{literal}")
    assert attempt.reply.split()[:2] == ["550", "5.4.4"]
    assert usual.connections() == before


TOLD = [
    ("C207", "the null MX, A present", 556, b"5.1.10"),
    ("C207", "the null MX and another", 550, b"5.1.10"),
    ("C86", "no such domain", 550, b"5.1.2"),
    ("C77", "MX to our name", 554, b"5.4.6"),
]


@pytest.mark.parametrize(
    ("what", "code", "status"),
    [pytest.param(*told, id=told[0], marks=pytest.mark.conformance(line)) for line, *told in TOLD],
)
def test_a_sender_is_told_at_once_what_is_certain(what: str, code: int, status: bytes, by_mx: Street) -> None:
    number = next(number for number, each in enumerate(ZONES) if each.what == what)
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        send(by_mx.house, f"z@{domain_of(number)}")
    ((said, text),) = refused.value.recipients.values()
    assert said == code
    assert text.startswith(status)


@pytest.mark.conformance("C89")
def test_no_name_is_completed(by_mx: Street, names: DnsServer) -> None:
    """A single label is asked for as it stands, where an alias leads there; a sender has to write all of it."""
    for domain in ("single", "localhost1", "lonely"):
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            send(by_mx.house, f"z@{domain}")
    alias = send_by_alias(by_mx.house, "y@lonely")
    (attempt,) = attempts(by_mx.house, "y@lonely", alias=alias)
    assert attempt.reply.split()[1] == "5.1.2"
    known = {owner for owner, _kind in zone()}
    asked = {name for _transport, name, _kind in names.asked}
    assert {name for name in asked if name.startswith(("single", "localhost1", "lonely"))} <= {
        "single",
        "localhost1",
        "lonely",
    }
    assert "lonely" in asked
    assert "lonely" not in known


@pytest.mark.conformance("C84")
def test_three_hundred_deliveries_to_three_equal_hosts(by_mx: Street) -> None:
    with smtplib.SMTP("127.0.0.1", by_mx.house.ports["submission"]) as client:
        client.login("ada@here.test", PASSWORD)
        for number in range(DELIVERIES):
            client.sendmail("ada@here.test", [f"x@e{number}.test"], b"From: ada@here.test\r\n\r\nHello.\r\n")

    def served() -> Counter[str]:
        return Counter(name for name, peer in by_mx.peers.items() for taken in peer.taken if taken.startswith("x@e"))

    async def wait(storage: Storage) -> None:
        while served().total() < DELIVERIES:
            await storage.changes.wait(0.05)

    by_mx.house.ask(wait)
    found = served()
    # Two degrees of freedom: chance exceeds 27.6 once in a million times.
    assert sum((found[name] - DELIVERIES / 3) ** 2 / (DELIVERIES / 3) for name in ADDRESSES) < 27.6


def test_a_route_leads_to_a_name_or_an_address_and_a_port(
    tmp_path_factory: pytest.TempPathFactory, names: DnsServer
) -> None:
    """Its MX records are not asked for, and what is configured may be private."""
    with counting_peers(("127.0.0.2", "127.0.0.3", "::1")) as (port, (two, three, six)):
        routes = {
            "name.test": f"a.hosts.test:{port}",
            "four.test": f"127.0.0.3:{port}",
            "six.test": f"[::1]:{port}",
            "local.test": f"localhost:{port}",
        }
        folder = tmp_path_factory.mktemp("routes")
        dns = {"servers": ["{}:{}".format(*names.address)]}
        with RunningHouse(folder, forwarding={"routes": routes, "retry": ["1h"]}, dns=dns) as house:
            for domain in routes:
                send(house, f"x@{domain}")
                assert [attempt.outcome for attempt in attempts(house, f"x@{domain}")] == ["delivered"]
        assert (two.taken, three.taken) == (["x@name.test"], ["x@four.test"])
        assert six.taken == ["x@six.test", "x@local.test"]
    asked = {name for _transport, name, _kind in names.asked}
    assert not asked & {*routes, "localhost"}
    assert "a.hosts.test" in asked
