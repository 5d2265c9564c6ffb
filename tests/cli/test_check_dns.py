"""Each DNS record as it is found, as it should be, and why: against a real name server on loopback."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping, Sequence

import dns.rdatatype
import dns.rrset
import dns.zone
import pytest

from posthouse.cli.check_dns import Compared, compare_dns
from posthouse.cli.dns_records import Site, dns_records, zone_lines
from posthouse.config_values import Endpoint
from posthouse.net.dns import DnsResolver
from tests.dns_server import Fault, Raw, Zone, dns_server

V4, V6, OTHER = "5.6.7.8", "2a00:1450:4001::25", "9.9.9.9"
PTR4, PTR6 = (ipaddress.ip_address(address).reverse_pointer for address in (V4, V6))
SITE = Site(
    hostname="mx.here.test",
    domains=("here.test",),
    addresses=(V4, V6),
    services=(("submissions", 465), ("submission", 587), ("pop3s", 995)),
)
AT_HOME = dataclasses.replace(SITE, addresses=())
RIGHT: Mapping[tuple[str, str], Sequence[str] | Raw | Fault] = {
    ("mx.here.test", "A"): [V4],
    ("mx.here.test", "AAAA"): [V6],
    ("mx.here.test", "TXT"): ['"v=spf1 a -all"'],
    ("here.test", "MX"): ["10 MX.here.test."],
    ("here.test", "TXT"): ['"some-verification=1"', '"v=spf1 mx -all"'],
    ("_dmarc.here.test", "TXT"): ['"v=DMARC1; p=none"'],
    ("_submissions._tcp.here.test", "SRV"): ["0 1 465 mx.here.test."],
    ("_submission._tcp.here.test", "SRV"): ["1 1 587 mx.here.test."],
    ("_pop3s._tcp.here.test", "SRV"): ["0 1 995 mx.here.test."],
    (PTR4, "PTR"): ["mx.here.test."],
    (PTR6, "PTR"): ["mx.here.test."],
}


async def ask(site: Site, zone: Zone) -> list[Compared]:
    async with dns_server(zone) as server:
        return await compare_dns(site, DnsResolver((server.address,), lifetime_s=2.0))


def row(rows: Sequence[Compared], name: str, kind: str) -> Compared:
    (found,) = (each for each in rows if (each.name.rstrip("."), each.type) == (name, kind))
    return found


async def test_all_is_right() -> None:
    rows = await ask(SITE, RIGHT)
    assert {each.state for each in rows} == {"ok"}
    assert {(each.name, each.type) for each in rows} >= {
        (record.name, record.type) for record in dns_records(SITE) if record.name
    }
    assert row(rows, V4, "name that leads back").found == (V4,)


async def test_what_is_printed_to_publish_is_what_check_calls_right() -> None:
    """The lines are pasted into zones, and the house is asked about: nothing is missing, nothing is wrong."""
    pasted: dict[tuple[str, str], list[str]] = {}
    for line in zone_lines(dns_records(SITE)):
        if line.startswith("; whoever gave you the address sets: "):
            name, kind, value = line.rpartition(": ")[2].split()
        else:
            name, ttl, _class, kind, value = line.split(maxsplit=4)
            # As a name server reads it.
            dns.rrset.from_text(name, int(ttl), "IN", kind, value)
        pasted.setdefault((name.rstrip("."), kind), []).append(value)
    assert {each.state for each in await ask(SITE, pasted)} == {"ok"}
    zone = "\n".join(["@ 3600 IN SOA ns hostmaster 1 2 3 4 5", "@ 3600 IN NS ns.else.", *zone_lines(dns_records(SITE))])
    assert dns.zone.from_text(zone, "here.test.").find_rdataset("@", dns.rdatatype.MX)


WRONG: list[tuple[str, str, object, str, tuple[str, ...]]] = [
    ("here.test", "MX", ["10 mx.else.test."], "problem", ("goes elsewhere",)),
    ("here.test", "MX", ["0 ."], "problem", ("takes no mail",)),
    ("here.test", "MX", None, "problem", ("does not find its way",)),
    ("here.test", "MX", ["5 mx.else.test.", "10 mx.here.test."], "note", ("mx.else.test first",)),
    ("mx.here.test", "A", [OTHER], "problem", (OTHER, "no address of this machine")),
    ("mx.here.test", "A", [V4, OTHER], "problem", (OTHER,)),
    ("mx.here.test", "A", ["192.168.1.7"], "problem", ("192.168.1.7", "private")),
    ("mx.here.test", "A", None, "problem", ("look there",)),
    ("mx.here.test", "AAAA", None, "problem", ("look there",)),
    ("mx.here.test", "TXT", None, "note", ("forged",)),
    ("here.test", "TXT", None, "problem", ("forged",)),
    ("here.test", "TXT", ['"v=spf1 ip4:9.9.9.9 -all"'], "problem", (f"fail to mail from {V4}",)),
    ("here.test", "TXT", [f'"v=spf1 ip4:{V4} ~all"'], "problem", (f"softfail to mail from {V6}",)),
    ("here.test", "TXT", ['"v=spf1 mx -all"', '"v=spf1 a -all"'], "problem", ("2 SPF records",)),
    ("here.test", "TXT", ['"v=spf1 mxx -all"'], "problem", ("'mxx'", "no mechanism")),
    ("here.test", "TXT", ['"v=spf1 exists:%{i}.x.test -all"'], "note", ("cannot be seen here",)),
    ("_dmarc.here.test", "TXT", None, "note", ("large providers",)),
    ("_dmarc.here.test", "TXT", ['"v=DMARC1; rua=mailto:x@here.test"'], "problem", ("no policy",)),
    ("_dmarc.here.test", "TXT", ['"v=DMARC1; p=none"', '"v=DMARC1; p=reject"'], "problem", ("keep one",)),
    ("_pop3s._tcp.here.test", "SRV", None, "note", ("ask their user",)),
    ("_pop3s._tcp.here.test", "SRV", ["0 1 993 mx.here.test."], "problem", ("do not come here",)),
    ("_pop3s._tcp.here.test", "SRV", ["5 9 995 MX.here.test."], "ok", ()),
    (PTR4, "PTR", None, "problem", ("refuse", V4)),
    (PTR6, "PTR", ["static-25.provider.test."], "problem", ("not the name that the house greets with",)),
]


@pytest.mark.parametrize(("name", "kind", "records", "state", "words"), WRONG)
async def test_one_record_is_wrong(name: str, kind: str, records: object, state: str, words: tuple[str, ...]) -> None:
    zone = dict(RIGHT)
    if records is None:
        del zone[name, kind]
    else:
        zone[name, kind] = records  # type: ignore[assignment]
    found = row(await ask(SITE, zone), name, kind)
    assert found.state == state
    assert all(word in found.why for word in words), found.why
    assert found.should_be
    if records is None:
        assert found.found == ()


@pytest.mark.parametrize("fault", [Fault.SERVFAIL, Fault.REFUSED, Fault.GARBAGE, Fault.LAME])
@pytest.mark.parametrize(("name", "kind"), list(RIGHT))
async def test_what_could_not_be_asked_is_not_wrong(name: str, kind: str, fault: Fault) -> None:
    rows = await ask(SITE, {**RIGHT, (name, kind): fault})
    assert row(rows, name, kind).state == "unknown"
    assert {each.state for each in rows} == {"ok", "unknown"}


async def test_a_silent_name_server_is_not_waited_for_long() -> None:
    silent = {(name, "*"): Fault.DROP for name, _kind in RIGHT}
    async with dns_server(silent) as server:
        rows = await compare_dns(SITE, DnsResolver((server.address,), lifetime_s=0.2))
    assert {each.state for each in rows} == {"unknown"}


async def test_an_alias_is_no_host_name() -> None:
    zone = {key: value for key, value in RIGHT.items() if key[0] != "mx.here.test"}
    rows = await ask(SITE, {**zone, ("mx.here.test", "CNAME"): ["box.here.test."], ("box.here.test", "A"): [V4]})
    assert row(rows, "mx.here.test", "A").state == "problem"
    assert "alias" in row(rows, "mx.here.test", "A").why


async def test_a_name_that_does_not_lead_back() -> None:
    zone = {**RIGHT, (PTR4, "PTR"): ["box.provider.test."], ("box.provider.test", "A"): [OTHER]}
    found = row(await ask(SITE, zone), V4, "name that leads back")
    assert (found.state, found.found) == ("problem", (OTHER,))
    assert "box.provider.test does not lead back" in found.why


async def test_the_name_that_the_house_greets_with_must_lead_to_it() -> None:
    zone = {key: value for key, value in RIGHT.items() if key != ("mx.here.test", "AAAA")}
    assert row(await ask(SITE, zone), "mx.here.test", "EHLO name").state == "ok"
    found = row(await ask(SITE, {**zone, ("mx.here.test", "A"): [OTHER]}), "mx.here.test", "EHLO name")
    assert (found.state, found.found) == ("problem", (OTHER,))
    zone["mx.here.test", "A"] = Fault.SERVFAIL
    assert row(await ask(SITE, zone), "mx.here.test", "EHLO name").state == "unknown"


async def test_an_address_that_mail_leaves_from_is_none_of_its_name() -> None:
    site = dataclasses.replace(SITE, addresses=(V4, V6, "5.6.7.9"))
    found = row(await ask(site, RIGHT), "mx.here.test", "A")
    assert (found.state, "5.6.7.9" in found.why) == ("note", True)


async def test_an_address_without_a_door() -> None:
    only_v4 = dataclasses.replace(SITE, versions=(4,))
    found = row(await ask(only_v4, RIGHT), "mx.here.test", "AAAA")
    assert (found.state, '"[::]:25"' in found.why) == ("problem", True)
    del (zone := dict(RIGHT))["mx.here.test", "AAAA"]
    found = row(await ask(only_v4, zone), "mx.here.test", "AAAA")
    assert found.state == "note"


async def test_behind_a_router_the_address_is_believed_and_must_fit() -> None:
    zone = {key: value for key, value in RIGHT.items() if key[1] != "AAAA" and key[0] != PTR6}
    rows = await ask(AT_HOME, zone)
    assert row(rows, "mx.here.test", "A").state == "note"
    assert row(rows, PTR4, "PTR").state == "ok"
    assert {each.state for each in rows} == {"ok", "note"}
    rows = await ask(AT_HOME, {**zone, ("here.test", "TXT"): ['"v=spf1 ip4:9.9.9.9 -all"']})
    assert row(rows, "here.test", "TXT").state == "problem"
    del zone["mx.here.test", "A"]
    found = row(await ask(AT_HOME, zone), "mx.here.test", "A")
    assert (found.state, found.should_be) == ("problem", "the public address of your line")


async def test_where_all_leaves_through_a_smarthost_our_reverse_names_matter_less() -> None:
    site = dataclasses.replace(SITE, smarthost=Endpoint("smart.else.test", 587))
    rows = await ask(site, {**RIGHT, (PTR4, "PTR"): [], ("here.test", "TXT"): ['"v=spf1 a:smart.else.test -all"']})
    assert row(rows, PTR4, "PTR").state == "note"
    spf = row(rows, "here.test", "TXT")
    assert (spf.state, spf.should_be) == ("ok", "v=spf1 mx a:smart.else.test -all")


async def test_a_domain_that_is_not_registered() -> None:
    found = row(
        await ask(SITE, {key: RIGHT[key] for key in RIGHT if not key[0].endswith("here.test")}), "here.test", "MX"
    )
    assert "does not exist" in found.why


@pytest.mark.parametrize(
    ("records", "state"),
    [
        ({"here.test": "v=spf1 include:other.test -all", "other.test": f"v=spf1 ip4:5.6.0.0/16 ip6:{V6} ?all"}, "ok"),
        ({"here.test": "v=spf1 redirect=other.test", "other.test": "v=spf1 a:mx.here.test -all"}, "ok"),
        ({"here.test": "v=spf1 +a:mx.here.test/24//64 -all"}, "ok"),
        ({"here.test": "V=SPF1 MX -ALL"}, "ok"),
        ({"here.test": "v=spf1 include:gone.test mx -all"}, "problem"),
        ({"here.test": "v=spf1 include:here.test -all"}, "problem"),
        ({"here.test": "v=spf1 ip4:5.6.7.8.9 -all"}, "problem"),
        ({"here.test": "v=spf1 include:other.test -all", "other.test": "v=spf1 -mx:here.test"}, "problem"),
        ({"here.test": "v=spf1"}, "problem"),
        ({"here.test": "v=spf1 a:gone.test mx:gone.test"}, "problem"),
        ({"here.test": "v=spf1 include:%{d}.test mx -all"}, "note"),
        ({"here.test": "v=spf1 ptr -all"}, "note"),
    ],
)
async def test_spf_is_followed(records: dict[str, str], state: str) -> None:
    zone = {**RIGHT, **{(name, "TXT"): [f'"{text}"'] for name, text in records.items()}}
    assert row(await ask(SITE, zone), "here.test", "TXT").state == state


async def test_a_house_without_a_name_asks_nothing() -> None:
    assert await ask(Site(hostname="[5.6.7.8]", domains=("here.test",)), RIGHT) == []
    assert dns_records(Site(hostname="[5.6.7.8]", domains=("here.test",))) == []
