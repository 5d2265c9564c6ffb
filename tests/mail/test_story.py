"""The journey in plain sentences."""

from __future__ import annotations

import dataclasses
import unicodedata
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.ids import QueueId
from posthouse.mail.journey import (
    LEFT_ALONE,
    Accepted,
    Attempted,
    Deleted,
    JourneyEvent,
    Operated,
    Placed,
    Queued,
    Refused,
    Reported,
    Retrieved,
)
from posthouse.mail.story import tell

Q = QueueId("01QUEUE")
ACCEPTED = Accepted(
    queue_id=Q,
    at=100.0,
    reverse_path="ada@north.test",
    forward_paths=("bob@south.test",),
    size_octets=4096,
    peer="192.0.2.1",
    hello="laptop",
    protocol="ESMTPS",
)
DEFERRED = Attempted(
    queue_id=Q,
    at=101.0,
    forward_path="bob@south.test",
    outcome="deferred",
    reply="450 4.7.1 Greylisted",
    from_peer=True,
    next_hop="mx.south.test",
    address="192.0.2.2",
    attempt=1,
    duration_s=0.34,
    next_at=401.0,
)
REFUSED = Refused(
    queue_id=Q,
    at=1.0,
    command="RCPT",
    reply="550 5.1.1 No such mailbox",
    peer="192.0.2.1",
    hello="spam",
    reverse_path="x@y.test",
    forward_paths=("nobdy@south.test",),
)
WHO = {"queue_id": Q, "at": 1.0, "login": "bob@south.test", "uidl": Q, "peer": "192.0.2.9"}
REPORTED = Reported(queue_id=Q, at=1.0, forward_paths=("b@s.test",), action="failed", report_queue_id=QueueId("01R"))
OPERATED = Operated(queue_id=Q, at=1.0, action="hold", forward_paths=("b@s.test",), by="root")


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (ACCEPTED, "Accepted from ada@north.test (192.0.2.1, said it is laptop) for bob@south.test, 4.1 KB"),
        (
            dataclasses.replace(ACCEPTED, reverse_path="", login="ada", hello="", forward_paths=("a", "b", "c", "d")),
            "Accepted from nobody (<>) (192.0.2.1, logged in as ada) for a, b, c and 1 more (4 recipients), 4.1 KB",
        ),
        (
            dataclasses.replace(ACCEPTED, source="report", about=QueueId("01ABOUT")),
            "A report about 01ABOUT was written here for bob@south.test, 4.1 KB",
        ),
        (dataclasses.replace(ACCEPTED, source="collection"), "Collected from 192.0.2.1 for bob@south.test, 4.1 KB"),
        (
            dataclasses.replace(ACCEPTED, source="written", login="ada"),
            "Written here by ada for bob@south.test, 4.1 KB",
        ),
        (
            Placed(queue_id=Q, at=1.0, forward_path="b@s.test", login="bob", folder="Inbox", uidl="u"),
            "Put into the maildrop of bob, for b@s.test",
        ),
        (
            Queued(queue_id=Q, at=1.0, forward_path="b@s.test", domain="s.test"),
            "Waits to be sent on to s.test, for b@s.test",
        ),
        (
            Queued(queue_id=Q, at=1.0, forward_path="b@s.test", domain="s.test", via="smtp.p.test"),
            "Waits to be sent on to s.test by way of smtp.p.test, for b@s.test",
        ),
        (DEFERRED, "Put off for bob@south.test: mx.south.test answered 450 4.7.1 Greylisted; next try in 5 min"),
        (
            dataclasses.replace(DEFERRED, reply="450 No", next_at=101.0 + 3 * 86400),
            "Put off for bob@south.test: mx.south.test answered 450 No; next try on 4 January 1970, 00:01 UTC",
        ),
        (
            dataclasses.replace(DEFERRED, reply="451 4.4.1 No answer", from_peer=False, next_at=None),
            "Put off for bob@south.test: 451 4.4.1 No answer",
        ),
        (
            dataclasses.replace(DEFERRED, outcome="delivered", reply="250 OK"),
            "Delivered: mx.south.test (192.0.2.2) took responsibility for bob@south.test",
        ),
        (
            dataclasses.replace(DEFERRED, outcome="delivered", next_hop="192.0.2.2:2525"),
            "Delivered: 192.0.2.2:2525 took responsibility for bob@south.test",
        ),
        (
            dataclasses.replace(DEFERRED, outcome="delivered", next_hop="[2001:db8::2]:25", address="2001:db8::2"),
            "Delivered: [2001:db8::2] took responsibility for bob@south.test",
        ),
        (
            dataclasses.replace(DEFERRED, outcome="failed", reply="550 5.1.1 No"),
            "Failed for bob@south.test: mx.south.test answered 550 5.1.1 No",
        ),
        (
            dataclasses.replace(DEFERRED, outcome="uncertain", reply="451 4.4.2 Lost"),
            "May have arrived for bob@south.test: 451 4.4.2 Lost; next try in 5 min",
        ),
        (dataclasses.replace(DEFERRED, outcome="new", next_hop=""), None),
        (REPORTED, "Told the sender that it failed for b@s.test, in the report 01R"),
        (
            dataclasses.replace(REPORTED, report_queue_id=None, reason="the sender wants none"),
            "Did not tell the sender that it failed for b@s.test: the sender wants none",
        ),
        (Retrieved(**WHO), "Read by bob@south.test (192.0.2.9)"),  # type: ignore[arg-type]
        (Deleted(**WHO), "Deleted by bob@south.test (192.0.2.9)"),  # type: ignore[arg-type]
        (OPERATED, "The operator root put it on hold for b@s.test"),
        (REFUSED, "Refused at RCPT: mail from x@y.test for nobdy@south.test"),
        (dataclasses.replace(REFUSED, command="MAIL", reverse_path=None, forward_paths=()), "Refused at MAIL"),
    ],
)
def test_a_sentence_for_each_event(event: JourneyEvent, text: str | None) -> None:
    (line,) = tell([event])
    assert line.at == event.at
    assert text is None or line.text == text


