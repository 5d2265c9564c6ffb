"""Where forward-paths lead: aliases, loops, limits, postmaster."""

from __future__ import annotations

import asyncio

import pytest

from posthouse.admission.routing import EXPANSION_DEPTH, EXPANSION_TARGETS, Home, Routed, route
from posthouse.mail.account import Expansion, Identity, Mailbox, Remote, Resolution, Unavailable, Unknown
from posthouse.mail.address import Address, parse_address
from posthouse.mail.ids import AccountId

HOSTNAME = "mx.here.test"


class Names:
    """A directory in memory for the domain here.test: people by number, aliases by targets."""

    def __init__(self, people: tuple[str, ...] = (), aliases: dict[str, tuple[str, ...]] | None = None) -> None:
        self._people = {parse_address(p).key: Mailbox(AccountId(n), p) for n, p in enumerate(people, start=1)}
        self._aliases = {
            parse_address(alias).key: tuple(parse_address(t) for t in targets)
            for alias, targets in (aliases or {}).items()
        }
        self.unavailable: set[str] = set()
        self.used: dict[AccountId, int] = {}
        self.system_logins: list[str] = []
        self.elsewhere: dict[str, Identity] = {}

    async def resolve(self, forward_path: Address) -> Resolution:
        key = forward_path.key
        if key in self.unavailable:
            return Unavailable()
        if forward_path.domain not in await self.domains():
            return Remote(forward_path.domain)
        if key in self._aliases:
            return Expansion(self._aliases[key])
        return self._people.get(key, Unknown())

    async def domains(self) -> tuple[str, ...]:
        return ("here.test",)

    async def used_octets(self, account: AccountId) -> int:
        return self.used.get(account, 0)

    async def system_maildrop(self, login: Address, now: float) -> AccountId:
        self.system_logins.append(str(login))
        return AccountId(99)

    async def identity(self, address: Address) -> Identity | None:
        return self.elsewhere.get(address.key)

    async def identities(self, account: AccountId) -> tuple[Address, ...]:
        return tuple(parse_address(m.login) for m in self._people.values() if m.account == account)


async def routed(names: Names, forward_path: str, postmaster: str | None = "ada@here.test") -> Routed:
    local_part, _, domain = forward_path.rpartition("@") if "@" in forward_path else (forward_path, "", "")
    owner = parse_address(postmaster) if postmaster else None
    return await route(names, Address(local_part, domain), Home(hostname=HOSTNAME, postmaster=owner))


PEOPLE = ("ada@here.test", "bob@here.test")


@pytest.mark.conformance("C83")
async def test_an_alias_loop_ends_and_each_end_comes_once() -> None:
    names = Names(
        PEOPLE,
        {
            "a@here.test": ("b@here.test", "ada@here.test", "x@far.test"),
            "b@here.test": ("a@here.test", "ADA@here.test", "x@FAR.test", "bob@here.test"),
        },
    )
    found = await routed(names, "a@here.test")
    assert sorted(found.mailboxes) == [1, 2]
    assert list(found.remotes) == ["x@far.test"]
    assert found.is_alias
    assert not found.too_large


@pytest.mark.conformance("C25")
async def test_case_that_means_something_elsewhere_is_kept_apart() -> None:
    """Only the host that has a mailbox knows whether `Ann` and `ann` are one (RFC 5321 §2.4)."""
    targets = ("Ann@far.test", "ann@FAR.test", '"ann"@far.test', "ANN@far.test")
    found = await routed(Names(PEOPLE, {"a@here.test": targets}), "a@here.test")
    assert list(map(str, found.remotes.values())) == ["Ann@far.test", "ann@far.test", "ANN@far.test"]


