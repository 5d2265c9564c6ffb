"""Directory and administration: who is there, and what contradicts it."""

from __future__ import annotations

import pytest

from posthouse.mail.account import Expansion, Identity, Mailbox, NewAccount, Remote, Unknown
from posthouse.mail.address import Address, parse_address
from posthouse.storage.errors import DirectoryConflict
from tests.storage.contract.world import House, alice, bob, sender

SPELLINGS = (
    "alice@house.test",
    "ALICE@HOUSE.TEST",
    '"alice"@house.test',
    "alice+lists@house.test",
    "Alice+a+b@house.test",
)


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_every_spelling_leads_to_the_mailbox(house: House, spelling: str) -> None:
    account = await house.account()
    assert await house.storage.directory.resolve(parse_address(spelling)) == Mailbox(account, "alice@house.test")


@pytest.mark.parametrize("spelling", ["bob@house.test", "+alice@house.test", "al@house.test", "postmaster@house.test"])
async def test_what_is_not_there_is_unknown(house: House, spelling: str) -> None:
    await house.account()
    assert await house.storage.directory.resolve(parse_address(spelling)) == Unknown()
    assert await house.storage.directory.resolve(Address("Postmaster", "")) == Unknown()


async def test_other_domains_are_remote(house: House) -> None:
    await house.account()
    for text in ("x@far.test", "x@sub.house.test", "x@[192.0.2.1]"):
        address = parse_address(text)
        assert await house.storage.directory.resolve(address) == Remote(address.domain)


async def test_non_ascii_local_parts_are_equal_in_nfc(house: House) -> None:
    account = await house.account(parse_address("jürgen@house.test"))
    found = await house.storage.directory.resolve(parse_address("ju\u0308rgen@house.test"))
    assert isinstance(found, Mailbox)
    assert found.account == account


async def test_aliases_lead_to_their_targets_in_order(house: House) -> None:
    await house.account()
    sales = parse_address("Sales@house.test")
    await house.storage.administration.add_alias(sales, [sender, alice])
    for spelling in ("sales@house.test", "sales+x@house.test"):
        assert await house.storage.directory.resolve(parse_address(spelling)) == Expansion((sender, alice))
    assert await house.storage.administration.aliases() == ((sales, (sender, alice)),)
    await house.storage.administration.remove_alias(parse_address("SALES@house.test"))
    assert await house.storage.directory.resolve(sales) == Unknown()
    assert await house.storage.administration.aliases() == ()


async def test_a_catch_all_takes_what_nobody_has(house: House) -> None:
    account = await house.account(quota_octets=0)
    everything = Address("", alice.domain)
    await house.storage.administration.add_alias(everything, [alice])
    resolve = house.storage.directory.resolve
    for spelling in ("anybody@house.test", "any+body@house.test", '""@house.test', '"@"@house.test'):
        assert await resolve(parse_address(spelling)) == Expansion((alice,)), spelling
    for spelling in ("alice@house.test", "alice+any@house.test"):
        assert await resolve(parse_address(spelling)) == Mailbox(account, str(alice), 0)
    assert await house.storage.administration.aliases() == ((everything, (alice,)),)
    await house.storage.administration.remove_account(str(alice), keep_mail=False, now=1.0)
    with pytest.raises(DirectoryConflict, match=r"posthouse alias remove @house\.test"):
        await house.storage.administration.remove_domain("house.test")
    await house.storage.administration.remove_alias(everything)
    assert await resolve(parse_address("anybody@house.test")) == Unknown()


async def test_an_empty_quoted_local_part_is_no_second_name_for_the_catch_all(house: House) -> None:
    await house.account()
    with pytest.raises(DirectoryConflict, match=r"@house\.test"):
        await house.storage.administration.add_alias(parse_address('""@house.test'), [alice])


async def test_a_system_maildrop_is_made_once_and_has_no_address(house: House) -> None:
    login = parse_address("postmaster@mx.house.test")
    first = await house.storage.administration.system_maildrop(login, 1.0)
    assert await house.storage.administration.system_maildrop(login, 2.0) == first
    found = await house.storage.directory.account(str(login))
    assert found is not None
    assert (found.account, found.quota_octets, found.credentials) == (first, None, ())
    assert await house.storage.directory.resolve(login) == Remote("mx.house.test")
    await house.accept(to=[first])
    assert len(await house.storage.maildrops.list(first)) == 1
    await house.storage.administration.set_password(str(login), "verifier", 3.0)
    await house.storage.administration.add_domain("mx.house.test")
    with pytest.raises(DirectoryConflict, match=r"posthouse account password postmaster@mx\.house\.test"):
        await house.storage.administration.add_account(login, verifier="v", quota_octets=None, now=4.0)


async def test_local_domains_in_order(house: House) -> None:
    await house.account()
    await house.storage.administration.add_domain("another.test")
    assert await house.storage.directory.domains() == ("another.test", "house.test")


