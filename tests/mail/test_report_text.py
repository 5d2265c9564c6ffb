"""What people read: two whole reports, the journey of a message, and the first part of every kind of report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from posthouse.cli.story_layout import Told, story
from posthouse.forwarding.routes import NO_SUCH_DOMAIN
from posthouse.forwarding.transaction import CANNOT_TAKE_8BIT, CANNOT_TAKE_UTF8, MAY_HAVE_ARRIVED, TOO_LARGE
from posthouse.mail.address import parse_address
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Accepted, Attempted, JourneyEvent, Queued, Reported
from posthouse.mail.reply import Reply, reply
from posthouse.mail.report import build_report
from posthouse.mail.report_request import Action, OriginalMessage, RecipientStatus, ReportRequest
from posthouse.mail.report_text import human_text, subject
from posthouse.mail.standing import related, standing

ARRIVED = 1772532764.0
DAY_S = 86400.0
GOLDEN = Path(__file__).parent / "golden"
MESSAGE = (
    b"Received: from laptop ([192.0.2.1])\r\n\tby mx.north.test with ESMTPSA id 01KFZK5T3MXW7QNH;\r\n"
    b"\tTue, 03 Mar 2026 10:12:44 +0000\r\nFrom: ada@north.test\r\nTo: bob@south.test\r\n"
    b"Subject: The minutes of Monday\r\nMessage-ID: <1@north.test>\r\n\r\nDear all,\r\nhere they are.\r\n"
)
NO_CONNECTION = reply(451, "4.4.1", "No connection to mx.south.test (192.0.2.7): Connection refused")


def status(action: Action, answer: Reply, to: str = "bob@south.test", **changes: Any) -> RecipientStatus:
    values: dict[str, Any] = {
        "final_recipient": parse_address(to),
        "action": action,
        "reply": answer,
        "from_peer": True,
        "remote_host": "mx.south.test",
        "remote_ip": "192.0.2.7",
        "last_attempt_at": ARRIVED + 60,
        "will_retry_until": ARRIVED + 5 * DAY_S if action is Action.DELAYED else None,
    }
    return RecipientStatus(**{**values, **changes})


def failed(answer: Reply, **changes: Any) -> RecipientStatus:
    return status(Action.FAILED, answer, **changes)


def request(*recipients: RecipientStatus, waited_s: float = 61.0, beginning: bytes = MESSAGE) -> ReportRequest:
    return ReportRequest(
        queue_id=QueueId("01KFZK5V8REPORT"),
        now=ARRIVED + waited_s,
        hostname="mx.north.test",
        postmaster=parse_address("postmaster@north.test"),
        original=OriginalMessage(
            queue_id=QueueId("01KFZK5T3MXW7QNH"),
            reverse_path=parse_address("ada@north.test"),
            arrived_at=ARRIVED,
            beginning=beginning,
            complete=True,
            message_id="<1@north.test>",
        ),
        recipients=recipients,
    )


def assert_golden(name: str, text: str) -> None:
    """The whole text is that of the file. To change it: delete the file, run the test twice, and read what is new."""
    file = GOLDEN / name
    if not file.exists():
        file.write_text(text, encoding="utf-8")
        pytest.fail(f"{name} was missing, and is written now: read it")
    assert text == file.read_text(encoding="utf-8")


NO_SUCH = reply(550, "5.1.1", "<nobdy@south.test>: Recipient address rejected: User unknown in virtual mailbox table")
GREYLISTED = reply(450, "4.7.1", "Greylisted, see https://south.test/greylisting\nCome back in 5 minutes")


def test_a_report_of_failure() -> None:
    told = (
        failed(NO_SUCH, to="nobdy@south.test"),
        failed(NO_SUCH, to="nobody@south.test"),
        failed(reply(552, "5.2.2", "Over quota"), original_recipient="rfc822;team@north.test"),
    )
    assert_golden("report_failed.txt", build_report(request(*told)).content.decode().replace("\r\n", "\n"))


def test_a_report_of_delay() -> None:
    content = build_report(request(status(Action.DELAYED, GREYLISTED), waited_s=4 * 3600)).content
    assert_golden("report_delayed.txt", content.decode().replace("\r\n", "\n"))


def test_the_journey_of_a_deferred_then_delivered_message() -> None:
    queue_id = QueueId("01KFZK5T3MXW7QNH")
    bob, eve = "bob@south.test", "eve@south.test"
    host: dict[str, Any] = {"queue_id": queue_id, "next_hop": "mx.south.test:25", "address": "192.0.2.7"}
    events: list[JourneyEvent] = [
        Accepted(
            queue_id=queue_id,
            at=ARRIVED,
            reverse_path="ada@north.test",
            forward_paths=(bob, eve),
            size_octets=4096,
            peer="192.0.2.1",
            hello="laptop",
            protocol="ESMTPSA",
            login="ada@north.test",
            message_id="<1@north.test>",
            session="s17",
        ),
        *(Queued(queue_id=queue_id, at=ARRIVED, forward_path=path, domain="south.test") for path in (bob, eve)),
        Attempted(
            **host,
            forward_path=bob,
            at=ARRIVED + 0.4,
            outcome="deferred",
            reply="450 4.7.1 Greylisted, come back in 5 minutes",
            from_peer=True,
            attempt=1,
            duration_s=0.34,
            next_at=ARRIVED + 301,
        ),
        Attempted(
            **host,
            forward_path=eve,
            at=ARRIVED + 0.4,
            outcome="failed",
            reply="550 5.1.1 No such user",
            from_peer=True,
            attempt=1,
            duration_s=0.34,
        ),
        Reported(
            queue_id=queue_id,
            at=ARRIVED + 0.4,
            forward_paths=(eve,),
            action="failed",
            report_queue_id=QueueId("01KFZK5V8REPORT"),
        ),
        Attempted(
            **host,
            forward_path=bob,
            at=ARRIVED + 305,
            outcome="deferred",
            reply=str(NO_CONNECTION),
            from_peer=False,
            attempt=2,
            duration_s=0.002,
            next_at=ARRIVED + 905,
        ),
        Attempted(
            **host,
            forward_path=bob,
            at=ARRIVED + 906,
            outcome="delivered",
            reply="250 2.0.0 Ok: queued as 4fXk2",
            from_peer=True,
            attempt=3,
            duration_s=1.2,
        ),
    ]
    now = ARRIVED + 1000
    told = Told(
        events=tuple(events),
        standings=standing(events, (), ("eve@north.test",), now),
        relations=related(events),
        now=now,
    )
    assert_golden("journey.txt", "\n".join(story(told, width=None, dialogues=False)) + "\n")


SPAM = reply(554, "5.7.1", "Message rejected as spam\nsee https://south.test/help")
REFUSED_LOGIN = reply(535, "5.7.8", "Authentication credentials invalid")
NO_TLS = reply(451, "4.7.5", "The certificate of mx.south.test is not valid")
ours: dict[str, Any] = {"from_peer": False}
EXPIRED = {"expired": True}
# What was tried, the report's recipient, and words that must stand in it: the event, the side, what to do.
KINDS: dict[str, tuple[RecipientStatus, str, str, str]] = {
    "no such user": (failed(NO_SUCH), "could not be delivered.", "the address", "Check the spelling"),
    "full": (failed(reply(552, "5.2.2", "x")), "mailbox is full", "recipient's side", "make room"),
    "spam": (failed(SPAM), "takes it for spam", "recipient's side", "postmaster of the recipient's"),
    "no domain": (failed(NO_SUCH_DOMAIN, **ours), "does not exist", "the address", "Check the spelling"),
    "refused for days": (failed(NO_CONNECTION, **ours, **EXPIRED), "within 5 days", "on the way", "server"),
    "no TLS": (failed(NO_TLS, **ours, **EXPIRED), "encryption", "cannot be told", "operator of your own"),
    "too large": (failed(TOO_LARGE, **ours), "larger", "yours", "smaller message"),
    "8-bit": (failed(CANNOT_TAKE_8BIT, **ours), "too old", "recipient's side", "without letters beyond ASCII"),
    "UTF-8": (failed(CANNOT_TAKE_UTF8, to="jörg@x.test", **ours), "jörg@x.test", "recipient's side", "plain letters"),
    "login refused": (failed(REFUSED_LOGIN, **EXPIRED), "refuses our login", "our side", "operator of your own"),
    "uncertain": (failed(MAY_HAVE_ARRIVED, **ours, **EXPIRED, may_have_arrived=True), "nobody can tell", "way", "Ask"),
    "delayed": (status(Action.DELAYED, GREYLISTED), "You need not send it again.", "recipient's side", "Nothing yet"),
    "relayed": (status(Action.RELAYED, reply(250, None, "queued")), "passed on to another", "", ""),
    "delivered": (status(Action.DELIVERED, reply(250, "2.1.5", "x"), **ours), "delivered to its mailbox", "", ""),
    "expanded": (status(Action.EXPANDED, reply(250, "2.1.5", "x"), **ours), "several addresses", "", ""),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_what_happened_whose_side_and_what_to_do(kind: str) -> None:
    told, happened, side, advice = KINDS[kind]
    text = human_text(request(told, waited_s=5 * DAY_S), "The whole message is attached.")
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    assert paragraphs[0].startswith('Your message "The minutes of Monday" to ')
    assert happened in " ".join(paragraphs)
    if told.action in (Action.FAILED, Action.DELAYED):
        assert re.search(rf"[Oo]n whose side|cause is.*{re.escape(side)}", paragraphs[1])
        assert re.match(rf"What to do: .*{re.escape(advice)}", paragraphs[2])
        assert paragraphs[3].endswith(":")
        assert paragraphs[4].startswith(f"> {told.reply.code}")
    assert paragraphs[-1].startswith("If you ask somebody for help, show them all of this.")
    assert "01KFZK5T3MXW7QNH" in paragraphs[-1]
    assert max(map(len, text.splitlines())) <= 76
    assert len(set(paragraphs)) == len(paragraphs), "something is said twice"


def test_many_recipients_of_one_fate_are_listed_once() -> None:
    text = human_text(request(*(failed(NO_SUCH, to=f"b{n}@south.test") for n in range(9))), "")
    assert "to the recipients below could not be delivered" in " ".join(text.split())
    assert all(text.count(f"    b{n}@south.test\n") == 1 for n in range(9))
    assert text.count("What to do:") == 1


def test_what_may_have_arrived_has_a_subject_of_its_own() -> None:
    doubtful = KINDS["uncertain"][0]
    assert subject((doubtful,)) == "May not have arrived: bob@south.test"
    assert subject((doubtful, failed(NO_SUCH, to="eve@south.test"))).startswith("Could not be delivered: ")


@pytest.mark.conformance("C189")
def test_a_hostile_subject_stays_a_name() -> None:
    evil = b"Subject: =?utf-8?q?x=22=0D=0A=0D=0A=3E_250_ok=1B[2J=E2=80=AE?=" + b"y" * 500 + b"\r\n\r\n"
    report = build_report(request(failed(NO_SUCH), beginning=evil))
    text = human_text(request(failed(NO_SUCH), beginning=evil), "")
    assert not re.search(r"(?m)^> 250|[\x00-\x09\x0b-\x1f\u202e]", text)
    assert max(map(len, text.splitlines())) <= 76
    assert b"\r\nAction: failed\r\n" in report.content