@pytest.mark.conformance("C287", "S15", "S26")
async def test_a_large_alias_lets_others_have_their_turn() -> None:
    """Followed in one go, RCPTs to it, sent ahead, stopped the house for as long as they lasted."""
    names = Names(PEOPLE, {"team@here.test": tuple(f"x{number}@far.test" for number in range(900))})
    turns = 0
    async with asyncio.TaskGroup() as group:
        following = group.create_task(routed(names, "team@here.test"))
        while not following.done():
            turns += 1
            await asyncio.sleep(0)
    assert len(following.result().remotes) == 900
    assert turns > 20


async def test_an_alias_to_itself_leads_nowhere() -> None:
    found = await routed(Names((), {"a@here.test": ("a@here.test",)}), "a@here.test")
    assert found.leads_nowhere
    assert found.is_alias


async def test_an_expansion_is_followed_to_its_limit_and_refused_beyond() -> None:
    for count, too_large in ((EXPANSION_TARGETS, False), (EXPANSION_TARGETS + 1, True)):
        names = Names((), {"all@here.test": tuple(f"x{n}@far.test" for n in range(count))})
        found = await routed(names, "all@here.test")
        assert found.too_large is too_large, "mail for some of them would be lost"
        assert too_large or len(found.remotes) == count


async def test_a_chain_of_aliases_is_followed_to_its_limit_and_refused_beyond() -> None:
    for length, too_large in ((EXPANSION_DEPTH, False), (EXPANSION_DEPTH + 1, True)):
        chain = {f"a{n}@here.test": (f"a{n + 1}@here.test",) for n in range(length)}
        names = Names((f"a{length}@here.test",), chain)
        found = await routed(names, "a0@here.test")
        assert found.too_large is too_large
        assert bool(found.mailboxes) is not too_large


@pytest.mark.conformance("C41")
async def test_an_unavailable_target_makes_the_whole_unavailable() -> None:
    names = Names(PEOPLE, {"a@here.test": ("ada@here.test", "bob@here.test")})
    names.unavailable = {"bob@here.test"}
    assert (await routed(names, "a@here.test")).unavailable


@pytest.mark.conformance("C26")
@pytest.mark.parametrize(
    "spelling",
    [
        "Postmaster",
        "postmaster",
        "POSTMASTER@here.test",
        '"postmaster"@here.test',
        '"Post\\master"@here.test',
        f"postmaster@{HOSTNAME}",
    ],
)
async def test_postmaster_is_there_however_it_is_spelled(spelling: str) -> None:
    assert list((await routed(Names(PEOPLE), spelling)).mailboxes) == [1]


async def test_an_own_mailbox_or_alias_named_postmaster_comes_first() -> None:
    assert list((await routed(Names(("x@here.test", "postmaster@here.test")), "postmaster@here.test")).mailboxes) == [2]
    aliased = Names(PEOPLE, {"postmaster@here.test": ("bob@here.test",)})
    assert list((await routed(aliased, "postmaster@here.test")).mailboxes) == [2]


@pytest.mark.parametrize("postmaster", [None, "postmaster@here.test"])
async def test_a_house_without_a_postmaster_keeps_his_mail(postmaster: str | None) -> None:
    found = await routed(Names(PEOPLE), "postmaster@here.test", postmaster)
    assert found.unread
    assert not found.unavailable


async def test_the_postmaster_of_others_is_theirs() -> None:
    assert list((await routed(Names(PEOPLE), "postmaster@far.test")).remotes) == ["postmaster@far.test"]


async def test_nobody_but_postmaster_lives_at_the_host_name_itself() -> None:
    assert list((await routed(Names(PEOPLE), f"ada@{HOSTNAME}")).remotes) == [f"ada@{HOSTNAME}"]


# Roles, literals.


