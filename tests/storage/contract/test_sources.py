"""Sources, and what is remembered of what was collected from them."""

from __future__ import annotations

import dataclasses

import pytest

from posthouse.mail.acceptance import Acceptance, Collected
from posthouse.mail.account import Identity, Submission, own_via
from posthouse.mail.address import parse_address
from posthouse.mail.ids import AccountId
from posthouse.mail.maildrop import MaildropLock
from posthouse.mail.source import (
    Keeping,
    Mechanism,
    Policy,
    Protection,
    Server,
    Source,
    SourceSettings,
    SourceState,
)
from posthouse.storage.errors import DirectoryConflict
from tests.storage.contract.engines import kill
from tests.storage.contract.world import House

FAR = parse_address("Alice@far.test")


def settings(account: AccountId, address: str = "Alice@far.test") -> SourceSettings:
    return SourceSettings(
        address=parse_address(address),
        account=account,
        server=Server("pop.far.test", 995, Protection.IMPLICIT),
        login="alice",
        secret="file:alice",
    )


async def source_of(house: House) -> Source:
    await house.storage.sources.add(settings(await house.account()))
    source = await house.storage.sources.find(FAR)
    assert source is not None
    return source


async def collect(
    house: House, source: Source, uidl: str, octets: bytes = b"Subject: x\r\n\r\nhello\r\n"
) -> Acceptance:
    plain = await house.acceptance(octets, to=[source.settings.account])
    acceptance = dataclasses.replace(plain, collected=Collected(source.source, uidl, len(octets), b"print"))
    await house.storage.accept(acceptance)
    return acceptance


async def test_a_source_is_found_as_it_was_added(house: House) -> None:
    account = await house.account()
    wanted = dataclasses.replace(
        settings(account),
        mechanism=Mechanism.XOAUTH2,
        folder="Elsewhere",
        policy=Policy(Keeping.DAYS, 14),
        interval_s=60.0,
    )
    number = await house.storage.sources.add(wanted)
    await house.storage.sources.add(settings(account, "bob@another.test"))
    assert await house.storage.sources.find(parse_address("aLICE@FAR.test")) == Source(number, wanted, SourceState())
    assert [str(source.settings.address) for source in await house.storage.sources.all()] == [
        "bob@another.test",
        "Alice@far.test",
    ]


async def test_changes_are_of_a_source_that_is_there(house: House) -> None:
    source = await source_of(house)
    await house.storage.sources.note(source.source, SourceState(next_at=9e9, failures=3, failure="no", refused=True))
    changed = dataclasses.replace(source.settings, login="other")
    await house.storage.sources.change(changed)
    assert await house.storage.sources.find(FAR) == Source(source.source, changed, SourceState())
    await house.storage.sources.remove(FAR)
    assert await house.storage.sources.find(FAR) is None
    with pytest.raises(DirectoryConflict, match="no mail is collected from"):
        await house.storage.sources.change(changed)
    with pytest.raises(DirectoryConflict, match="no mail is collected from"):
        await house.storage.sources.remove(FAR)


async def test_an_address_is_collected_once(house: House) -> None:
    source = await source_of(house)
    with pytest.raises(DirectoryConflict, match=r"collected from Alice@far\.test already"):
        await house.storage.sources.add(source.settings)


def identity_of(account: AccountId, login: str) -> Identity:
    own = Submission(login="alice", secret="file:alice", mechanism=Mechanism.PASSWORD, protection=Protection.STARTTLS)
    via = own_via("smtp.far.test:587", FAR)
    return Identity(address=FAR, account=account, login=login, via=via, name="Alice Ä.", submission=own)


async def test_an_identity_comes_changes_and_goes_with_its_source(house: House) -> None:
    account, storage = await house.account(), house.storage
    wanted = identity_of(account, (await storage.administration.accounts())[0].login)
    assert await storage.directory.identity(FAR) is None
    await storage.sources.add(settings(account), wanted)
    assert await storage.directory.identity(FAR) == wanted
    assert await (await house.open_another()).administration.identities() == (wanted,)
    renamed = dataclasses.replace(wanted, name="", submission=None, via="smtp.far.test:465")
    await storage.sources.change(settings(account), renamed)
    assert await storage.directory.identity(FAR) == renamed
    await storage.sources.change(settings(account))
    assert await storage.directory.identity(FAR) == renamed
    await storage.sources.remove(FAR, identity=True)
    assert await storage.directory.identity(FAR) is None
    assert await storage.sources.all() == ()


