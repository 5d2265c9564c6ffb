"""The resolver against a real name server on loopback: no temporary failure ever becomes a certain "no"."""

from __future__ import annotations

import time

import pytest

from posthouse.net.dns import KEEP_NOTHING_AT_MOST_S, DnsResolver, MxHost, NoSuchName, TemporaryDnsFailure
from tests.dns_server import DnsServer, Fault, dns_server

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
        assert await resolver(server).addresses("mx1.example.test") == ("2001:db8::1", "192.0.2.1")


async def test_a_name_without_the_record_is_no_failure() -> None:
    async with dns_server(ZONE) as server:
        ours = resolver(server)
        assert await ours.mail_exchangers("bare.test") == ()
        assert await ours.addresses("null.test") == ()
        assert await ours.addresses("bare.test") == ("192.0.2.3",)


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


async def test_one_family_that_fails_does_not_hide_the_other() -> None:
    async with dns_server(ZONE) as server:
        ours = resolver(server)
        assert await ours.addresses("half.test") == ("192.0.2.4",)
        assert await ours.addresses("six.test") == ("2001:db8::6",)
        with pytest.raises(TemporaryDnsFailure):
            await ours.addresses("unsure.test")


async def test_names_are_asked_for_as_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 5321 §2.3.5: no search domains, not even for a single label."""
    monkeypatch.setenv("LOCALDOMAIN", "search.test")
    async with dns_server(ZONE) as server:
        ours = resolver(server)
        assert await ours.addresses("single") == ("192.0.2.5",)
        with pytest.raises(NoSuchName):
            await ours.mail_exchangers("lonely")
    assert {name for _transport, name, _kind in server.asked} == {"single", "lonely"}


async def test_a_labels() -> None:
    async with dns_server(ZONE) as server:
        assert await resolver(server).mail_exchangers("xn--bcher-kva.test") == (MxHost(1, "mx.xn--bcher-kva.test"),)


async def test_answers_in_another_case() -> None:
    async with dns_server(ZONE, mixed_case=True) as server:
        assert await resolver(server).addresses("bare.test") == ("192.0.2.3",)
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


@pytest.mark.parametrize(("ttl", "questions"), [(60, 1), (0, 2)])
async def test_answers_are_kept_for_their_ttl(ttl: int, questions: int) -> None:
    async with dns_server(ZONE, ttl=ttl) as server:
        ours = resolver(server)
        for _again in range(2):
            await ours.mail_exchangers("example.test")
    assert len(server.asked) == questions


async def test_no_is_not_kept_for_long() -> None:
    """Without a SOA it would be kept for 68 years."""
    async with dns_server(ZONE, soa=False) as server:
        ours = resolver(server)
        with pytest.raises(NoSuchName):
            await ours.mail_exchangers("gone.test")
        assert await ours.mail_exchangers("bare.test") == ()
    cache = ours._resolver.cache
    assert cache is not None
    kept = [node.value.expiration for node in cache.data.values()]  # type: ignore[union-attr]
    assert kept
    assert max(kept) <= time.time() + KEEP_NOTHING_AT_MOST_S


async def test_a_second_server_is_asked_when_the_first_fails() -> None:
    async with dns_server({("example.test", "*"): Fault.SERVFAIL}) as bad, dns_server(ZONE) as good:
        ours = DnsResolver((bad.address, good.address), lifetime_s=2.0)
        assert len(await ours.mail_exchangers("example.test")) == 2