async def test_an_account_by_its_login(house: House) -> None:
    account = await house.account(quota_octets=1000)
    found = await house.storage.directory.account("ALICE@house.test")
    assert found is not None
    assert (found.account, found.login, found.quota_octets, found.suspended) == (account, str(alice), 1000, False)
    assert [(c.kind, c.verifier) for c in found.credentials] == [("password", "$argon2id$first")]
    for login in ("bob@house.test", "alice", "", "' OR 1=1 --", "\x00"):
        assert await house.storage.directory.account(login) is None


async def test_identities_are_own_addresses_and_aliases(house: House) -> None:
    account = await house.account()
    sales = parse_address("sales@house.test")
    await house.storage.administration.add_alias(sales, [alice, sender])
    await house.storage.administration.add_alias(parse_address("away@house.test"), [sender])
    assert await house.storage.directory.identities(account) == (alice, sales)


async def test_an_identity_elsewhere_belongs_to_one_account(house: House) -> None:
    account = await house.account()
    await house.account(bob)
    directory, administration = house.storage.directory, house.storage.administration
    elsewhere = parse_address("Alice@far.test")
    await administration.add_identity(elsewhere, "ALICE@house.test", "mail.far.test:587")
    await administration.add_identity(parse_address("bob@far.test"), str(bob))
    whole = Identity(address=elsewhere, account=account, login=str(alice), via="mail.far.test:587")
    for spelling in ("alice@far.test", '"ALICE"@FAR.test'):
        assert await directory.identity(parse_address(spelling)) == whole
    for spelling in ("alice+x@far.test", "alice@house.test", "x@far.test", "alice@sub.far.test"):
        assert await directory.identity(parse_address(spelling)) is None
    assert [(str(each.address), each.login, each.via) for each in await administration.identities()] == [
        ("Alice@far.test", "alice@house.test", "mail.far.test:587"),
        ("bob@far.test", "bob@house.test", ""),
    ]
    assert await directory.identities(account) == (alice, elsewhere)
    # It is no address of ours: mail to it goes where that house is.
    assert await directory.resolve(elsewhere) == Remote("far.test")
    await administration.remove_identity(parse_address("ALICE@far.test"))
    assert await directory.identity(elsewhere) is None
    assert await directory.identities(account) == (alice,)


async def test_an_identity_goes_with_its_account(house: House) -> None:
    await house.account()
    elsewhere = parse_address("alice@far.test")
    await house.storage.administration.add_identity(elsewhere, str(alice))
    other = await house.open_another()
    assert await other.directory.identity(elsewhere) is not None
    await house.storage.administration.remove_account(str(alice), keep_mail=True, now=1.0)
    assert await other.directory.identity(elsewhere) is None
    assert await house.storage.administration.identities() == ()


async def test_identities_that_cannot_be(house: House) -> None:
    await house.account()
    await house.account(bob)
    administration = house.storage.administration
    elsewhere = parse_address("alice@far.test")
    await administration.add_identity(elsewhere, str(alice))
    attempts = {
        "alice@far.test is an identity of alice@house.test already; run: posthouse identity remove alice@far.test": (
            lambda: administration.add_identity(parse_address("ALICE@far.test"), str(bob))
        ),
        "run: posthouse alias add info@house.test alice@house.test": (
            lambda: administration.add_identity(parse_address("info@house.test"), str(alice))
        ),
        "an IP address": lambda: administration.add_identity(parse_address("a@[192.0.2.1]"), str(alice)),
        "no account x@house.test": lambda: administration.add_identity(parse_address("y@far.test"), "x@house.test"),
        "no identity bob@far.test; see: posthouse identity list": (
            lambda: administration.remove_identity(parse_address("bob@far.test"))
        ),
        "posthouse identity remove alice@far.test": lambda: administration.add_domain("FAR.test"),
    }
    for words, attempt in attempts.items():
        with pytest.raises(DirectoryConflict) as caught:
            await attempt()
        assert words in str(caught.value)
    assert await house.storage.directory.domains() == ("house.test",)
    assert [each.address for each in await administration.identities()] == [elsewhere]


async def test_changes_by_another_process_are_seen_at_once(house: House) -> None:
    await house.account()
    assert await house.storage.directory.resolve(bob) == Unknown()
    assert await house.storage.directory.account(str(alice)) is not None
    other = await house.open_another()
    added = await other.administration.add_account(bob, verifier="v", quota_octets=None, now=1.0)
    assert await house.storage.directory.resolve(bob) == Mailbox(added, str(bob))
    await other.administration.set_suspended(str(alice), True)
    suspended = await house.storage.directory.account(str(alice))
    assert suspended is not None
    assert suspended.suspended
    await other.administration.set_password(str(alice), "$argon2id$second", 2.0)
    changed = await house.storage.directory.account(str(alice))
    assert changed is not None
    assert [credential.verifier for credential in changed.credentials] == ["$argon2id$second"]


async def test_a_removed_account_is_gone_and_its_number_is_not_used_again(house: House) -> None:
    first = await house.account()
    await house.accept(to=[first])
    await house.storage.administration.remove_account(str(alice), keep_mail=False, now=1.0)
    assert await house.storage.directory.resolve(alice) == Unknown()
    assert await house.storage.directory.account(str(alice)) is None
    assert await house.storage.administration.accounts() == ()
    assert len(await house.storage.maildrops.list(first)) == 0
    second = await house.account()
    assert second > first
    assert len(await house.storage.maildrops.list(second)) == 0


