"""What an outcome means for a recipient: served, waits until when, or given up, and what its sender is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from posthouse.forwarding.schedule import RetrySchedule
from posthouse.mail.acceptance import Notify
from posthouse.mail.outcome import Deferred, Delivered, Failed, Outcome, Uncertain
from posthouse.mail.reply import EnhancedCode, Reply
from posthouse.mail.spool import Settled, SpoolRow
from posthouse.mail.world import Random


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One recipient's row, the outcome of its attempt, and what follows.

    `report` is the action of RFC 3464 §2.3.3 to tell the sender of, or None.
    """

    row: SpoolRow
    outcome: Outcome
    settled: Settled
    report: str | None = None

    @property
    def outcome_name(self) -> str:
        return type(self.outcome).__name__.lower()

    @property
    def reply(self) -> Reply:
        """The reply that decided."""
        return self.outcome.reply

    @property
    def from_peer(self) -> bool:
        return self.outcome.from_peer if isinstance(self.outcome, Deferred | Failed) else True


def judge(row: SpoolRow, outcome: Outcome, schedule: RetrySchedule, now: float, random: Random) -> Verdict:
    """Decide, without doing anything."""
    match outcome:
        case Delivered():
            return Verdict(row=row, outcome=outcome, settled=_settled(row, outcome.reply, None))
        case Failed():
            return _given_up(row, outcome)
        case Deferred() | Uncertain():
            next_at = schedule.next_attempt(now, row.attempts, row.expires_at, random)
            if next_at is None:
                return _given_up(row, Failed(_expired(outcome.reply), from_peer=_said_by_peer(outcome)))
            tell = _wants(row, Notify.DELAY) and schedule.wants_delay_notice(
                now, row.message.accepted_at, already=row.delay_notified
            )
            settled = _settled(row, outcome.reply, next_at, delay_notified=tell or row.delay_notified)
            return Verdict(row=row, outcome=outcome, settled=settled, report="delayed" if tell else None)
        case unexpected:
            assert_never(unexpected)


def _given_up(row: SpoolRow, outcome: Failed) -> Verdict:
    report = "failed" if _wants(row, Notify.FAILURE) else None
    return Verdict(row=row, outcome=outcome, settled=_settled(row, outcome.reply, None), report=report)


def _wants(row: SpoolRow, occasion: Notify) -> bool:
    """NOTIFY absent means reports of failure and, by our policy, of delay (RFC 3461 §4.1)."""
    return row.notify is None or occasion in row.notify


def _expired(last: Reply) -> Reply:
    """The last reply, with a code that says that time ran out (RFC 3463: 4.7 of class 4, here final)."""
    return Reply(550, EnhancedCode(5, 4, 7), f"Tried until the message expired. The last answer was: {last}")


def _said_by_peer(outcome: Deferred | Uncertain) -> bool:
    return outcome.from_peer if isinstance(outcome, Deferred) else False


def _settled(row: SpoolRow, reply: Reply, not_before: float | None, *, delay_notified: bool = False) -> Settled:
    return Settled(
        queue_id=row.message.queue_id,
        recipient_number=row.recipient_number,
        not_before=not_before,
        last_reply=str(reply),
        delay_notified=delay_notified,
    )
