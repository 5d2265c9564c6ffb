from __future__ import annotations

import pytest

from posthouse.config_values import Endpoint
from posthouse.forwarding import routes
from posthouse.forwarding.routes import Hop, NoRoute, Router
from posthouse.mail.reply import Reply
from posthouse.net.dns import MxHost
from tests.fake_world import FakeRandom, FakeResolver


def router(
    mail_exchangers: dict[str, tuple[MxHost, ...]] | None = None,
    addresses: dict[str, tuple[str, ...]] | None = None,
    *,
    broken: frozenset[str] = frozenset(),
    explicit: dict[str, Endpoint] | None = None,
    allow_private: bool = False,
    seed: int = 1,
) -> Router:
    return Router(
        resolver=FakeResolver(mail_exchangers, addresses, broken),
        explicit=(explicit or {}).get,
        hostname="mx.here.test",
        port=25,
        allow_private=allow_private,
        random=FakeRandom(seed),
    )


async def names(using: Router, domain: str = "there.test") -> list[str]:
    route = await using.route(domain)
    assert not isinstance(route, NoRoute), route
    return [hop.host for hop in route]


async def refusal(using: Router, domain: str = "there.test") -> Reply:
    route = await using.route(domain)
    assert isinstance(route, NoRoute), route
    return route.reply


async def test_better_hosts_come_first() -> None:
    mx = (MxHost(20, "b.test"), MxHost(10, "a.test"), MxHost(30, "c.test"))
    assert await names(router({"there.test": mx})) == ["a.test", "b.test", "c.test"]


async def test_equal_hosts_are_shuffled_by_the_chance_handed_in() -> None:
    mx = (*(MxHost(10, f"{name}.test") for name in "abcd"), MxHost(20, "z.test"))
    orders = {tuple(await names(router({"there.test": mx}, seed=seed))) for seed in range(30)}
    assert len(orders) > 10
    assert all(order[-1] == "z.test" and len(order) == 5 for order in orders)
    assert await names(router({"there.test": mx}, seed=3)) == await names(router({"there.test": mx}, seed=3))


async def test_a_domain_without_mx_is_its_own_host() -> None:
    assert await names(router({"there.test": ()})) == ["there.test"]


async def test_the_null_mx_takes_no_mail() -> None:
    said = await refusal(router({"there.test": (MxHost(0, ""),)}))
    assert (said.code, str(said.enhanced)) == (556, "5.1.10")


async def test_a_null_mx_beside_real_ones_means_nothing() -> None:
    assert await names(router({"there.test": (MxHost(0, ""), MxHost(10, "a.test"))})) == ["a.test"]


async def test_we_and_hosts_no_better_than_we_are_left_out() -> None:
    mx = (MxHost(5, "a.test"), MxHost(10, "mx.here.test"), MxHost(10, "b.test"), MxHost(20, "c.test"))
    assert await names(router({"there.test": mx})) == ["a.test"]


async def test_mail_that_would_come_back_is_refused() -> None:
    mx = (MxHost(10, "mx.here.test"), MxHost(20, "c.test"))
    assert await refusal(router({"there.test": mx})) == routes.LOOPS_BACK
    assert await refusal(router({"mx.here.test": ()}), "mx.here.test") == routes.LOOPS_BACK


async def test_no_such_domain_is_permanent() -> None:
    assert (await refusal(router())).is_permanent


async def test_a_temporary_failure_is_never_no_such_host() -> None:
    using = router({"there.test": (MxHost(10, "a.test"),)}, broken=frozenset({"there.test", "a.test"}))
    assert (await refusal(using)).is_transient
    found = await using.addresses(Hop("a.test", 25, configured=False))
    assert found == NoRoute(routes.DNS_LATER)


async def test_a_thousand_mail_exchangers_are_bounded() -> None:
    mx = tuple(MxHost(number, f"mx{number}.test") for number in reversed(range(1000)))
    assert await names(router({"there.test": mx})) == [f"mx{number}.test" for number in range(routes.MX_HOSTS_LIMIT)]


async def test_a_host_named_a_thousand_times_hides_no_other() -> None:
    mx = (*(MxHost(number, "a.test") for number in range(1000)), MxHost(2000, "b.test"))
    assert await names(router({"there.test": mx})) == ["a.test", "b.test"]


async def test_a_configured_next_hop_comes_before_dns() -> None:
    using = router(explicit={"there.test": Endpoint("smart.test", 2525)})
    assert await using.route("there.test") == (Hop("smart.test", 2525, configured=True),)


@pytest.mark.parametrize(("literal", "host"), [("[192.0.2.7]", "192.0.2.7"), ("[IPv6:2001:db8::7]", "2001:db8::7")])
async def test_an_address_literal_is_its_host(literal: str, host: str) -> None:
    using = router()
    assert await names(using, literal) == [host]
    assert await router(allow_private=True).addresses(Hop(host, 25, configured=False)) == (host,)


PRIVATE = (
    "127.0.0.1",
    "10.1.2.3",
    "192.168.1.1",
    "169.254.169.254",
    "0.0.0.0",
    "224.0.0.1",
    "::1",
    "fe80::1",
    "fd00::1",
)


@pytest.mark.parametrize("address", [*PRIVATE, "::ffff:127.0.0.1"])
async def test_private_addresses_are_not_connected_to(address: str) -> None:
    using = router(addresses={"a.test": (address,)})
    assert await using.addresses(Hop("a.test", 25, configured=False)) == NoRoute(routes.PRIVATE_ONLY)
    assert await using.addresses(Hop(address, 25, configured=False)) == NoRoute(routes.PRIVATE_ONLY)


async def test_private_addresses_are_used_where_configured_or_allowed() -> None:
    addresses = {"a.test": ("127.0.0.1",)}
    assert await router(addresses=addresses).addresses(Hop("a.test", 25, configured=True)) == ("127.0.0.1",)
    allowed = router(addresses=addresses, allow_private=True)
    assert await allowed.addresses(Hop("a.test", 25, configured=False)) == ("127.0.0.1",)


async def test_public_addresses_beside_private_ones_are_used() -> None:
    using = router(addresses={"a.test": ("10.0.0.1", "8.8.8.8")})
    assert await using.addresses(Hop("a.test", 25, configured=False)) == ("8.8.8.8",)


async def test_both_address_families_are_tried_and_not_for_ever() -> None:
    six = tuple(f"2606:4700::{number:x}" for number in range(1, 100))
    using = router(addresses={"a.test": (*six, "8.8.8.8", "8.8.4.4")})
    found = await using.addresses(Hop("a.test", 25, configured=False))
    assert found == (six[0], "8.8.8.8", six[1], "8.8.4.4", six[2], six[3])
    assert len(found) == routes.ADDRESSES_LIMIT


@pytest.mark.parametrize("addresses", [{}, {"a.test": ()}])
async def test_a_host_without_address_is_no_host_for_mail(addresses: dict[str, tuple[str, ...]]) -> None:
    found = await router(addresses=addresses).addresses(Hop("a.test", 25, configured=False))
    assert found == NoRoute(routes.NO_MAIL_HOST)


@pytest.mark.parametrize("addresses", [{}, {"smart.test": ()}])
async def test_a_mistake_in_our_configuration_bounces_nothing(addresses: dict[str, tuple[str, ...]]) -> None:
    found = await router(addresses=addresses).addresses(Hop("smart.test", 25, configured=True))
    assert isinstance(found, NoRoute)
    assert found.reply.is_transient
