"""Journeys are found in the same way, whichever of the criteria is the rare one; old ones too, and those mended."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from posthouse.mail.ids import QueueId, new_queue_id
from posthouse.mail.journey import JourneyEvent, kind_of, to_json
from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.sqlite import journey_search
from posthouse.storage.sqlite.connection import DATABASE
from posthouse.storage.sqlite.journey_index import PERIOD_CHARACTERS, not_found
from posthouse.storage.sqlite.migrate import migrations
from posthouse.storage.sqlite.schema import open_database
from posthouse.storage.sqlite.storage import SqliteStorage
from tests.storage.contract.test_journey import answered, named, refused_for
from tests.storage.contract.world import House, SeededRandom, SetClock, accepted
from tests.storage.sqlite.old import make_old


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock = SetClock()
    storage = await SqliteStorage.open(tmp_path, clock=clock, random=SeededRandom(1), create=True, inline_writer=True)
    yield House(storage, clock, SeededRandom(2), pytest.fail)
    await storage.close()


SENDERS = ("a@far.test", "b@far.test")
RECIPIENTS = ("alice@house.test", "bob@there.test")
REPLIES = ("450 4.7.1 Greylisted, try later", "421 4.7.28 Too much", "550 5.1.1 No mailbox")


async def crowd(house: House, count: int) -> list[list[JourneyEvent]]:
    """Journeys of chance."""
    chance = random.Random(4)
    journeys: list[list[JourneyEvent]] = []
    for _ in range(count):
        queue_id = house.queue_id()
        if chance.random() < 0.2:
            events: list[JourneyEvent] = [refused_for(queue_id, chance.choice(REPLIES))]
        else:
            events = [accepted(queue_id, chance.choice(SENDERS), chance.choice(RECIPIENTS))]
            for _ in range(chance.randrange(3)):
                events.append(answered(queue_id, chance.choice(REPLIES)))
        events = [dataclasses.replace(event, at=house.clock.now()) for event in events]
        await house.storage.journey.append(events)
        journeys.append(events)
    return journeys


@pytest.mark.parametrize("few", [0, 7, 2000])
async def test_each_way_to_search_finds_the_same(house: House, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(journey_search, "FEW", few)
    journeys = await crowd(house, 60)
    begin = journeys[30][0].at - 0.0005
    ways = itertools.product((None, SENDERS[0]), (None, RECIPIENTS[0]), (None, "later", "4.7.28"), (False, True))
    for sender, to, reply, refused in ways:
        for since in (None, begin):
            wanted = [
                events[0].queue_id
                for events in reversed(journeys)
                if (sender is None or getattr(events[0], "reverse_path", None) == sender)
                and (to is None or to in [path.lower() for path in events[0].forward_paths])  # type: ignore[union-attr]
                and (not refused or kind_of(events[0]) == "refused")
                and (
                    reply is None
                    or any(reply in getattr(each, "reply", "") and each.at >= (since or 0) for each in events)
                )
                and (since is None or reply is not None or events[0].queue_id >= journeys[30][0].queue_id)
            ]
            found = await house.storage.journey.find(
                reverse_path=sender, forward_path=to, reply=reply, refused=refused, since=since
            )
            assert list(found) == wanted, (sender, to, reply, refused, since)


def make_older(folder: Path) -> tuple[QueueId, QueueId]:
    """A database of the schema before, with two journeys and one that cannot be read."""
    known = migrations()[: [number for number, _ in migrations()].index(8)]
    path = make_old(folder, known)
    there, refused = QueueId("01MCC5RM016W6SW9GE4W9PB8X6"), QueueId("01MCC5RM02AAAAAAAAAAAAAAAA")
    events = [
        named(there, "<Tea@laptop.test>"),
        answered(there, "450 4.7.1 Greylisted", at=5.0),
        refused_for(refused, "550 5.1.1 No mailbox"),
    ]
    connection = apsw.Connection(str(path))
    for number, event in enumerate(events, 1):
        row = (event.queue_id, number, event.at, kind_of(event), to_json(event))
        connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", row)
    connection.execute("INSERT INTO events VALUES ('01DAMAGED', 1, 1.0, 'attempted', '{')")
    connection.close()
    return there, refused


async def test_old_journeys_are_found_after_the_migration(tmp_path: Path) -> None:
    there, refused = make_older(tmp_path)
    storage = await SqliteStorage.open(
        tmp_path, clock=SetClock(), random=SeededRandom(1), on_migrated=lambda _: None, inline_writer=True
    )
    find = storage.journey.find
    assert await find(message_id="tea@LAPTOP.test") == await find(reply="greylisted", since=5.0) == (there,)
    assert await find(reply="mailbox") == (refused,)
    assert await find(reply="greylisted", since=6.0) == ()
    flaws = [flaw async for flaw in storage.check()]
    assert ["cannot be read" in flaw.what for flaw in flaws if flaw.check == "journey"] == [True]
    await storage.close()


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM message_ids",
        "UPDATE message_ids SET hash = hash + 1",
        "DELETE FROM replies",
        "DELETE FROM reply_words",
        "INSERT INTO replies(queue_id, at) VALUES ('01STRAY', 1.0)",
        "INSERT INTO message_ids VALUES ('01STRA', 1, 'Y')",
    ],
)
async def test_what_is_not_found_is_named_and_mended(tmp_path: Path, damage: str) -> None:
    storage = await SqliteStorage.open(
        tmp_path, clock=SetClock(), random=SeededRandom(1), create=True, inline_writer=True
    )
    queue_id = QueueId("01MCC5RM016W6SW9GE4W9PB8X6")
    await storage.journey.append([named(queue_id, "<tea@laptop.test>"), answered(queue_id, "450 later")])
    assert [flaw async for flaw in storage.check()] == []
    connection = apsw.Connection(str(tmp_path / DATABASE))
    connection.execute(damage)
    connection.close()
    (flaw,) = [flaw async for flaw in storage.check(mend=True)]
    assert "1 journey is not found" in flaw.what
    assert "--mend" in flaw.mend
    assert [flaw async for flaw in storage.check()] == []
    find = storage.journey.find
    assert await find(message_id="tea@laptop.test") == await find(reply="later") == (queue_id,)
    await storage.close()


async def test_a_damaged_index_of_words_is_written_again(tmp_path: Path) -> None:
    there, refused = make_older(tmp_path)
    storage = await SqliteStorage.open(
        tmp_path, clock=SetClock(), random=SeededRandom(1), on_migrated=lambda _: None, inline_writer=True
    )
    connection = apsw.Connection(str(tmp_path / DATABASE))
    connection.execute("DELETE FROM events WHERE queue_id = '01DAMAGED'")
    made = "SELECT sql FROM sqlite_schema WHERE name = 'reply_words'"
    before = connection.execute(made).fetchall()
    connection.execute("UPDATE reply_words_data SET block = x'00' WHERE id > 100")
    flaws = [flaw async for flaw in storage.check(mend=True)]
    assert flaws
    assert all("--mend" in flaw.mend for flaw in flaws)
    assert [flaw async for flaw in storage.check()] == []
    assert await storage.journey.find(reply="greylisted") == (there,)
    assert await storage.journey.find(reply="mailbox") == (refused,)
    assert connection.execute(made).fetchall() == before
    connection.close()
    await storage.close()


def test_journeys_are_looked_at_page_by_page(tmp_path: Path) -> None:
    make_older(tmp_path)
    connection = open_database(
        tmp_path / DATABASE,
        vfs=None,
        create=False,
        file_system=RealFileSystem(),
        now=1.0,
        on_migrated=lambda _: None,
    )
    connection.execute("DELETE FROM message_ids")
    last: tuple[str, int] | None = ("", -1)
    missing: list[QueueId] = []
    pages = 0
    while last is not None:
        some, last = not_found(connection, last, 1)
        missing += some
        pages += 1
    assert (missing, pages) == ([QueueId("01MCC5RM016W6SW9GE4W9PB8X6")], 5)
    connection.close()


def test_a_period_is_a_quarter_of_an_hour() -> None:
    chance = SeededRandom(1)
    times = [1_800_000_000.0 + 60 * minute for minute in range(60)]
    periods = {new_queue_id(at, chance)[:PERIOD_CHARACTERS] for at in times}
    assert 3 <= len(periods) <= 5
