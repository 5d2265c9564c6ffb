"""Whom a login may send as: whatever comes to it, by the look-up that delivers."""

from __future__ import annotations

from pathlib import Path

import pytest

from posthouse.admission.identities import may_send_as
from posthouse.admission.routing import Home
from posthouse.engines import open_storage
from posthouse.mail.address import Address, parse_address
from posthouse.mail.ids import AccountId
from posthouse.storage.errors import StorageBusy
from posthouse.world import World
from tests.admission.test_routing import Names
from tests.running_house import house_config

HOME = Home(hostname="mx.here.test", postmaster=parse_address("ada@here.test"))

ADAS = [
    "ada@here.test",
    "ADA@HERE.TEST",
    '"ada"@here.test',
    '"a\\da"@here.test',
    "ada+news@here.test",
    "info@here.test",
    "Info+x@here.test",
    "team@here.test",
    "anybody@all.test",
    "\u212aelvin@all.test",
    "ada@b\u00fccher.test",
    "ada@xn--bcher-kva.test",
    "ada@bu\u0308cher.test",
    "postmaster@here.test",
    "abuse@here.test",
    "postmaster@mx.here.test",
]
NOT_ADAS = [
    "bob@here.test",
    "bob+ada@here.test",
    "bob@all.test",
    "ada@far.test",
    "ada@mx.here.test",
    "ada@sub.here.test",
    "xada@here.test",
    "ada.x@here.test",
    '"ada@here.test"@far.test',
    '"ada@here.test"@here.test',
    "ada@[127.0.0.1]",
    "nobody@here.test",
    # Letters that a laxer comparison takes for others: long s, dotless i, dotted I, Cyrillic a, fullwidth a.
    "\u0430da@here.test",
    "\uff41da@here.test",
    "ada@h\u0435re.test",
    "\u017fam@here.test",
    "n\u0131na@here.test",
    "n\u0130na@here.test",
    "sam@here.test",
    "nina@here.test",
    "stra\u00dfe@here.test",
]


@pytest.fixture
async def storage(tmp_path: Path):  # type: ignore[no-untyped-def]
    storage = await open_storage(house_config(tmp_path), World(), create=True)
    administration = storage.administration
    for domain in ("here.test", "all.test", "xn--bcher-kva.test"):
        await administration.add_domain(domain)
    for login in ("ada@here.test", "bob@here.test", "sam@here.test", "nina@here.test", "strasse@here.test"):
        await administration.add_account(parse_address(login), verifier="v", quota_octets=None, now=0.0)
    for alias, *targets in (
        ("info@here.test", "ada+tag@here.test"),
        ("team@here.test", "x@far.test", "bob@here.test", "ADA@here.test"),
        ("bob@all.test", "bob@here.test"),
        ("ada@b\u00fccher.test", "ada@here.test"),
    ):
        await administration.add_alias(parse_address(alias), [parse_address(target) for target in targets])
    await administration.add_alias(Address("", "all.test"), [parse_address("ada@here.test")])
    yield storage
    await storage.close()


async def _may(storage, login: str, address: str) -> bool:  # type: ignore[no-untyped-def]
    account = await storage.directory.account(login)
    return await may_send_as(storage.directory, account.account, parse_address(address), HOME)


@pytest.mark.conformance("C115", "C200", "C318")
async def test_what_comes_to_a_login_it_may_send_as(storage) -> None:  # type: ignore[no-untyped-def]
    assert [address for address in ADAS if not await _may(storage, "ada@here.test", address)] == []


@pytest.mark.conformance("C115", "C200", "C318")
async def test_and_nothing_else(storage) -> None:  # type: ignore[no-untyped-def]
    assert [address for address in NOT_ADAS if await _may(storage, "ada@here.test", address)] == []


@pytest.mark.conformance("C318")
async def test_letters_that_fold_to_others_in_other_alphabets(storage) -> None:  # type: ignore[no-untyped-def]
    """lower() and casefold() take these for the names of sam, nina and strasse; the look-up that delivers does not."""
    for login, bypass in (
        ("sam@here.test", "\u017fam@here.test"),
        ("nina@here.test", "n\u0131na@here.test"),
        ("nina@here.test", "n\u0130na@here.test"),
        ("strasse@here.test", "stra\u00dfe@here.test"),
    ):
        assert await _may(storage, login, login)
        assert not await _may(storage, login, bypass), bypass
        assert (await storage.directory.resolve(parse_address(bypass))).__class__.__name__ == "Unknown"


async def test_a_directory_that_cannot_say_is_no_refusal() -> None:
    names = Names(("ada@here.test",))
    names.unavailable.add("ada@here.test")
    with pytest.raises(StorageBusy):
        await may_send_as(names, AccountId(1), parse_address("ada@here.test"), HOME)