def test_codes_are_explained() -> None:
    (line,) = tell([DEFERRED])
    assert line.details[0] == "Attempt 1, at mx.south.test (192.0.2.2), took 340 ms"
    assert line.details[1].endswith("The cause is at the recipient's house.")
    assert line.details[2].startswith("Nothing to do yet: it is tried again by itself. If it lasts, tell the sender: ")
    (line,) = tell([dataclasses.replace(DEFERRED, outcome="failed")])
    assert line.details[2].startswith("What to tell the sender: ")
    (line,) = tell([dataclasses.replace(DEFERRED, outcome="failed", reply="535 5.7.8 wrong password")])
    assert line.details[2] == "What to do: the answer tells what this house has to mend."
    assert len(tell([dataclasses.replace(DEFERRED, reply="nothing with a code")])[0].details) == 1


def test_what_a_code_means_is_said_once() -> None:
    again, other = dataclasses.replace(DEFERRED, attempt=2), dataclasses.replace(DEFERRED, reply="452 4.2.2 full")
    assert [len(line.details) for line in tell([DEFERRED, again, other, again])] == [3, 1, 3, 1]


def test_a_dialogue_has_its_times_and_the_meaning_of_its_codes() -> None:
    said = dataclasses.replace(
        DEFERRED,
        transcript=("C: (connects)", "S: 220-mx", "S: 220 mx", "C: QUIT", "S: 4", "S: 421 \x1b[2Jbye"),
        transcript_ms=(0, 20, 20, 15, 30, 1530),
    )
    (line,) = tell([said])
    assert [each.since_last_s for each in line.dialogue] == [0.0, 0.02, 0.0, 0.0, 0.015, 1.5]
    assert [each.meaning for each in line.dialogue] == ["", "", "ready", "", "", "not available now, closing"]
    assert line.dialogue[-1].line == "S: 421 \\x1b[2Jbye"
    for times in ((), (1, 2)):
        (older,) = tell([dataclasses.replace(said, transcript_ms=times)])
        assert {each.since_last_s for each in older.dialogue} == {None}
    assert tell([ACCEPTED])[0].dialogue == ()


@pytest.mark.parametrize(
    ("protocol", "told"),
    [
        ("ESMTPS", "By ESMTPS, encrypted"),
        ("UTF8SMTPSA", "By UTF8SMTPSA, encrypted, with a login"),
        ("SMTP", "By SMTP, in clear"),
        ("ESMTPA", "By ESMTPA, in clear, with a login"),
        ("LMTP", "By LMTP"),
    ],
)
def test_how_it_came_is_said_in_words(protocol: str, told: str) -> None:
    assert tell([dataclasses.replace(ACCEPTED, protocol=protocol)])[0].details == (told,)


