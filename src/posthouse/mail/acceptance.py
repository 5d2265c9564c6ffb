"""The plan of one `accept`: everything that becomes durable together before the `250` (RFC 5321 §6.1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from posthouse.mail.address import Address, ReversePath
from posthouse.mail.content import SealedContent
from posthouse.mail.folders import INBOX
from posthouse.mail.ids import AccountId, QueueId, SourceId, Uidl
from posthouse.mail.journey import JourneyEvent
from posthouse.mail.record import record


class Notify(StrEnum):
    """When the sender wants a report about a recipient (RFC 3461 §4.1)."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


class Ret(StrEnum):
    """How much of the message a report returns (RFC 3461 §4.3)."""

    FULL = "FULL"
    HDRS = "HDRS"


@dataclass(frozen=True, slots=True, order=True)
class Destination:
    """Where spool rows are claimed together: an identity's own submission server (`via`, "" for none) and a domain."""

    via: str
    domain: str


@record
class Placement:
    """One entry in a maildrop. `prefix` is the entry's own: Return-Path and Delivered-To, ending in CRLF."""

    account: AccountId
    forward_path: Address
    prefix: bytes
    folder: str = INBOX
    flags: frozenset[str] = frozenset()
    uidl: Uidl | None = None
    """None: the queue id."""
    copy: int = 0
    """Above 0: a further entry of the same message, such as its writer's own; it has a UIDL of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """One spool row: a recipient to be served elsewhere. Times are Unix seconds."""

    forward_path: Address
    reverse_path: ReversePath
    destination: Destination
    not_before: float
    expires_at: float
    original_recipient: str | None = None
    """ORCPT as `type;decoded` (RFC 3461 §4.2)."""
    notify: frozenset[Notify] | None = None
    identity: str | None = None
    """The sender's address, where it is an identity with a `via` of its own."""
    counted: bool = False
    """Whether it counts for the sending limit of who handed it in."""


@record
class Sending:
    """Who handed a message in, and how many recipients an hour the configuration allows them (0: any number).

    What the account itself has as its limit comes first.
    """

    account: AccountId
    login: str
    recipients_per_hour: int


@record
class LimitTold:
    """The message tells postmaster what sending limits hold of an account, up to the message `up_to`."""

    account: AccountId
    up_to: QueueId


@dataclass(frozen=True, slots=True)
class Collected:
    """The message was collected from another house, where it is `uidl`; both are durable in the same commit.

    `size_octets` is as the server's LIST said; `fingerprint` is of header fields that no server changes, to
    recognise it under another UIDL.
    """

    source: SourceId
    uidl: str
    size_octets: int
    fingerprint: bytes


@record
class Acceptance:
    """One message with all that follows from taking responsibility for it. `prefix` holds our trace fields."""

    queue_id: QueueId
    accepted_at: float
    reverse_path: ReversePath
    prefix: bytes
    content: SealedContent
    placements: tuple[Placement, ...] = ()
    forwards: tuple[Forward, ...] = ()
    generated: tuple[Acceptance, ...] = ()
    """Reports that this acceptance causes at once; each with its own queue id and content."""
    events: tuple[JourneyEvent, ...] = ()
    ret: Ret | None = None
    envelope_id: str | None = None
    """ENVID, decoded (RFC 3461 §4.4)."""
    smtputf8: bool = False
    body: str = "7BIT"
    sending: Sending | None = None
    limit_told: LimitTold | None = None
    collected: Collected | None = None
    """An acceptance of what was collected before changes nothing."""
