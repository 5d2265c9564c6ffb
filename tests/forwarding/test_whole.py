"""Runner, relay and store together, with a peer on loopback as the next hop."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from posthouse.forwarding.hosts import FIRST_S
from posthouse.forwarding.relay import Relay
from posthouse.mail.acceptance import Notify
from tests.forwarding.peer import DROP, Peer, peer
from tests.forwarding.relays import relay_to
from tests.forwarding.runner_house import RunnerHouse, runner_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[RunnerHouse]:
    async with runner_house(tmp_path / "house") as opened:
        yield opened


def real_relay(house: RunnerHouse, *peers: Peer | None, pool_limit: int = 0) -> Relay:
    """Have this house's mail for there.test go to the peers."""
    content: Any = house.storage.content
    relay, _ports = relay_to(*peers, content=content, clock=house.clock, pool_limit=pool_limit)
    house.relay = relay  # type: ignore[assignment]
    house.renew()
    return relay


FIVE = [f"r{number}@there.test" for number in range(5)]


@pytest.mark.conformance("C98")
async def test_a_hundred_and_fifty_recipients_are_two_transactions(house: RunnerHouse) -> None:
    names = [f"r{number}@there.test" for number in range(150)]
    async with peer() as next_hop:
        relay = real_relay(house, next_hop)
        await house.queue(*names)
        await go(house)
        await leave(relay)
    assert sorted(len(recipients) for recipients, _content in next_hop.messages) == [50, 100]
    assert sorted(next_hop.recipients) == sorted(names)
    assert await house.storage.spool.count() == 0


@pytest.mark.conformance("C99")
async def test_a_552_at_rcpt_returns_nothing_to_the_sender(house: RunnerHouse) -> None:
    async with peer({"RCPT TO:<r3@": "552 5.2.2 full"}) as next_hop:
        relay = real_relay(house, next_hop)
        await house.queue(*FIVE)
        await go(house)
        assert [str(row.forward_path) for row in await house.storage.spool.list()] == ["r3@there.test"]
        assert await house.reports() == []
        next_hop.script = lambda _line, _number: None
        house.clock.advance(400)
        await go(house)
        await leave(relay)
    assert sorted(next_hop.recipients) == FIVE


@pytest.mark.conformance("C100")
async def test_a_message_without_a_final_reply_stays_and_says_so(house: RunnerHouse) -> None:
    async with peer({".": DROP}) as next_hop:
        real_relay(house, next_hop)
        queue_id = await house.queue("bob@there.test")
        await go(house)
        (event,) = await house.attempted(queue_id)
        assert (event.outcome, "may have arrived" in event.reply) == ("uncertain", True)
        assert await house.reports() == []
        next_hop.script = lambda _line, _number: None
        house.clock.advance(400)
        await go(house)
    assert next_hop.recipients == ["bob@there.test"]
    assert await house.storage.spool.count() == 0


@pytest.mark.conformance("C101")
async def test_a_partial_success_is_not_repeated_also_after_a_restart(house: RunnerHouse) -> None:
    answers: dict[str, str | bytes] = {"RCPT TO:<r1@": "450 4.2.1 later", "RCPT TO:<r3@": "550 5.1.1 nobody"}
    async with peer(answers) as next_hop:
        real_relay(house, next_hop)
        await house.queue(*FIVE)
        await go(house)
        assert sorted(next_hop.recipients) == ["r0@there.test", "r2@there.test", "r4@there.test"]
        (report,) = await house.reports()
        assert b"r3@there.test" in report
        assert b"Final-Recipient: rfc822; r1@" not in report
        await house.restart(killed=True)
        real_relay(house, next_hop)
        next_hop.script = lambda _line, _number: None
        house.clock.advance(400)
        await go(house)
    assert sorted(next_hop.recipients) == ["r0@there.test", "r1@there.test", "r2@there.test", "r4@there.test"]
    assert len(await house.reports()) == 1
    assert await house.storage.spool.count() == 0


@pytest.mark.conformance("C97")
async def test_messages_that_come_later_do_not_wait_for_a_dead_host_again(house: RunnerHouse) -> None:
    relay = real_relay(house, None)
    ports = relay.dialer.connector
    for _ in range(5):
        await house.queue("bob@there.test")
        await go(house)
        house.clock.advance(FIRST_S / 10)
    assert ports.tried == ["192.0.2.1"]  # type: ignore[attr-defined]
    assert await house.storage.spool.count() == 5


