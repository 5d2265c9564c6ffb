"""Journeys as a house writes them, for the stories in `tests/cli/stories/`."""

from __future__ import annotations

import dataclasses

from posthouse.cli.story_layout import Told
from posthouse.mail.acceptance import Destination
from posthouse.mail.address import parse_address
from posthouse.mail.content import ContentFacts
from posthouse.mail.ids import ContentId, QueueId
from posthouse.mail.journey import (
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
from posthouse.mail.spool import SpoolMessage, SpoolRow
from posthouse.mail.standing import related, standing

AT = 1_772_532_723.0
"""3 March 2026, 10:12:03 UTC."""
Q = QueueId("01KJSJ45NQ7F3Z9T2B8M6XW4CD")
R = QueueId("01KJSK0A1BZ6Y5T4R3W2Q1P0NM")

ACCEPTED = Accepted(
    queue_id=Q,
    at=AT,
    reverse_path="ada@north.test",
    forward_paths=("bob@south.test",),
    size_octets=4096,
    peer="192.0.2.1",
    hello="laptop.lan",
    protocol="ESMTPSA",
    login="ada@north.test",
    message_id="<tea-on-sunday@laptop.lan>",
    session="7f3a",
)
QUEUED = Queued(queue_id=Q, at=AT, forward_path="bob@south.test", domain="south.test")
GREYLISTED = Attempted(
    queue_id=Q,
    at=AT + 0.62,
    forward_path="bob@south.test",
    outcome="deferred",
    reply="450 4.7.1 <bob@south.test>: Recipient address rejected: Greylisted, see https://south.test/grey",
    from_peer=True,
    next_hop="mx.south.test:25",
    address="198.51.100.7",
    attempt=1,
    duration_s=0.607,
    next_at=AT + 300.62,
    transcript=(
        "C: (connects to mx.south.test, 198.51.100.7:25)",
        "S: 220 mx.south.test ESMTP",
        "C: EHLO mx.north.test",
        "S: 250-mx.south.test",
        "S: 250 PIPELINING",
        "C: MAIL FROM:<ada@north.test>",
        "C: RCPT TO:<bob@south.test>",
        "C: DATA",
        "S: 250 2.1.0 Ok",
        "S: 450 4.7.1 <bob@south.test>: Recipient address rejected: Greylisted, see https://south.test/grey",
        "S: 554 5.5.1 Error: no valid recipients",
    ),
    transcript_ms=(0, 24, 25, 48, 48, 49, 49, 49, 73, 603, 603),
)
DELIVERED = dataclasses.replace(
    GREYLISTED,
    at=AT + 301.2,
    outcome="delivered",
    reply="250 2.0.0 Ok: queued as 4Z7hKq1Lm2z",
    attempt=2,
    duration_s=0.21,
    next_at=None,
    transcript=("S: 354 End data with <CR><LF>.<CR><LF>", "C: (content) .", "S: 250 2.0.0 Ok: queued as 4Z7hKq1Lm2z"),
    transcript_ms=(120, 121, 208),
)
NO_SUCH = dataclasses.replace(
    GREYLISTED, outcome="failed", reply="550 5.1.1 <bob@south.test>: User unknown", next_at=None, transcript=()
)
DEAD = dataclasses.replace(
    GREYLISTED,
    reply="451 4.4.1 No connection to mx.south.test (198.51.100.7): Connection refused",
    from_peer=False,
    transcript=("C: (connects to mx.south.test, 198.51.100.7:25)", "S: (Connection refused)"),
    transcript_ms=(),
)
PLACED = Placed(queue_id=Q, at=AT, forward_path="cy@north.test", login="cy@north.test", folder="Inbox", uidl=str(Q))


def waiting(**changes: object) -> SpoolRow:
    """Bob's row in the queue."""
    message = SpoolMessage(
        queue_id=Q,
        accepted_at=AT,
        prefix=b"",
        content_id=ContentId(1),
        content_octets=4096,
        facts=ContentFacts(),
        ret=None,
        envelope_id=None,
        smtputf8=False,
        body="7BIT",
    )
    row = SpoolRow(
        message=message,
        recipient_number=0,
        forward_path=parse_address("bob@south.test"),
        reverse_path=parse_address("ada@north.test"),
        destination=Destination("", "south.test"),
        not_before=AT + 900,
        expires_at=AT + 5 * 86_400,
        attempts=2,
        held=False,
        delay_notified=False,
        original_recipient=None,
        notify=None,
        identity=None,
        last_reply=None,
        claimed=False,
    )
    return dataclasses.replace(row, **changes)  # type: ignore[arg-type]


def told(*events: JourneyEvent, rows: tuple[SpoolRow, ...] = (), holders: tuple[str, ...] = ()) -> Told:
    now = AT + 360
    return Told(events=events, standings=standing(events, rows, holders, now), relations=related(events), now=now)


STORIES = {
    "put_off_then_delivered": told(ACCEPTED, QUEUED, GREYLISTED, DELIVERED),
    "still_waiting": told(
        ACCEPTED,
        QUEUED,
        DEAD,
        dataclasses.replace(DEAD, at=AT + 301, attempt=2, next_at=AT + 900),
        rows=(waiting(),),
    ),
    "returned": told(
        ACCEPTED,
        QUEUED,
        NO_SUCH,
        Reported(queue_id=Q, at=AT + 0.62, forward_paths=("bob@south.test",), action="failed", report_queue_id=R),
    ),
    "report": told(
        Accepted(
            queue_id=R,
            at=AT + 0.62,
            reverse_path="",
            forward_paths=("ada@north.test",),
            size_octets=6300,
            peer="",
            hello="",
            protocol="",
            source="report",
            about=Q,
        ),
        Placed(
            queue_id=R, at=AT + 0.62, forward_path="ada@north.test", login="ada@north.test", folder="Inbox", uidl=str(R)
        ),
        holders=("ada@north.test",),
    ),
    "here_and_read": told(
        dataclasses.replace(
            ACCEPTED, reverse_path="eve@far.test", login=None, forward_paths=("cy@north.test",), protocol="SMTP"
        ),
        PLACED,
        Retrieved(queue_id=Q, at=AT + 60, login="cy@north.test", uidl=str(Q), peer="192.0.2.9"),
        Deleted(queue_id=Q, at=AT + 61.5, login="cy@north.test", uidl=str(Q), peer="192.0.2.9"),
    ),
    "held": told(
        ACCEPTED,
        QUEUED,
        Operated(queue_id=Q, at=AT + 90_000, action="hold", forward_paths=("bob@south.test",), by="root"),
        rows=(waiting(held=True),),
    ),
    "refused": told(
        Refused(
            queue_id=Q,
            at=AT,
            command="RCPT",
            reply="550 5.1.1 There is no such mailbox here",
            peer="203.0.113.5",
            hello="mail.far.test",
            reverse_path="eve@far.test",
            forward_paths=("nobdy@north.test",),
            session="91c0",
        )
    ),
}
