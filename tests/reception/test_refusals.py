"""Journeys of refused mail: who, from, to, at which command, why; and never at the cost of mail that is taken."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Sequence
from pathlib import Path

import pytest

from posthouse.admission import replies
from posthouse.admission.peer import Peer, Role
from posthouse.log import make_log
from posthouse.mail.address import parse_address
from posthouse.mail.journey import JourneyEvent, Refused
from posthouse.mail.reply import reply
from posthouse.reception import refusals
from posthouse.reception.refusals import MOST_AT_ONCE, MOST_RECIPIENTS, MOST_WAITING, Refusals
from posthouse.storage.errors import StorageBusy
from posthouse.storage.interfaces import Storage
from tests.fake_world import START, FakeClock, FakeRandom
from tests.house.wire import Wire
from tests.running_house import PASSWORD, RunningHouse

BOB = parse_address("bob@here.test")
LETTER = b"Subject: hi\r\n\r\nhello\r\n"
PEER = Peer(
    address="192.0.2.1",
    hello="client.test",
    role=Role.EXCHANGE,
    extended=True,
    tls=False,
    trusted=False,
    account=None,
    session="s",
)


class Journal:
    """Keeps what is appended; fails as often as told."""

    def __init__(self, failures: int = 0) -> None:
        self.batches: list[list[JourneyEvent]] = []
        self._failures = failures

    async def append(self, events: Sequence[JourneyEvent]) -> None:
        if self._failures:
            self._failures -= 1
            raise StorageBusy
        self.batches.append(list(events))


def noted(found: Refusals, count: int, *, refusal: object = replies.NO_SUCH_MAILBOX) -> None:
    for _ in range(count):
        found.note(
            command="RCPT",
            refusal=refusal,  # type: ignore[arg-type]
            peer=PEER,
            reverse_path=None,
            forward_paths=(BOB,) * (MOST_RECIPIENTS + 1),
        )


def make(journal: Journal, log: io.StringIO | None = None) -> Refusals:
    return Refusals(journal, FakeClock(), FakeRandom(), make_log(log or io.StringIO(), json=True))


async def test_an_event_says_who_from_to_where_and_why() -> None:
    journal = Journal()
    found = make(journal)
    noted(found, 1)
    found.stop()
    await found.run()
    ((event,),) = journal.batches
    assert isinstance(event, Refused)
    assert (event.at, event.command, event.peer, event.hello) == (START, "RCPT", "192.0.2.1", "client.test")
    assert event.reply == "550 5.1.1 There is no such mailbox here"
    assert (event.reverse_path, event.session) == ("", "s")
    assert event.forward_paths == ("bob@here.test",) * MOST_RECIPIENTS


async def test_a_flood_is_bounded_and_counted() -> None:
    journal, log = Journal(), io.StringIO()
    found = make(journal, log)
    noted(found, MOST_WAITING + 5)
    assert found.dropped == 5
    found.stop()
    await found.run()
    assert sum(map(len, journal.batches)) == MOST_WAITING
    assert max(map(len, journal.batches)) == MOST_AT_ONCE
    assert '"dropped": 5' in log.getvalue()


async def test_one_commit_each_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "INTERVAL_S", 3600.0)
    journal = Journal()
    found = make(journal)
    async with asyncio.TaskGroup() as group:
        group.create_task(found.run())
        noted(found, 1)
        for _ in range(10):
            await asyncio.sleep(0)
        noted(found, 2 * MOST_AT_ONCE)
        for _ in range(10):
            await asyncio.sleep(0)
        assert [len(batch) for batch in journal.batches] == [1]
        found.stop()
    assert [len(batch) for batch in journal.batches] == [1, MOST_AT_ONCE, MOST_AT_ONCE]


async def test_a_storage_that_fails_costs_these_events_only() -> None:
    journal, log = Journal(failures=1), io.StringIO()
    found = make(journal, log)
    noted(found, MOST_AT_ONCE + 1)
    found.stop()
    await found.run()
    assert [len(batch) for batch in journal.batches] == [1]
    assert found.dropped == MOST_AT_ONCE
    assert "refusals not written" in log.getvalue()


async def test_a_confused_dialogue_is_no_mail() -> None:
    journal = Journal()
    found = make(journal)
    noted(found, 1, refusal=reply(503, "5.5.1", "Bad sequence of commands"))
    found.stop()
    await found.run()
    assert journal.batches == []


# Over sockets.


def refused(house: RunningHouse, count: int) -> list[Refused]:
    """The events, the oldest first, when there are so many."""

    async def ask(storage: Storage) -> list[JourneyEvent]:
        async with asyncio.timeout(10):
            while len(found := await storage.journey.find(refused=True)) < count:
                await asyncio.sleep(0.01)
        return [event for queue_id in reversed(found) for event in await storage.journey.read(queue_id)]

    return [event for event in house.ask(ask) if isinstance(event, Refused)]


def test_what_is_refused_leaves_a_journey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "INTERVAL_S", 0.01)
    with RunningHouse(tmp_path) as house:
        with Wire(house.ports["smtp"]).greet() as wire:
            assert wire.say("MAIL FROM:<x@far.test> SIZE=99999999").startswith(b"552 ")
            assert wire.say("RCPT TO:<bob@here.test>").startswith(b"503 ")
            wire.envelope("bob@here.test", sender="x@far.test")
            assert wire.say("RCPT TO:<nobody@here.test>").startswith(b"550 5.1.1 ")
            assert wire.say("RCPT TO:<u@far.test>").startswith(b"550 5.7.1 ")
            wire.say("RCPT TO:<ada@here.test>")
            assert wire.content(b"Received: x\r\n" * 100 + LETTER).startswith(b"554 5.4.6 ")
            wire.envelope("bob@here.test", sender="")
            assert wire.content(b"bare\rreturn\r\n").startswith(b"550 5.6.11 ")
            wire.deliver(LETTER, "bob@here.test")
        with Wire(house.ports["submission"]).greet() as wire:
            secret = base64.b64encode(f"\0ada@here.test\0{PASSWORD}".encode()).decode()
            assert wire.say(f"AUTH PLAIN {secret}").startswith(b"235 ")
            assert wire.say("MAIL FROM:<bob@here.test>").startswith(b"550 5.7.1 ")
        events = refused(house, 6)
    shown = [(event.command, event.reply[:9], event.reverse_path, event.forward_paths) for event in events]
    assert sorted(map(str, shown)) == sorted(
        map(
            str,
            [
                ("MAIL", "552 5.3.4", None, ()),
                ("RCPT", "550 5.1.1", "x@far.test", ("nobody@here.test",)),
                ("RCPT", "550 5.7.1", "x@far.test", ("u@far.test",)),
                ("DATA", "554 5.4.6", "x@far.test", ("bob@here.test", "ada@here.test")),
                ("DATA", "550 5.6.11"[:9], "", ("bob@here.test",)),
                ("MAIL", "550 5.7.1", "bob@here.test", ()),
            ],
        )
    )
    assert {event.login for event in events} == {None, "ada@here.test"}
    assert {(event.peer, event.hello) for event in events} == {("127.0.0.1", "client.test")}


def test_what_waits_is_written_when_the_house_closes(tmp_path: Path) -> None:
    with RunningHouse(tmp_path) as house:
        with Wire(house.ports["smtp"]).greet() as wire:
            assert wire.say("MAIL FROM:<>").startswith(b"250 ")
            for number in range(5):
                assert wire.say(f"RCPT TO:<x{number}@here.test>").startswith(b"550 ")
    with RunningHouse(tmp_path) as house:
        assert len(refused(house, 5)) == 5
