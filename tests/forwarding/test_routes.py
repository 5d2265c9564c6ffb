from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from posthouse.config_values import Endpoint
from posthouse.forwarding import routes
from posthouse.forwarding.routes import Hop, NoRoute, Router
from posthouse.mail.reply import Reply
from posthouse.net.dns import Addresses, MxHost
from tests.fake_world import FakeRandom, FakeResolver


def router(
    mail_exchangers: dict[str, tuple[MxHost, ...]] | None = None,
    addresses: dict[str, tuple[str, ...]] | None = None,
    *,
    broken: frozenset[str] = frozenset(),
    explicit: dict[str, Endpoint] | None = None,
    allow_private: bool = False,
    own: tuple[str, ...] = (),
    seed: int = 1,
) -> Router:
    return Router(
        resolver=FakeResolver(mail_exchangers, addresses, broken),
        explicit=(explicit or {}).get,
        hostname="mx.here.test",
        port=25,
        allow_private=allow_private,
        random=FakeRandom(seed),
        is_own=lambda address, port: address in own and port == 25,
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


@pytest.mark.conformance("C207")
@pytest.mark.parametrize("null_preference", [0, 20])
async def test_a_null_mx_beside_real_ones_is_an_error(null_preference: int) -> None:
    said = await refusal(router({"there.test": (MxHost(10, "a.test"), MxHost(null_preference, ""))}))
    assert said == routes.NULL_MX_AND_OTHERS
    assert said.is_permanent


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


@pytest.mark.conformance("C28")
@pytest.mark.parametrize(("literal", "host"), [("[192.0.2.7]", "192.0.2.7"), ("[IPv6:2001:db8::7]", "2001:db8::7")])
async def test_an_address_literal_is_its_host(literal: str, host: str) -> None:
    using = router()
    assert await names(using, literal) == [host]
    assert await router(allow_private=True).addresses(Hop(host, 25, configured=False)) == (host,)


MAPPED = ("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0.0.0.0")
NAT64 = ("64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::", "64:ff9b:1::808:808")
TUNNELLED = ("2002:7f00:1::", "2002:a00:1::1", "2002:c0a8:101::", "2001:0:808:808::80ff:fffe")
PRIVATE = (
    *MAPPED,
    *NAT64,
    *TUNNELLED,
    "127.0.0.1",
    "10.1.2.3",
    "192.168.1.1",
    "169.254.169.254",
    "0.0.0.0",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "100.64.0.1",
    "::",
    "::1",
    "::7f00:1",
    "fe80::1",
    "fec0::1",
    "fd00::1",
    "ff02::1",
    "2001:db8::1",
    "4000::1",
)


@pytest.mark.conformance("C302", "S21")
@pytest.mark.parametrize("address", PRIVATE)
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


NOBODYS = ("0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "ff02::1", "255.255.255.255")


@pytest.mark.conformance("C302")
@pytest.mark.parametrize("address", NOBODYS)
async def test_what_is_no_host_is_not_connected_to_even_where_private_is_allowed(address: str) -> None:
    using = router(addresses={"a.test": (address,)}, allow_private=True)
    assert await using.addresses(Hop("a.test", 25, configured=False)) == NoRoute(routes.PRIVATE_ONLY)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1", "64:ff9b::808:808"])
async def test_the_internet_is_public(address: str) -> None:
    using = router(addresses={"a.test": (address,)})
    assert await using.addresses(Hop("a.test", 25, configured=False)) == (address,)


async def test_one_address_in_two_spellings_is_tried_once() -> None:
    using = router(addresses={"a.test": ("::ffff:8.8.8.8", "8.8.8.8")})
    assert await using.addresses(Hop("a.test", 25, configured=False)) == ("8.8.8.8",)


@pytest.mark.conformance("C86")
async def test_private_addresses_alone_say_nothing_while_a_family_cannot_be_asked() -> None:
    class HalfResolver(FakeResolver):
        async def addresses(self, host: str) -> Addresses:
            return Addresses((await super().addresses(host)).found, complete=False)

    using = replace(router(), resolver=HalfResolver(addresses={"a.test": ("10.0.0.1",), "b.test": ("8.8.8.8",)}))
    assert await using.addresses(Hop("a.test", 25, configured=False)) == NoRoute(routes.DNS_LATER)
    assert await using.addresses(Hop("b.test", 25, configured=False)) == ("8.8.8.8",)


HOUSES = {name: (f"8.8.8.{number}",) for number, name in enumerate(("a.test", "b.test", "c.test", "us.test"))}
OURS = HOUSES["us.test"]


async def led_to(using: Router, domain: str = "there.test") -> dict[str, bool]:
    """The hosts of a domain in their order, and whether each may be connected to."""
    route = await using.route(domain)
    assert not isinstance(route, NoRoute), route
    found = {hop.host: await using.addresses(hop) for hop in route}
    assert {each for each in found.values() if isinstance(each, NoRoute)} <= {NoRoute(routes.LOOPS_BACK)}
    return {host: not isinstance(each, NoRoute) for host, each in found.items()}


@pytest.mark.conformance("C77")
@pytest.mark.parametrize("seed", range(6))
async def test_a_host_with_our_address_is_we_under_another_name(seed: int) -> None:
    """It is not tried, nor what is no better; not even an equal one that chance has put before it."""
    mx = (MxHost(5, "a.test"), MxHost(10, "us.test"), MxHost(10, "b.test"), MxHost(20, "c.test"))
    using = router({"there.test": mx}, HOUSES, own=OURS, seed=seed)
    assert await led_to(using) == {"a.test": True, "us.test": False, "b.test": False, "c.test": False}
    assert all((await led_to(router({"there.test": mx}, HOUSES, seed=seed))).values())


@pytest.mark.conformance("C77")
async def test_we_as_the_only_host_by_address() -> None:
    using = router({"there.test": (MxHost(10, "us.test"),)}, HOUSES, own=OURS)
    assert await led_to(using) == {"us.test": False}
    assert await led_to(router({"us.test": ()}, HOUSES, own=OURS), "us.test") == {"us.test": False}
    assert await led_to(using, f"[{OURS[0]}]") == {OURS[0]: False}


async def test_another_port_at_our_address_is_somebody_else() -> None:
    using = replace(router({"there.test": (MxHost(10, "us.test"),)}, HOUSES, own=OURS), port=2525)
    assert await led_to(using) == {"us.test": True}


async def test_loopback_in_a_zone_is_not_this_house_but_no_host_at_all() -> None:
    mx = (MxHost(10, "localhost.there.test"), MxHost(20, "a.test"))
    addresses = {**HOUSES, "localhost.there.test": ("127.0.0.1",)}
    using = router({"there.test": mx}, addresses, own=("127.0.0.1",))
    first, second = await using.route("there.test")  # type: ignore[misc]
    assert await using.addresses(first) == NoRoute(routes.PRIVATE_ONLY)
    assert await using.addresses(second) == HOUSES["a.test"]
    allowed = replace(using, allow_private=True)
    assert await led_to(allowed) == {"localhost.there.test": False, "a.test": False}


async def test_a_host_that_cannot_be_asked_about_stands_in_nobodys_way() -> None:
    mx = (MxHost(10, "gone.test"), MxHost(10, "broken.test"), MxHost(20, "a.test"))
    using = router({"there.test": mx}, HOUSES, own=OURS, broken=frozenset({"broken.test"}))
    route = await using.route("there.test")
    assert not isinstance(route, NoRoute)
    assert await using.addresses(route[-1]) == HOUSES["a.test"]


async def test_a_host_whose_name_servers_hang_holds_up_the_others_for_seconds_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class HangingResolver(FakeResolver):
        async def addresses(self, host: str) -> Addresses:
            if host == "hangs.test":
                await asyncio.Event().wait()
            return await super().addresses(host)

    monkeypatch.setattr(routes, "RIVALS_TIMEOUT_S", 0.01)
    mx = {"there.test": (MxHost(10, "hangs.test"), MxHost(20, "a.test"))}
    using = replace(router(), resolver=HangingResolver(mx, HOUSES))
    route = await using.route("there.test")
    assert not isinstance(route, NoRoute)
    assert await using.addresses(route[1]) == HOUSES["a.test"]


async def test_a_configured_next_hop_that_is_we_waits_for_the_operator() -> None:
    using = router(addresses=HOUSES, own=OURS)
    assert await using.addresses(Hop("us.test", 25, configured=True)) == NoRoute(routes.NEXT_HOP_IS_OURSELVES)
    assert routes.NEXT_HOP_IS_OURSELVES.is_transient
    assert await using.addresses(Hop("us.test", 2525, configured=True)) == OURS


async def test_localhost_is_no_question_for_name_servers() -> None:
    using = router()
    assert await using.addresses(Hop("localhost", 25, configured=True)) == ("::1", "127.0.0.1")
    assert await using.addresses(Hop("localhost", 25, configured=False)) == NoRoute(routes.NO_MAIL_HOST)


@pytest.mark.conformance("C88")
async def test_an_address_in_place_of_a_hosts_name_is_taken_for_what_it_is() -> None:
    using = router({"there.test": (MxHost(10, "8.8.8.8"), MxHost(20, "10.0.0.1"))})
    first, second = await using.route("there.test")  # type: ignore[misc]
    assert await using.addresses(first) == ("8.8.8.8",)
    assert await using.addresses(second) == NoRoute(routes.PRIVATE_ONLY)


@pytest.mark.conformance("C84")
async def test_three_hundred_deliveries_to_three_equal_hosts() -> None:
    using = router({"there.test": tuple(MxHost(10, name) for name in ("a.test", "b.test", "c.test"))}, seed=84)
    orders = [tuple(await names(using)) for _delivery in range(300)]
    assert len(set(orders)) == 6
    for place in range(3):
        seen = Counter(order[place] for order in orders)
        # Two degrees of freedom: chance exceeds 13.8 once in a thousand times.
        assert sum((seen[name] - 100) ** 2 / 100 for name in ("a.test", "b.test", "c.test")) < 13.8


@pytest.mark.parametrize(
    ("host", "address", "told"),
    [
        ("mx.far.test", "192.0.2.2", "mx.far.test (192.0.2.2)"),
        ("192.0.2.2", "192.0.2.2", "192.0.2.2"),
        ("[2001:db8::2]", "2001:db8::2", "2001:db8::2"),
    ],
)
def test_an_address_is_told_once(host: str, address: str, told: str) -> None:
    assert Hop(host, 25, configured=True).at(address) == told
