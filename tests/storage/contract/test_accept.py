"""`accept`: all of it or nothing, once."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from posthouse.mail.acceptance import Notify, Placement, Ret
from posthouse.mail.content import ContentFacts
from posthouse.mail.ids import AccountId, Uidl
from posthouse.storage.errors import AccountGone
from tests.storage.contract.world import ENTRY_PREFIX, PREFIX, House, accepted, alice, bob, settlement, whole


async def test_an_accepted_message_is_in_the_maildrop_octet_by_octet(house: House) -> None:
    account = await house.account()
    queue_id = await house.accept(b"Subject: x\r\n\r\n.body\r\n", to=[account])
    listing = await house.storage.maildrops.list(account)
    stored = ENTRY_PREFIX + PREFIX + b"Subject: x\r\n\r\n.body\r\n"
    assert listing.uids == (1,)
    assert listing.uidls == listing.queue_ids == (queue_id,)
    assert listing.sizes_octets == (len(stored),)
    assert await whole(house.storage.maildrops.read(account, listing.uids[0])) == stored
    assert await whole(house.storage.content.open(listing.content_ids[0])) == b"Subject: x\r\n\r\n.body\r\n"
    assert await house.storage.maildrops.used_octets(account) == len(stored)


async def test_repeating_an_acceptance_changes_nothing(house: House) -> None:
    account = await house.account()
    acceptance = await house.acceptance(to=[account], forwards=[house.forward()])
    acceptance = dataclasses.replace(acceptance, events=(accepted(acceptance.queue_id),))
    await house.storage.accept(acceptance)
    again = dataclasses.replace(acceptance, content=await house.content(b"other octets"))
    await house.storage.accept(again)
    await house.storage.accept(acceptance)
    assert len(await house.storage.maildrops.list(account)) == 1
    assert await house.storage.spool.count() == 1
    assert len(await house.storage.journey.read(acceptance.queue_id)) == 1


async def test_two_placements_in_one_maildrop_become_one_entry(house: House) -> None:
    account = await house.account()
    await house.accept(to=[account, account])
    assert len(await house.storage.maildrops.list(account)) == 1


async def test_nothing_is_there_when_one_account_is_gone(house: House) -> None:
    first, second = await house.account(alice), await house.account(bob)
    await house.storage.administration.remove_account(str(bob), keep_mail=False, now=1.0)
    acceptance = await house.acceptance(to=[first, second], forwards=[house.forward()])
    with pytest.raises(AccountGone):
        await house.storage.accept(acceptance)
    assert len(await house.storage.maildrops.list(first)) == 0
    assert await house.storage.maildrops.used_octets(first) == 0
    assert await house.storage.spool.count() == 0


async def test_an_account_that_never_was_is_gone(house: House) -> None:
    with pytest.raises(AccountGone):
        await house.storage.accept(await house.acceptance(to=[AccountId(99)]))


async def test_generated_acceptances_are_part_of_it(house: House) -> None:
    account = await house.account()
    report = await house.acceptance(b"report\r\n", to=[account], reverse_path=None)
    await house.storage.accept(await house.acceptance(forwards=[house.forward()], generated=(report,)))
    assert (await house.storage.maildrops.list(account)).queue_ids == (report.queue_id,)


async def test_a_generated_acceptance_that_fails_undoes_all(house: House) -> None:
    report = await house.acceptance(b"report\r\n", to=[AccountId(99)])
    with pytest.raises(AccountGone):
        await house.storage.accept(await house.acceptance(forwards=[house.forward()], generated=(report,)))
    assert await house.storage.spool.count() == 0


async def test_spool_rows_keep_what_an_attempt_must_know(house: House) -> None:
    facts = ContentFacts(
        longest_line_octets=998,
        eight_bit_header=True,
        eight_bit_body=True,
        dot_lines=True,
        received_fields=3,
        message_id="<é@x>",
    )
    forward = dataclasses.replace(
        house.forward(),
        reverse_path=None,
        original_recipient="rfc822;Bob@far.test",
        notify=frozenset({Notify.FAILURE, Notify.DELAY}),
        identity="alice@house.test",
    )
    silent = dataclasses.replace(house.forward(1), notify=frozenset({Notify.NEVER}))
    acceptance = await house.acceptance(forwards=[forward, silent])
    content = await house.content(b"octets", facts)
    acceptance = dataclasses.replace(
        acceptance, content=content, ret=Ret.HDRS, envelope_id="id+1", smtputf8=True, body="8BITMIME"
    )
    await house.storage.accept(acceptance)
    row, other = await house.storage.spool.list()
    assert (row.forward_path, row.reverse_path, row.destination) == (forward.forward_path, None, forward.destination)
    assert (row.original_recipient, row.notify, row.identity) == (
        forward.original_recipient,
        forward.notify,
        forward.identity,
    )
    assert (row.not_before, row.expires_at, row.attempts) == (forward.not_before, forward.expires_at, 0)
    assert (row.held, row.claimed, row.delay_notified, row.last_reply) == (False, False, False, None)
    message = row.message
    assert (message.facts, message.prefix, message.content_octets) == (facts, PREFIX, 6)
    assert (message.ret, message.envelope_id, message.smtputf8, message.body) == (Ret.HDRS, "id+1", True, "8BITMIME")
    assert await whole(house.storage.content.open(message.content_id)) == b"octets"
    assert other.notify == {Notify.NEVER}
    assert other.reverse_path is not None


async def test_an_imported_uidl_is_kept_and_never_used_again(house: House) -> None:
    account = await house.account()

    async def collect() -> tuple[str, str]:
        acceptance = await house.acceptance()
        placement = Placement(account=account, forward_path=alice, prefix=b"", uidl=Uidl("theirs-1"))
        await house.storage.accept(dataclasses.replace(acceptance, placements=(placement,)))
        return acceptance.queue_id, (await house.storage.maildrops.list(account)).uidls[-1]

    assert (await collect())[1] == "theirs-1"
    second, uidl = await collect()
    assert uidl == second
    lock = await house.storage.maildrops.lock(account)
    uids = (await house.storage.maildrops.list(account)).uids
    assert await house.storage.maildrops.expunge(lock, uids, ())  # type: ignore[arg-type]
    third, uidl = await collect()
    assert uidl == third


async def test_folders_count_apart_and_flags_are_kept(house: House) -> None:
    account = await house.account()
    await house.accept(to=[account])
    acceptance = await house.acceptance()
    flags = frozenset({"\\Seen", "\\Flagged"})
    placement = Placement(account=account, forward_path=alice, prefix=b"", folder="Junk", flags=flags)
    await house.storage.accept(dataclasses.replace(acceptance, placements=(placement,)))
    junk = await house.storage.maildrops.list(account, "Junk")
    assert (junk.uids, junk.flags) == ((1,), ("\\Flagged \\Seen",))
    assert len(await house.storage.maildrops.list(account)) == 1
    assert await whole(house.storage.maildrops.read(account, junk.uids[0], "Junk"))
    assert await house.storage.maildrops.used_octets(account) > junk.sizes_octets[0]


async def test_a_cancelled_session_neither_loses_nor_breaks_the_others(house: House) -> None:
    account = await house.account()
    plans = [await house.acceptance(b"x" * 200_000, to=[account]) for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(house.storage.accept(plan)) for plan in plans]
        await asyncio.sleep(0)
        tasks[1].cancel()
    await house.storage.accept(plans[1])
    listing = await house.storage.maildrops.list(account)
    assert sorted(listing.queue_ids) == sorted(plan.queue_id for plan in plans)
    for uid in listing.uids:
        assert len(await whole(house.storage.maildrops.read(account, uid))) > 200_000


async def test_a_second_process_reads_what_was_accepted(house: House) -> None:
    account = await house.account()
    await house.accept(to=[account], forwards=1)
    other = await house.open_another()
    assert len(await other.maildrops.list(account)) == 1
    assert await other.spool.count() == 1


async def test_accept_with_forwards_and_settle_wake_the_runner(house: House) -> None:
    async with asyncio.timeout(5):
        await house.accept(forwards=1)
        await house.storage.changes.wait(3600)
        claim = await house.claim()
        await house.storage.settle(settlement(claim, None))
        await house.storage.changes.wait(3600)
    await house.storage.changes.wait(0)