def test_a_refusal_tells_the_operator_what_to_do() -> None:
    (line,) = tell([REFUSED])
    assert line.details == (
        "We said 550 5.1.1 No such mailbox",
        "Nobody has this address.",
        "If somebody should: posthouse account add ADDRESS, or posthouse alias add ADDRESS TARGET",
        "Peer 192.0.2.1, said it is spam",
    )


def test_time_since_the_last_event_is_never_negative() -> None:
    lines = tell([ACCEPTED, DEFERRED, dataclasses.replace(DEFERRED, at=50.0)])
    assert [line.since_last_s for line in lines] == [0.0, 1.0, 0.0]


def test_what_only_this_house_can_mend_is_no_message_to_the_sender() -> None:
    (line,) = tell([dataclasses.replace(DEFERRED, reply="451 4.4.3 The name servers gave no answer", from_peer=False)])
    assert line.details[-1].endswith("If it lasts, the answer tells what this house has to mend.")


def test_a_host_that_was_left_alone_is_no_try() -> None:
    reply = f"451 4.4.1 mx.south.test (192.0.2.2) {LEFT_ALONE}"
    (line,) = tell([dataclasses.replace(DEFERRED, reply=reply, from_peer=False, duration_s=0.0004)])
    assert line.text == f"Not tried for bob@south.test: {reply}; next try in 5 min"
    assert line.details[0] == (
        "No connection was made, since other mail had just found nobody there; it counts as attempt 1"
    )
    assert "took" not in " ".join((line.text, *line.details))
    (said,) = tell([dataclasses.replace(DEFERRED, reply=reply)])
    assert said.text.startswith("Put off"), "another server may say the same words"


HELD = Operated(queue_id=ACCEPTED.queue_id, at=101.0, forward_paths=("b@far.test",), action="limit", by="ann@x.test")


def test_what_the_house_holds_is_told_with_the_way_to_decide() -> None:
    (line,) = tell([HELD])
    assert line.text.startswith("Held here for b@far.test: ann@x.test sent to more recipients")
    assert line.details == (f"Until somebody decides: posthouse queue show {HELD.queue_id}",)


def test_every_kind_has_its_line() -> None:
    told = {ACCEPTED, DEFERRED, REFUSED, REPORTED, OPERATED, Retrieved(**WHO), Deleted(**WHO)}  # type: ignore[arg-type]
    assert {type(event) for event in told} | {Placed, Queued} == set(get_args(JourneyEvent))


@pytest.mark.conformance("C283")
@given(st.text(), st.text(), st.text())
def test_no_control_character_is_shown(hello: str, reply: str, path: str) -> None:
    events: list[JourneyEvent] = [
        dataclasses.replace(ACCEPTED, hello=hello, reverse_path=path, message_id=reply, session=hello),
        dataclasses.replace(DEFERRED, reply=reply, next_hop=hello, transcript=(reply, hello)),
        dataclasses.replace(DEFERRED, reply="550 " + reply, outcome=path),
        dataclasses.replace(REFUSED, command=reply, hello=hello, forward_paths=(path,) * 5),
        dataclasses.replace(REPORTED, reason=reply, forward_paths=(path,)),
        dataclasses.replace(OPERATED, by=hello, action=reply),
        Retrieved(**(WHO | {"peer": hello, "uidl": reply})),  # type: ignore[arg-type]
    ]
    for line in tell(events):
        for text in (line.text, *line.details, *(each.line for each in line.dialogue)):
            assert not {unicodedata.category(c) for c in text} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
            assert len(text) <= 1000


def test_long_texts_are_cut() -> None:
    (line,) = tell([dataclasses.replace(REFUSED, reply="550 " + "x" * 100_000, hello="y" * 100_000)])
    assert all(len(detail) <= 400 for detail in line.details)
    assert [detail[-1] for detail in line.details] == ["…", "…"]
    (line,) = tell([dataclasses.replace(REFUSED, forward_paths=("z" * 100_000,))])
    assert len(line.text) == 1000
    assert line.text.endswith("…")
