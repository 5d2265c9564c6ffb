"""Spool rows for tests, with everything that a test does not care about filled in."""

from __future__ import annotations

from typing import Any

from posthouse.mail.acceptance import Destination
from posthouse.mail.address import Address
from posthouse.mail.content import ContentFacts
from posthouse.mail.ids import ContentId, QueueId
from posthouse.mail.spool import SpoolMessage, SpoolRow
from tests.fake_world import START

SENDER = Address("ada", "here.test")
DAY_S = 86400.0


def a_message(queue_id: str = "q1", *, content: bytes = b"", **fields: Any) -> SpoolMessage:
    """A message; `content` gives its size only."""
    values: dict[str, Any] = {
        "queue_id": QueueId(queue_id),
        "accepted_at": START,
        "prefix": b"Received: here\r\n",
        "content_id": ContentId(1),
        "content_octets": len(content),
        "facts": ContentFacts(),
        "ret": None,
        "envelope_id": None,
        "smtputf8": False,
        "body": "7BIT",
    }
    return SpoolMessage(**{**values, **fields})


def a_row(local_part: str = "bob", *, message: SpoolMessage | None = None, **fields: Any) -> SpoolRow:
    """A claimed row of the first attempt."""
    values: dict[str, Any] = {
        "message": message or a_message(),
        "recipient_number": 0,
        "forward_path": Address(local_part, "there.test"),
        "reverse_path": SENDER,
        "destination": Destination("", "there.test"),
        "not_before": START,
        "expires_at": START + 5 * DAY_S,
        "attempts": 1,
        "held": False,
        "delay_notified": False,
        "original_recipient": None,
        "notify": None,
        "identity": None,
        "last_reply": None,
        "claimed": True,
    }
    return SpoolRow(**{**values, **fields})
