"""Content: drafts, sealing, discarding, reading."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from posthouse.mail.content import ContentFacts
from posthouse.mail.ids import ContentId
from tests.storage.contract.world import House, whole

SIZES = (0, 1, 4096, 64 * 1024, 64 * 1024 + 1, 128 * 1024 - 1, 128 * 1024, 300_001)


@pytest.mark.parametrize("size_octets", SIZES)
async def test_content_is_read_as_it_was_written(house: House, size_octets: int) -> None:
    octets = house.chance.octets(size_octets)
    account = await house.account()
    await house.accept(octets, to=[account])
    listing = await house.storage.maildrops.list(account)
    assert await whole(house.storage.content.open(listing.content_ids[0])) == octets
    stored = await whole(house.storage.maildrops.read(account, listing.uids[0]))
    assert stored.endswith(octets)
    assert len(stored) == listing.sizes_octets[0]


async def test_sealed_content_knows_its_size_and_digest(house: House) -> None:
    draft = await house.storage.content.draft()
    for chunk in (b"a" * 100_000, b"b" * 100_000):
        await draft.write(chunk)
    assert draft.size_octets == 200_000
    facts = ContentFacts(message_id="<1@x>")
    sealed = await draft.seal(facts)
    octets = b"a" * 100_000 + b"b" * 100_000
    assert (sealed.size_octets, sealed.sha256, sealed.facts) == (200_000, hashlib.sha256(octets).digest(), facts)


@pytest.mark.parametrize("size_octets", [10, 200_000])
async def test_discard_is_safe_at_any_time(house: House, size_octets: int) -> None:
    account = await house.account()
    for sealed_first in (False, True):
        draft = await house.storage.content.draft()
        await draft.write(b"x" * size_octets)
        if sealed_first:
            await draft.seal(ContentFacts())
        await draft.discard()
        await draft.discard()
    draft = await house.storage.content.draft()
    await draft.write(b"x" * size_octets)
    acceptance = await house.acceptance(to=[account])
    await house.storage.accept(dataclasses.replace(acceptance, content=await draft.seal(ContentFacts())))
    await draft.discard()
    uid = (await house.storage.maildrops.list(account)).uids[0]
    assert len(await whole(house.storage.maildrops.read(account, uid))) > size_octets


async def test_unknown_content_is_a_key_error(house: House) -> None:
    with pytest.raises(KeyError):
        await whole(house.storage.content.open(ContentId(12345)))


async def test_content_is_shared_by_all_entries_of_a_message(house: House) -> None:
    from tests.storage.contract.world import alice, bob

    first, second = await house.account(alice), await house.account(bob)
    await house.accept(to=[first, second])
    ids = [(await house.storage.maildrops.list(account)).content_ids for account in (first, second)]
    assert ids[0] == ids[1]
