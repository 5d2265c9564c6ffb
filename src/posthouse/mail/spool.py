"""The spool: recipients still to be served elsewhere, and the claims on them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from posthouse.mail.acceptance import Acceptance, Destination, Notify, Ret
from posthouse.mail.address import Address, ReversePath
from posthouse.mail.content import ContentFacts
from posthouse.mail.ids import ContentId, QueueId
from posthouse.mail.journey import JourneyEvent

AT_ONCE = 0.0
"""The `not_before` of what a person wants to be tried now, whatever is remembered of its hosts."""


class Hold(StrEnum):
    """Why a row is held."""

    OPERATOR = "operator"
    RESTORE = "restore"
    """It may have been sent since the backup was made."""
    LIMIT = "limit"
    """Its sender sent to more recipients in an hour than it may."""
    UNCERTAIN = "uncertain"
    """It may have arrived: nobody knows whether its identity's own server took it."""


class Action(StrEnum):
    """What an operator does to waiting rows."""

    RETRY = "retry"
    HOLD = "hold"
    RELEASE = "release"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """How many recipients are in the queue, each in one state, and since when.

    `oldest_at`: when the oldest message was accepted; `due_since`: the earliest `not_before` of those that wait. Unix
    seconds, None where there is none.
    """

    waiting: int
    held: int
    claimed: int
    oldest_at: float | None
    due_since: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolMessage:
    """What an attempt must know of the message. Sent octets are `prefix` followed by the content."""

    queue_id: QueueId
    accepted_at: float
    prefix: bytes
    content_id: ContentId
    content_octets: int
    facts: ContentFacts
    ret: Ret | None
    envelope_id: str | None
    smtputf8: bool
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolRow:
    """One recipient of one message. `attempts` counts claims, this one included."""

    message: SpoolMessage
    recipient_number: int
    forward_path: Address
    reverse_path: ReversePath
    destination: Destination
    not_before: float
    expires_at: float
    attempts: int
    held: bool
    delay_notified: bool
    original_recipient: str | None
    notify: frozenset[Notify] | None
    identity: str | None
    last_reply: str | None
    claimed: bool
    held_by_restore: bool = False
    """Held since a restore: it may have been sent meanwhile."""
    sending_at: float | None = None
    """Since when the final dot may have left through the identity's own server (`mark_sending`)."""
    deaths: int = 0
    """How many processes in a row died with a claim on it."""
    held_by_limit: bool = False
    """Held when it was accepted, since its account had sent to more recipients in an hour than it may."""
    tried_at: float | None = None
    """When an attempt came to an end last, as far as that is known."""

    @property
    def wanted_at_once(self) -> bool:
        """Whether a person asked for this attempt (`queue retry`)."""
        return self.not_before <= AT_ONCE

    @property
    def may_have_arrived(self) -> bool:
        """Held, since nobody knows whether its identity's own server took it: its owner is asked."""
        return self.held and not self.claimed and self.sending_at is not None

    @property
    def hold(self) -> Hold | None:
        """Why it is held; None: it is not."""
        if not self.held:
            return None
        if self.may_have_arrived:
            return Hold.UNCERTAIN
        if self.held_by_limit:
            return Hold.LIMIT
        return Hold.RESTORE if self.held_by_restore else Hold.OPERATOR


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to attempt `rows`, until settled or until our incarnation dies."""

    token: str
    rows: tuple[SpoolRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of one row: `not_before` None removes it (served, failed), else it waits until then.

    `held`: it stays, whatever `not_before` says, until an operator releases, retries or removes it; a mark of
    `mark_sending` stays with it, which any other outcome clears.
    """

    queue_id: QueueId
    recipient_number: int
    not_before: float | None
    last_reply: str
    delay_notified: bool = False
    held: bool = False
    expires_at: float | None = None
    """It expires then, if not before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The outcomes of an attempt, the report that they cause and the journey's events, in one transaction."""

    token: str
    rows: tuple[Settled, ...]
    generated: tuple[Acceptance, ...] = ()
    events: tuple[JourneyEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class DueDestination:
    """A destination with rows that are due, unheld and unclaimed."""

    destination: Destination
    oldest_not_before: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationTally:
    """What waits for one destination."""

    destination: Destination
    recipients: int
    held: int
    claimed: int
    oldest_at: float
    """When the first of them was accepted."""
    next_at: float | None
    """When one of them is tried next; None: all are held or claimed."""
    last_reply: str | None
    """Of the attempt that ended last."""
    tried_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What waits in all, and by destination, those with most recipients first."""

    recipients: int
    messages: int
    destinations: tuple[DestinationTally, ...]

    @property
    def oldest_at(self) -> float:
        """When the first of them was accepted; 0 where there is none."""
        return min((each.oldest_at for each in self.destinations), default=0.0)