@pytest.mark.conformance("C102")
async def test_claims_share_a_connection_which_ends_with_the_house(house: RunnerHouse) -> None:
    async with peer() as next_hop:
        real_relay(house, next_hop, pool_limit=5)
        async with asyncio.TaskGroup() as group:
            group.create_task(house.runner.run())
            for number in range(5):
                await house.queue(f"r{number}@there.test")
                while await house.storage.spool.count():
                    await asyncio.sleep(0)
            house.runner.stop()
    assert next_hop.connections == 1
    assert next_hop.commands[-1] == "QUIT"


@pytest.mark.conformance("C96", "C103")
@pytest.mark.parametrize("killed", [True, False])
async def test_what_waits_outlives_the_house(house: RunnerHouse, killed: bool) -> None:
    async with peer({"MAIL": "451 4.3.0 later"}) as next_hop:
        real_relay(house, next_hop)
        await house.queue(*FIVE)
        await go(house)
        (due, *_) = await house.storage.spool.list()
        house.clock.advance(due.not_before + 10 - house.clock.now())
        # In the middle of an attempt.
        assert await house.storage.spool.claim(due.destination, 3, house.clock.now() + 600)
        await house.restart(killed=killed)
        real_relay(house, next_hop)
        next_hop.script = lambda _line, _number: None
        for _ in range(3):
            house.clock.advance(4000)
            await go(house)
    assert sorted(next_hop.recipients) == FIVE
    assert await house.storage.spool.count() == 0


@pytest.mark.conformance("C103", "C304")
@pytest.mark.parametrize("jump_s", [-10 * 365 * 86400.0, 40 * 365 * 86400.0])
async def test_wherever_the_clock_jumps_what_waits_is_tried_again(house: RunnerHouse, jump_s: float) -> None:
    """Forward also past 2038; back, before anything was accepted."""
    async with peer({"MAIL": "451 4.3.0 later"}) as next_hop:
        real_relay(house, next_hop)
        await house.queue("bob@there.test")
        await go(house)
        next_hop.script = lambda _line, _number: None
        house.clock.jump(jump_s)
        house.clock.advance(700)
        await go(house)
    assert next_hop.recipients == ["bob@there.test"]
    assert await house.storage.spool.count() == 0


@pytest.mark.conformance("C304")
async def test_a_report_of_the_year_2063_has_its_date(house: RunnerHouse) -> None:
    async with peer({"MAIL": "451 4.3.0 later"}) as next_hop:
        real_relay(house, next_hop)
        house.clock.jump(40 * 365.25 * 86400)
        await house.queue("bob@there.test", notify=frozenset({Notify.FAILURE}))
        house.clock.jump(6 * 86400)
        await go(house)
    (report,) = await house.reports()
    parsed = email.message_from_bytes(report, policy=email.policy.default)
    assert parsed["Date"].datetime.year == 2063
    assert parsed["Date"].datetime.utcoffset() == timedelta(0)


@pytest.mark.conformance("C162", "C195", "C152")
async def test_what_cannot_be_sent_comes_back_and_was_not_sent(house: RunnerHouse) -> None:
    content = "Subject: 8\r\n\r\nGrüße\r\n".encode()
    async with peer(ehlo="250-there.test\r\n250 SIZE 1000") as next_hop:
        relay = real_relay(house, next_hop)
        await house.queue("bob@there.test", content=content)
        await house.queue("jörg@there.test")
        await house.queue("eve@there.test", content=b"Subject: x\r\n\r\n" + b"x\r\n" * 500)
        await go(house)
        await leave(relay)
    assert next_hop.messages == []
    assert not any(line.startswith("MAIL") for line in next_hop.commands)
    reports = b"".join(await house.reports())
    for code in (b"5.6.3", b"5.6.7", b"5.3.4"):
        assert b"Status: " + code in reports


async def go(house: RunnerHouse) -> None:
    """Attempt all that is due now."""
    started = True
    while started:
        async with asyncio.TaskGroup() as group:
            started = await house.runner.step(group)


async def leave(relay: Relay) -> None:
    for opened in relay.pool.tired(everything=True):
        await opened.connection.quit()
