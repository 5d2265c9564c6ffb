"""`posthouse journey`: each way to find a message, what is shown of it, and what is said where there is none."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from posthouse.app import World, open_storage
from posthouse.mail.ids import QueueId, new_queue_id
from posthouse.mail.journey import JourneyEvent
from tests.cli.conftest import Command
from tests.cli.journeys_to_tell import ACCEPTED, DELIVERED, GREYLISTED, NO_SUCH, QUEUED, STORIES
from tests.house.wire import Wire
from tests.running_house import RunningHouse, house_config
from tests.storage.contract.world import SeededRandom

IDS = SeededRandom(7)
BOB = "bob@south.test"


def write(command: Command, events: Sequence[JourneyEvent]) -> None:
    """Put events into the store of a house that does not run."""

    async def work() -> None:
        storage = await open_storage(house_config(command.folder), World())
        await storage.journey.append(events)
        await storage.close()

    asyncio.run(work())


def moved(events: Sequence[JourneyEvent], at: float) -> tuple[QueueId, list[JourneyEvent]]:
    """The same journey under a new id, from that time on."""
    queue_id = new_queue_id(at, IDS)
    begin = events[0].at
    return queue_id, [dataclasses.replace(event, queue_id=queue_id, at=at + event.at - begin) for event in events]


@pytest.fixture
def told(furnished: Command) -> Command:
    """A house that knows one message, put off an hour ago and then delivered."""
    _, events = moved([ACCEPTED, QUEUED, GREYLISTED, DELIVERED], time.time() - 3600)
    write(furnished, events)
    return furnished


def the_id(command: Command) -> str:
    return str(json.loads(command.run("journey", "--to", BOB, "--json").out)[0]["queue_id"])


def test_a_message_is_found_in_every_way(told: Command) -> None:
    queue_id = the_id(told)
    story = told.run("journey", queue_id).out
    assert story.startswith(f"Message {queue_id} from ada@north.test to bob@south.test\n")
    assert story.count("Put off for bob@south.test") == story.count("Delivered: ") == 1
    misread = queue_id[:14].replace("1", "I").replace("0", "o")
    for ways in (
        (queue_id.lower(),),
        (queue_id[:8],),
        (misread,),
        ("<tea-on-sunday@laptop.lan>",),
        ("Tea-on-Sunday@laptop.lan",),
        ("--message-id", "<tea-on-sunday@laptop.lan>"),
        ("--to", "<BOB@south.test>"),
        ("--from", "ada@north.test"),
        ("--reply", "greylisted REJECTED"),
        ("--reply", "4.7.1"),
        ("--reply", "4Z7hKq1Lm2z"),
        ("--since", "2h"),
        ("--to", BOB, "--from", "ada@north.test", "--reply", "4.7.1", "--since", "2h", "--limit", "1"),
        ("<tea-on-sunday@laptop.lan>", "--to", BOB),
    ):
        ran = told.run("journey", *ways)
        assert (ran.status, ran.out, ran.err) == (0, story, ""), ways


def test_the_dialogue_is_shown_when_it_is_wanted(told: Command) -> None:
    queue_id = the_id(told)
    assert f"posthouse journey {queue_id} -v" in told.run("journey", queue_id).out
    for option in ("--transcript", "-v"):
        shown = told.run("journey", queue_id, option).out
        assert "+530 ms  S: 450 4.7.1 <bob@south.test>: Recipient address rejected" in shown
        assert "(mailbox not available now)" in shown
        assert " -v" not in shown


def test_json_has_all_of_it(told: Command) -> None:
    rows = json.loads(told.run("journey", the_id(told), "--json").out)
    assert [row["event"] for row in rows] == ["accepted", "queued", "attempted", "attempted"]
    assert rows[0]["message_id"] == "<tea-on-sunday@laptop.lan>"
    assert rows[0]["now"] == [
        {
            "recipients": [BOB],
            "state": "delivered",
            "text": "delivered to mx.south.test, which has it since",
            "command": "",
        }
    ]
    assert rows[0]["related"] == []
    assert len(rows[2]["transcript"]) == len(rows[2]["transcript_ms"]) == 11
    assert rows[2]["text"].startswith("Put off for bob@south.test")
    assert any("does not know the sender yet" in detail for detail in rows[2]["details"])
    assert rows[3]["since_last_s"] == pytest.approx(300.58, abs=0.01)
    assert "now" not in rows[1]


def test_a_report_and_its_message_lead_to_each_other(furnished: Command) -> None:
    now = time.time()
    message, events = moved(STORIES["returned"].events, now - 60)
    report, answer = moved(STORIES["report"].events, now - 59)
    write(furnished, [*events[:-1], dataclasses.replace(events[-1], report_queue_id=report)])  # type: ignore[call-arg]
    write(furnished, [dataclasses.replace(answer[0], about=message), *answer[1:]])  # type: ignore[call-arg]
    assert f"posthouse journey {report}\n" in furnished.run("journey", message).out
    assert f"posthouse journey {message}\n" in furnished.run("journey", report).out
    (related,) = json.loads(furnished.run("journey", report, "--json").out)[0]["related"]
    assert related == {"queue_id": message, "what": "the message that this report is about"}


def test_many_are_listed_with_where_they_are(furnished: Command) -> None:
    now = time.time()
    journeys = [moved([ACCEPTED, QUEUED, NO_SUCH], now - 1000 + number) for number in range(8)]
    write(furnished, [event for _, events in journeys for event in events])
    listed = furnished.run("journey", "--to", BOB).out
    assert re.findall(r"^([0-9A-Z]{26})  ", listed, re.MULTILINE) == [queue_id for queue_id, _ in reversed(journeys)]
    assert listed.count("    bob@south.test: not delivered") == 8
    assert listed.endswith("The story of one: posthouse journey ID (the beginning of the id is enough)\n")
    fewer = furnished.run("journey", "--to", BOB, "--limit", "6").out
    assert "Shown are the newest 6." in fewer
    assert fewer.count("not delivered") == 6
    assert len(json.loads(furnished.run("journey", "--to", BOB, "--limit", "6", "--json").out)) == 18
    stories = furnished.run("journey", "--to", BOB, "-v").out
    assert stories.count("\nMessage ") == 7
    some = furnished.run("journey", "--to", BOB, "--limit", "2").out
    assert some.count("Failed for bob@south.test") == 2
    assert "Shown are the newest 2." in some


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("say which message", "--reply")),
        (("01MCC5RM016W6SW9GE4W9PB8X6",), ("no journey is known of 01MCC5", "30 days", "posthouse journey --to")),
        (("01MCC5RM01",), ("no journey is known of that begins with 01MCC5RM01",)),
        (("01MCC5",), ("too short", "at least 8")),
        (("nonsense!",), ("not a queue id", "--to ADDRESS")),
        (("nonsense",), ("'nonsense' is not a queue id", "--to ADDRESS")),
        (("0" * 27,), ("not a queue id",)),
        (("bob@nowhere.test",), ("no message is known with the Message-ID", "posthouse journey --to bob@nowhere.test")),
        (("--message-id", "<x@y>"), ("no message is known with the Message-ID <x@y>",)),
        (("--message-id", "<>"), ("--message-id is empty",)),
        (("--to", ""), ("--to is empty",)),
        (("a@b", "--message-id", "c@d"), ("two Message-IDs",)),
        (("01MCC5RM016W6SW9GE4W9PB8X6", "--refused"), ("without further options",)),
        (("--reply", "..."), ("--reply holds no word", "mailbox full")),
        (("--since", "yesterday"), ("--since", "not a duration", "4h")),
        (("--refused", "--limit", "0"), ("--limit is from 1 to 1000",)),
        (("--limit", "many"), ("limit",)),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_what_cannot_be_found_is_one_line(
    furnished: Command, arguments: tuple[str, ...], words: tuple[str, ...], as_json: bool
) -> None:
    ran = furnished.run("journey", *arguments, *(["--json"] if as_json else []))
    assert ran.failed_with(*words)
    assert ran.out == ""


def test_the_beginning_of_several_ids_is_named_with_what_to_do(furnished: Command) -> None:
    now = time.time()
    pairs = [moved([ACCEPTED], now) for _ in range(5)]
    write(furnished, [event for _, events in pairs for event in events])
    first = min(queue_id for queue_id, _ in pairs)
    ran = furnished.run("journey", first[:9])
    assert ran.failed_with("is the beginning of several", f"posthouse journey {first}", ", …")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--refused",), "No mail was refused."),
        (("--refused", "--to", BOB, "--since", "2h"), f"No mail to {BOB} in the last 2 h was refused."),
        (("--from", "x@y.test"), "No journey is known of mail from x@y.test."),
        (("--reply", "4.7.28"), "No journey is known of mail answered with '4.7.28'."),
        (("--to", "\x1b[2J"), "No journey is known of mail to \\x1b[2J."),
    ],
)
def test_a_list_of_nothing_is_an_answer(furnished: Command, arguments: tuple[str, ...], sentence: str) -> None:
    ran = furnished.run("journey", *arguments)
    assert (ran.status, ran.out, ran.err) == (0, f"{sentence}\n", "")
    ran = furnished.run("journey", *arguments, "--json")
    assert (ran.status, ran.out.strip(), ran.err) == (0, "[]", "")


def test_a_message_in_a_maildrop_is_said_to_be_there(furnished: Command) -> None:
    with RunningHouse(Path(), ("ada@here.test",)) as house, Wire(house.ports["smtp"]).greet() as wire:
        wire.deliver(b"Message-ID: <one@far.test>\r\nSubject: hi\r\n\r\nhello\r\n", "ada@here.test")
        story = furnished.run("journey", "<one@far.test>").out
        assert "  now                    ada@here.test: in the maildrop of ada@here.test, not read yet\n" in story
        with Wire(house.ports["pop3"]) as reader:
            reader.login("ada@here.test")
            reader.retrieve(1)
            reader.say("DELE 1")
            reader.say("QUIT")
        assert "deleted from the maildrop of ada@here.test" in furnished.run("journey", "one@far.test").out


def test_journeys_are_found_after_a_restore_and_nothing_is_wrong_with_them(told: Command) -> None:
    story = told.run("journey", "--reply", "greylisted").out
    assert told.run("check", "--store").status == 0
    assert told.run("backup", "saved").status == 0
    for name in ("posthouse.db", "content"):
        path = told.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert told.run("restore", "saved").status == 0
    for way in (("--reply", "greylisted"), ("<tea-on-sunday@laptop.lan>",), ("--to", BOB)):
        assert told.run("journey", *way).out == story
    assert told.run("check", "--store").status == 0
