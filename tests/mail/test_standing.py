"""Where a message stands now, and the journeys that belong to its own."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.cli.journeys_to_tell import ACCEPTED, AT, DELIVERED, GREYLISTED, NO_SUCH, PLACED, QUEUED, Q, R, waiting

from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Accepted, Deleted, JourneyEvent, Operated, Queued, Refused, Reported, Retrieved
from posthouse.mail.standing import Standing, related, standing

BOB, CY = "bob@south.test", "cy@north.test"
REPORTED = Reported(queue_id=Q, at=AT, forward_paths=(BOB,), action="failed", report_queue_id=R)
REMOVED = Operated(queue_id=Q, at=AT, action="remove", forward_paths=(BOB,), by="root")
WHO: dict[str, Any] = {"queue_id": Q, "at": AT, "login": CY, "uidl": Q, "peer": ""}


def of(*events: JourneyEvent, **given: Any) -> Standing:
    (one,) = standing(events, given.get("rows", ()), given.get("holders", ()), AT + 360)
    return one


@pytest.mark.parametrize(
    ("row", "state", "text", "command"),
    [
        ({}, "waiting", "waits for its 3rd try in 9 min; it is given up after 8 March 2026, 10:12 UTC", ""),
        (
            {"not_before": AT, "attempts": 0, "expires_at": AT},
            "waiting",
            "waits for its 1st try at once: it is due",
            "",
        ),
        ({"claimed": True, "attempts": 1}, "trying", "being tried now, for the 1st time", ""),
        ({"held": True}, "held", "held, until somebody lets it go on", f"posthouse queue release {Q}"),
        (
            {"held": True, "held_by_restore": True},
            "held",
            "held since a restore, until somebody lets it go on",
            f"posthouse queue release {Q}",
        ),
        (
            {"held": True, "held_by_limit": True},
            "held",
            "held: its account had reached its sending limit, until somebody lets it go on",
            f"posthouse queue release {Q}",
        ),
        (
            {"held": True, "sending_at": AT},
            "uncertain",
            "may have arrived, and is not sent again unless somebody says so",
            f"posthouse queue show {Q}",
        ),
    ],
)
def test_in_the_queue(row: dict[str, Any], state: str, text: str, command: str) -> None:
    found = of(ACCEPTED, QUEUED, GREYLISTED, rows=(waiting(**row),))
    assert found == Standing(recipients=(BOB,), state=state, text=text, command=command)


@pytest.mark.parametrize(
    ("last", "state", "text"),
    [
        (DELIVERED, "delivered", "delivered to mx.south.test, which has it since"),
        (REMOVED, "removed", "taken out of the queue by root"),
        (NO_SUCH, "failed", "not delivered; the sender wanted no report"),
        (REPORTED, "failed", f"not delivered; returned to the sender in report {R}"),
        (
            dataclasses.replace(REPORTED, report_queue_id=None, reason="it came from the null path"),
            "failed",
            "not delivered, and the sender was not told: it came from the null path",
        ),
        (GREYLISTED, "gone", "no longer in the queue"),
    ],
)
def test_no_longer_in_the_queue(last: JourneyEvent, state: str, text: str) -> None:
    found = of(ACCEPTED, QUEUED, GREYLISTED, last)
    assert (found.state, found.text) == (state, text)
    assert found.command == (f"posthouse journey {R}" if last is REPORTED else "")


def test_a_recipient_that_was_queued_again_waits_whatever_was_before() -> None:
    assert of(ACCEPTED, QUEUED, NO_SUCH, REPORTED, rows=(waiting(),)).state == "waiting"


@pytest.mark.parametrize(
    ("events", "holders", "state", "text"),
    [
        ((), (CY,), "in_maildrop", f"in the maildrop of {CY}, not read yet"),
        (
            (Retrieved(**WHO),),
            (CY,),
            "in_maildrop",
            f"in the maildrop of {CY}, read last on 3 March 2026, 10:12 UTC",
        ),
        (
            (Retrieved(**WHO), Deleted(**WHO)),
            (),
            "deleted",
            f"deleted from the maildrop of {CY} on 3 March 2026, 10:12 UTC",
        ),
        ((), ("eve@north.test",), "gone", f"no longer in the maildrop of {CY}"),
    ],
)
def test_in_a_maildrop(events: tuple[JourneyEvent, ...], holders: tuple[str, ...], state: str, text: str) -> None:
    found = of(ACCEPTED, PLACED, *events, holders=holders)
    assert found == Standing(recipients=(CY,), state=state, text=text)


def test_those_who_stand_alike_stand_together() -> None:
    queued = [dataclasses.replace(QUEUED, forward_path=f"{name}@south.test") for name in "abcde"]
    delivered = [dataclasses.replace(DELIVERED, forward_path=one.forward_path) for one in queued[:4]]
    first, second = standing([ACCEPTED, *queued, *delivered, PLACED], (), (), AT)[:2]
    assert str(first).startswith("a@south.test, b@south.test, c@south.test and 1 more: delivered")
    assert second.recipients == ("e@south.test",)


def test_refused_mail_is_nowhere() -> None:
    refused = Refused(
        queue_id=Q, at=AT, command="RCPT", reply="550", peer="", hello="", reverse_path=None, forward_paths=(BOB,)
    )
    assert str(of(refused)) == "refused; this house has nothing of it"


def test_what_others_chose_is_harmless_and_bounded() -> None:
    path = "\x1b[2J" + "x" * 1000
    found = str(of(dataclasses.replace(QUEUED, forward_path=path)))
    assert found.isprintable()
    assert len(found) <= 400


def test_a_report_and_its_message_lead_to_each_other() -> None:
    report = Accepted(
        queue_id=R,
        at=AT,
        reverse_path="",
        forward_paths=(CY,),
        size_octets=1,
        peer="",
        hello="",
        protocol="",
        source="report",
        about=Q,
    )
    (there,) = related([ACCEPTED, REPORTED, REPORTED])
    (back,) = related([report])
    assert (there.queue_id, there.what) == (R, "the report to its sender (failed)")
    assert (back.queue_id, back.command) == (Q, f"posthouse journey {Q}")
    untold = dataclasses.replace(REPORTED, report_queue_id=None)
    assert related([ACCEPTED, untold]) == ()


def test_nothing_is_known_of_a_journey_that_begins_in_the_middle() -> None:
    assert standing([dataclasses.replace(REMOVED, queue_id=QueueId("Q"))], (), (), AT) == ()
    assert standing([Queued(queue_id=Q, at=AT, forward_path=BOB, domain="d")], (), (), AT)[0].state == "gone"
