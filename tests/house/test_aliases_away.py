"""Aliases to another house, between two real ones: who the sender is there, and where the reports go."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterator
from email.message import EmailMessage

import pytest

from posthouse.mail.address import parse_address
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Attempted, Reported
from posthouse.mail.story import tell
from posthouse.storage.interfaces import Storage
from tests.house.test_forwarding import maildrop, until_served
from tests.house.wire import Wire
from tests.running_house import RunningHouse

CARL, BOB, ADA = "carl@there.test", "bob@there.test", "ada@here.test"
LONG = "bounces+12345-0102-nobody=example.org@em1234.mailer.there.test"
LETTER = b"From: carl@there.test\r\nSubject: hi\r\n\r\n.hello\r\n"
SRS = re.compile(rb"SRS[01]", re.IGNORECASE)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    folder = tmp_path_factory.mktemp("there")
    people = (BOB, CARL, LONG)
    with RunningHouse(folder, people, hostname="mx.there.test", postmaster=BOB) as house:
        yield house


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, there: RunningHouse) -> Iterator[RunningHouse]:
    """Its aliases: away leads to bob there, dead to nobody there, gone to a house that nobody answers at."""
    forwarding = {
        "routes": {"*": f"127.0.0.1:{there.ports['smtp']}", "gone.test": "127.0.0.1:1"},
        "retry": ["50ms"],
        "expire_after": "100ms",
    }
    with RunningHouse(tmp_path_factory.mktemp("here"), forwarding=forwarding) as house:
        for alias, target in (("away", BOB), ("dead", "nobody@there.test"), ("gone", "x@gone.test")):
            lead(house, f"{alias}@here.test", target)
        yield house


def lead(house: RunningHouse, alias: str, *targets: str) -> None:
    targets_ = [parse_address(target) for target in targets]
    house.ask(lambda storage: storage.administration.add_alias(parse_address(alias), targets_))


def arrived(house: RunningHouse, login: str) -> list[bytes]:
    """What is new in a maildrop; it is seen once."""
    seen: set[str] = house.__dict__.setdefault("seen", set())
    new = [(uidl, content) for uidl, _size, content in maildrop(house, login) if uidl not in seen]
    seen.update(uidl for uidl, _content in new)
    return [content for _uidl, content in new]


def parsed(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def forward(here: RunningHouse, sender: str, alias: str, content: bytes = LETTER) -> str:
    with Wire(here.ports["smtp"]).greet() as wire:
        queue_id = wire.deliver(content, alias, sender=sender)
    until_served(here)
    return queue_id


@pytest.mark.conformance("C81", "C83")
@pytest.mark.parametrize("sender", [CARL, LONG])
def test_the_next_house_sees_us_and_its_report_comes_back_to_the_sender(
    here: RunningHouse, there: RunningHouse, sender: str
) -> None:
    forward(here, sender, "away@here.test")
    (letter,) = arrived(there, BOB)
    back = parsed(letter)["Return-Path"].removeprefix("<").removesuffix(">")
    assert re.fullmatch(r"SRS0=[A-Z2-7]{8}=[A-Z2-7]{2}=.+@here\.test", back)
    assert len(back.rpartition("@")[0]) <= 64
    assert letter.endswith(LETTER)
    assert f"sender rewritten to {back}" in details(here, "away@here.test")
    report = b"From: <postmaster@there.test>\r\nSubject: it came back\r\n\r\nsorry\r\n"
    with Wire(here.ports["smtp"]).greet() as wire:
        assert wire.say(f"MAIL FROM:<{CARL}>").startswith(b"250 ")
        assert wire.say(f"RCPT TO:<{back}>").startswith(b"550 5.7.1 ")
        wire.say("RSET")
        wire.deliver(report, back.lower(), sender="")
    until_served(here)
    (returned,) = arrived(there, sender)
    assert parsed(returned)["Return-Path"] == "<>"
    assert returned.endswith(report)


def details(house: RunningHouse, forward_path: str) -> str:
    """All details of the journeys to somebody."""

    async def ask(storage: Storage) -> str:
        found = await storage.journey.find(forward_path=forward_path)
        events = [event for queue_id in found for event in await storage.journey.read(queue_id)]
        return "\n".join(detail for line in tell(events) for detail in line.details)

    return house.ask(ask)


@pytest.mark.conformance("C81")
def test_an_alias_keeps_the_null_path_null(here: RunningHouse, there: RunningHouse) -> None:
    forward(here, "", "away@here.test")
    (letter,) = arrived(there, BOB)
    assert parsed(letter)["Return-Path"] == "<>"
    forward(here, "", "dead@here.test")
    assert arrived(there, CARL) == []


def test_a_sender_longer_than_rfc_5321_says_is_taken_and_its_report_finds_back(
    here: RunningHouse, there: RunningHouse
) -> None:
    """Senders that other houses have rewritten often are. To houses that keep to the limit we lead a short one on."""
    sender = f"SRS0={'h' * 60}=tt=far.test={'u' * 60}@relay.test"
    forward(here, sender, "away@here.test")
    (letter,) = arrived(there, BOB)
    back = parsed(letter)["Return-Path"].strip("<>")
    assert len(back.rpartition("@")[0]) <= 64
    queue_id = forward(here, "", back)
    events = here.ask(lambda storage: storage.journey.read(QueueId(queue_id)))
    assert [event.forward_path for event in events if isinstance(event, Attempted)] == [sender]
    forward(here, sender, ADA)
    assert parsed(arrived(here, ADA)[-1])["Return-Path"] == f"<{sender}>"


@pytest.mark.conformance("C83", "C181", "C294")
@pytest.mark.parametrize("sender", [CARL, LONG])
@pytest.mark.parametrize(
    ("alias", "target"), [("dead@here.test", "nobody@there.test"), ("Gone@here.test", "x@gone.test")]
)
def test_a_report_on_a_failing_target_goes_to_the_true_sender(
    here: RunningHouse, there: RunningHouse, sender: str, alias: str, target: str
) -> None:
    """One report, sent at once; it names the alias that was written to, and no rewritten address."""
    queue_id = forward(here, sender, alias)
    (content,) = arrived(there, sender)
    assert not SRS.search(content)
    report = parsed(content)
    assert report["Return-Path"] == "<>"
    assert report["To"] == sender
    human, status, _returned = report.iter_parts()
    assert "(you wrote to" in " ".join(human.get_content().split())
    assert alias in human.get_content()
    fields = status.get_payload()[1]
    assert fields["Original-Recipient"] == f"rfc822; {alias}"
    assert fields["Final-Recipient"] == f"rfc822; {target}"
    assert fields["Action"] == "failed"
    assert "could not be delivered" in " ".join(human.get_content().split())
    assert queue_id in human.get_content()
    assert len(reports_on(here, queue_id)) == 1


def reports_on(house: RunningHouse, queue_id: str) -> list[Reported]:
    events = house.ask(lambda storage: storage.journey.read(QueueId(queue_id)))
    return [event for event in events if isinstance(event, Reported)]