@pytest.mark.conformance("C233")
@pytest.mark.parametrize("spelling", ["abuse@here.test", "AbUsE@here.test", '"abuse"@here.test', f"abuse@{HOSTNAME}"])
async def test_abuse_is_read_by_the_postmaster(spelling: str) -> None:
    assert list((await routed(Names(PEOPLE), spelling)).mailboxes) == [1]
    assert (await routed(Names(PEOPLE), spelling, postmaster=None)).unread
    own = Names(PEOPLE, {"postmaster@here.test": ("bob@here.test",)})
    assert list((await routed(own, "abuse@here.test")).mailboxes) == [2]
    own = Names((*PEOPLE, "abuse@here.test"))
    assert list((await routed(own, "abuse@here.test")).mailboxes) == [3]


@pytest.mark.conformance("C233")
async def test_other_roles_are_there_when_configured() -> None:
    for name in ("hostmaster", "webmaster", "security"):
        address = parse_address(f"{name}@here.test")
        without = Home(hostname=HOSTNAME, postmaster=parse_address("ada@here.test"))
        assert (await route(Names(PEOPLE), address, without)).leads_nowhere
        home = Home(hostname=HOSTNAME, postmaster=parse_address("ada@here.test"), roles=frozenset({name}))
        assert list((await route(Names(PEOPLE), address, home)).mailboxes) == [1]


@pytest.mark.conformance("C26")
async def test_a_postmaster_who_leads_nowhere_is_kept_and_no_other() -> None:
    names = Names((), {"postmaster@here.test": ("abuse@here.test",), "abuse@here.test": ("postmaster@here.test",)})
    for spelling in ("postmaster@here.test", "abuse@here.test", "Postmaster", f"postmaster@{HOSTNAME}"):
        assert (await routed(names, spelling, "gone@here.test")).unread, spelling
    for spelling in ("post@here.test", "postmaster+x@here.test", "postma\u017fter@here.test"):
        found = await routed(names, spelling, "gone@here.test")
        assert found.leads_nowhere
        assert not found.unread, spelling
    assert not (await routed(names, "postmaster@far.test")).unread


@pytest.mark.conformance("C28", "C282")
@pytest.mark.parametrize(
    ("spelling", "local_address", "ours"),
    [
        ("ada@[192.0.2.1]", "", True),
        ("ada@[192.0.2.2]", "192.0.2.2", True),
        ("ada@[192.0.2.2]", "::ffff:192.0.2.2", True),
        ("ada@[IPv6:2001:DB8::0:1]", "", True),
        ("ada@[ipv6:::ffff:192.0.2.1]", "", True),
        ("ada@[IPv6:2001:db8::2]", "2001:db8::2", True),
        ("ada+x@[192.0.2.1]", "", True),
        ("postmaster@[192.0.2.1]", "", True),
        ("abuse@[192.0.2.1]", "", True),
        ("ada@[192.0.2.77]", "192.0.2.2", False),
        ("ada@[IPv6:2001:db8::77]", "", False),
        ("ada@[Tag:192.0.2.1]", "", False),
        ("postmaster@[192.0.2.77]", "", False),
    ],
)
async def test_the_houses_own_addresses_are_its_domain(spelling: str, local_address: str, ours: bool) -> None:
    class WithDetail(Names):
        async def resolve(self, forward_path: Address) -> Resolution:
            return await super().resolve(Address(forward_path.local_part.partition("+")[0], forward_path.domain))

    home = Home(
        hostname=HOSTNAME,
        postmaster=parse_address("ada@here.test"),
        literals=frozenset({"192.0.2.1", "2001:db8::1"}),
    )
    address = parse_address(spelling)
    found = await route(WithDetail(PEOPLE), address, home, local_address=local_address)
    assert list(found.mailboxes) == ([1] if ours else [])
    assert bool(found.remotes) is not ours


async def test_at_the_houses_address_nobody_is_unknown_and_not_elsewhere() -> None:
    home = Home(hostname=HOSTNAME, postmaster=None)
    found = await route(Names(PEOPLE), parse_address("x@[192.0.2.1]"), home, local_address="192.0.2.1")
    assert found.leads_nowhere
    assert not found.unread