async def test_mail_of_a_removed_account_can_be_kept(house: House) -> None:
    account = await house.account()
    await house.accept(to=[account])
    await house.storage.administration.remove_account(str(alice), keep_mail=True, now=1.0)
    assert len(await house.storage.maildrops.list(account)) == 1


async def test_summaries_count_messages_and_octets(house: House) -> None:
    account = await house.account(quota_octets=10)
    await house.account(bob)
    await house.accept(to=[account])
    first, second = await house.storage.administration.accounts()
    assert (first.login, first.message_count, first.quota_octets) == (str(alice), 1, 10)
    assert first.used_octets == await house.storage.maildrops.used_octets(account)
    assert (second.login, second.message_count, second.used_octets) == (str(bob), 0, 0)


async def test_domains_are_listed_in_one_spelling(house: House) -> None:
    await house.storage.administration.add_domain("Z.test")
    await house.storage.administration.add_domain("bücher.test")
    assert await house.storage.administration.domains() == ("xn--bcher-kva.test", "z.test")
    await house.storage.administration.remove_domain("z.TEST")
    assert await house.storage.administration.domains() == ("xn--bcher-kva.test",)


async def test_conflicts_say_what_to_do(house: House) -> None:
    administration = house.storage.administration
    with pytest.raises(DirectoryConflict, match=r"run: posthouse domain add house\.test"):
        await administration.add_account(alice, verifier="v", quota_octets=None, now=1.0)
    await house.account()
    team = parse_address("team@house.test")
    await administration.add_alias(team, [alice])
    attempts = {
        '"ALICE"@house.test already': lambda: house.account(parse_address('"ALICE"@house.test')),
        "team@house.test already": lambda: house.account(team),
        "the domain house.test is there already": lambda: administration.add_domain("HOUSE.test"),
        "posthouse account remove alice@house.test": lambda: administration.remove_domain("house.test"),
        "domain add far.test": lambda: administration.add_alias(sender, [alice]),
        "leads to itself": lambda: administration.add_alias(bob, [parse_address("BOB@house.test")]),
        "at least one target": lambda: administration.add_alias(bob, []),
        "an account alice@house.test already": lambda: administration.add_alias(alice, [bob]),
        "an alias team@house.test already": lambda: administration.add_alias(team, [bob]),
        "no account bob@house.test": lambda: administration.set_password(str(bob), "v", 1.0),
        "no account x": lambda: administration.set_suspended("x", True),
        "no account far": lambda: administration.remove_account("far", keep_mail=False, now=1.0),
        "no alias bob@house.test": lambda: administration.remove_alias(bob),
        "no account y": lambda: administration.set_quota("y", None),
        "gone.test is not local; see: posthouse domain list": lambda: administration.remove_domain("gone.test"),
        "is not a domain": lambda: administration.add_domain("no domain"),
        "address literal": lambda: administration.add_domain("[192.0.2.1]"),
    }
    for words, attempt in attempts.items():
        with pytest.raises(DirectoryConflict) as caught:
            await attempt()
        assert words in str(caught.value)
    await administration.remove_account(str(alice), keep_mail=True, now=1.0)
    with pytest.raises(DirectoryConflict, match=r"posthouse alias remove team@house\.test"):
        await administration.remove_domain("house.test")


def moved(line: int, name: str, *aliases: str, suspended: bool = False) -> NewAccount:
    return NewAccount(
        line=line,
        address=parse_address(f"{name}@house.test"),
        verifier=f"hash of {name}",
        quota_octets=None,
        suspended=suspended,
        aliases=tuple(parse_address(f"{alias}@house.test") for alias in aliases),
    )


@pytest.mark.parametrize(
    ("skip_errors", "dry_run", "there"),
    [(False, False, False), (True, False, True), (False, True, False), (True, True, False)],
)
async def test_accounts_are_imported_all_or_good_ones(
    house: House, skip_errors: bool, dry_run: bool, there: bool
) -> None:
    """An account is taken with its aliases or not at all."""
    await house.account()
    new = [moved(1, "carol", "c", suspended=True), moved(2, "dan", "d", "alice"), moved(3, "alice"), moved(4, "c")]
    problems = await house.storage.administration.import_accounts(
        new, now=1.0, skip_errors=skip_errors, dry_run=dry_run
    )
    assert [problem.line for problem in problems] == [2, 3, 4]
    assert "alice@house.test already" in problems[0].text
    carol = await house.storage.directory.account("carol@house.test")
    assert (carol is not None) is there
    assert carol is None or (carol.suspended and carol.credentials[0].verifier == "hash of carol")
    assert await house.storage.directory.account("dan@house.test") is None
    assert await house.storage.directory.resolve(parse_address("d@house.test")) == Unknown()
    assert (await house.storage.directory.resolve(parse_address("c@house.test")) != Unknown()) is there
