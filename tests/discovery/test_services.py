"""The order of SRV records (RFC 2782)."""

from __future__ import annotations

from collections import Counter

import pytest

from posthouse.discovery.services import MOST, candidates, in_order, is_denied
from posthouse.mail.source import Protection
from posthouse.net.dns import DnsResolver, Service
from tests.dns_server import dns_server
from tests.fake_world import FakeRandom


def service(priority: int, weight: int, host: str = "a.test") -> Service:
    return Service(priority, weight, 995, host)


@pytest.mark.conformance("C218")
def test_priority_is_kept_and_weight_is_chance() -> None:
    random = FakeRandom()
    records = [service(2, 1, "last.test"), service(1, 90, "often.test"), service(1, 10, "rare.test")]
    firsts = Counter(in_order(records, random)[0].host for _ in range(1000))
    assert set(firsts) == {"often.test", "rare.test"}
    assert 50 < firsts["rare.test"] < 200
    assert in_order(records, random)[2].host == "last.test"
    assert in_order([service(0, 0), service(0, 0, "b.test")], random)


def test_few_are_tried_and_denials_are_none() -> None:
    found = candidates(
        [service(n, 0, f"{n}.far.test") for n in range(9)], Protection.IMPLICIT, "far.test", FakeRandom()
    )
    assert [each.server.host for each in found] == [f"{n}.far.test" for n in range(MOST)]
    assert all(each.vouched for each in found)
    assert not candidates([service(0, 0, "evilfar.test")], Protection.IMPLICIT, "far.test", FakeRandom())[0].vouched
    assert candidates([Service(0, 0, 0, "")], Protection.IMPLICIT, "far.test", FakeRandom()) == []
    assert is_denied([Service(0, 0, 0, "")])
    assert not is_denied([])


@pytest.mark.conformance("C218")
async def test_records_are_read_from_dns() -> None:
    zone = {
        ("_pop3s._tcp.far.test", "SRV"): ["10 5 995 Pop.Far.Test.", "20 0 995 backup.far.test."],
        ("_pop3._tcp.far.test", "SRV"): ["0 0 0 ."],
    }
    async with dns_server(zone) as server:
        resolver = DnsResolver((server.address,))
        assert set(await resolver.services("_pop3s._tcp.far.test")) == {
            Service(10, 5, 995, "pop.far.test"),
            Service(20, 0, 995, "backup.far.test"),
        }
        assert await resolver.services("_pop3._tcp.far.test") == (Service(0, 0, 0, ""),)
        assert await resolver.services("_submission._tcp.far.test") == ()
