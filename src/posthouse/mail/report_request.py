"""What a delivery status notification is made of: the values that forwarding and reception hand to `build_report`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from posthouse.mail.acceptance import Ret
from posthouse.mail.address import Address
from posthouse.mail.ids import QueueId
from posthouse.mail.reply import Reply

RETURN_LIMIT_OCTETS = 64 * 1024
"""A report returns no more than this much of the original, so a report is never much larger than that."""


class Action(StrEnum):
    """What became of the message for a recipient (RFC 3464 §2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientStatus:
    """One recipient's group of fields. Times are Unix seconds."""

    final_recipient: Address
    action: Action
    reply: Reply
    """The outcome's own; where time ran out, the last one before that."""
    from_peer: bool
    """Whether the reply came from `remote_host`; else it is ours, and neither Remote-MTA nor Diagnostic-Code stands."""
    remote_host: str = ""
    remote_ip: str = ""
    original_recipient: str | None = None
    """ORCPT as `type;decoded`; None when the sender gave none."""
    last_attempt_at: float | None = None
    will_retry_until: float | None = None
    expired: bool = False
    """It failed because it was tried for as long as it may be."""
    may_have_arrived: bool = False
    """The content was sent, and its reply never seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginalMessage:
    """The message that the report is about. `beginning` is its prefix and content up to RETURN_LIMIT_OCTETS."""

    queue_id: QueueId
    reverse_path: Address
    """Whom the report goes to; there is no report about mail from the null path."""
    arrived_at: float
    beginning: bytes
    complete: bool
    """Whether `beginning` is all of it."""
    envelope_id: str | None = None
    """ENVID, decoded."""
    ret: Ret | None = None
    message_id: str | None = None
    smtputf8: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRequest:
    """One report about one message, for one or more of its recipients. `queue_id` is the report's own."""

    queue_id: QueueId
    now: float
    hostname: str
    postmaster: Address
    original: OriginalMessage
    recipients: tuple[RecipientStatus, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The whole content, ready to be accepted from the null path `<>` (RFC 3464 §2).

    `eight_bit`: the body needs 8BITMIME. `smtputf8`: the header section holds UTF-8, so it needs SMTPUTF8.
    """

    content: bytes
    eight_bit: bool
    smtputf8: bool