async def test_a_source_whose_identity_cannot_be_is_not_added(house: House) -> None:
    account, storage = await house.account(), house.storage
    login = (await storage.administration.accounts())[0].login
    await storage.administration.add_identity(FAR, login)
    with pytest.raises(DirectoryConflict, match="is an identity of"):
        await storage.sources.add(settings(account), identity_of(account, login))
    assert await storage.sources.all() == ()
    await storage.sources.add(settings(account))
    with pytest.raises(DirectoryConflict):
        await storage.sources.remove(parse_address("nobody@far.test"), identity=True)
    assert len(await storage.sources.all()) == 1


async def test_a_change_makes_the_identity_that_is_missing(house: House) -> None:
    source = await source_of(house)
    login = (await house.storage.administration.accounts())[0].login
    await house.storage.sources.change(source.settings, identity_of(source.settings.account, login))
    found = await house.storage.directory.identity(FAR)
    assert found is not None
    assert found.name == "Alice Ä."


async def test_a_state_is_kept(house: House) -> None:
    source = await source_of(house)
    state = SourceState(collected_at=5.0, next_at=7.5, failures=2, failure="no answer", refused=True, empty=1)
    await house.storage.sources.note(source.source, state)
    again = await house.open_another()
    found = await again.sources.find(FAR)
    assert found is not None
    assert found.state == state


async def test_what_was_collected_is_known_with_its_message(house: House) -> None:
    source = await source_of(house)
    acceptance = await collect(house, source, "one")
    kill(house.storage)
    again = await house.open_another()
    (known,) = (await again.sources.known(source)).values()
    assert (known.uidl, known.queue_id, known.fingerprint) == ("one", acceptance.queue_id, b"print")
    assert (known.gone_at, known.here) == (None, True)
    assert len(await again.maildrops.list(source.settings.account)) == 1


async def test_the_same_message_is_not_collected_twice(house: House) -> None:
    source = await source_of(house)
    first = await collect(house, source, "one")
    await collect(house, source, "one")
    assert (await house.storage.maildrops.list(source.settings.account)).queue_ids == (first.queue_id,)


async def test_a_message_that_its_owner_deleted_is_known_but_not_here(house: House) -> None:
    source = await source_of(house)
    await collect(house, source, "one")
    account = source.settings.account
    lock = await house.storage.maildrops.lock(account)
    assert isinstance(lock, MaildropLock)
    assert await house.storage.maildrops.expunge(lock, (await house.storage.maildrops.list(account)).uids, ())
    assert not (await house.storage.sources.known(source))["one"].here
    await collect(house, source, "one")
    assert not await house.storage.maildrops.list(account)


async def test_names_that_are_gone_are_remembered_for_a_while(house: House) -> None:
    source = await source_of(house)
    for uidl in ("one", "two", "three"):
        await collect(house, source, uidl)
    sources, number = house.storage.sources, source.source
    await sources.note_listed(number, gone=["one", "two"], back=[], now=100.0, forget_before=0.0)
    await sources.note_listed(number, gone=["one", "two"], back=["two"], now=200.0, forget_before=50.0)
    known = await sources.known(source)
    assert {uidl: message.gone_at for uidl, message in known.items()} == {"one": 100.0, "three": None, "two": None}
    await sources.note_listed(number, gone=[], back=[], now=300.0, forget_before=150.0)
    assert sorted(await sources.known(source)) == ["three", "two"]


async def test_a_migrated_server_gives_other_names(house: House) -> None:
    source = await source_of(house)
    for uidl in ("one", "two"):
        await collect(house, source, uidl)
    await house.storage.sources.note_listed(source.source, gone=["one", "two"], back=[], now=1.0, forget_before=0.0)
    await house.storage.sources.rename(source.source, {"one": "uno", "two": "due"})
    known = await house.storage.sources.known(source)
    assert {uidl: message.gone_at for uidl, message in known.items()} == {"due": None, "uno": None}


async def test_an_account_that_is_removed_takes_its_sources_along(house: House) -> None:
    await source_of(house)
    await house.storage.administration.remove_account("alice@house.test", keep_mail=False, now=house.clock.now())
    assert not await house.storage.sources.all()


async def test_source_numbers_are_not_used_twice(house: House) -> None:
    source = await source_of(house)
    await house.storage.sources.remove(FAR)
    assert await house.storage.sources.add(source.settings) > source.source
    assert await house.storage.sources.known(source) == {}
