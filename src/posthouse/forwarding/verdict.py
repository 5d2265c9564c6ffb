"""What an outcome means for a recipient: served, waits until when, or given up, and what its sender is told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from posthouse.forwarding.schedule import RetrySchedule
from posthouse.mail.acceptance import Notify
from posthouse.mail.outcome import Deferred, Delivered, Failed, Outcome, Uncertain
from posthouse.mail.reply import EnhancedCode, Reply, reply
from posthouse.mail.report_request import Action
from posthouse.mail.spool import Settled, SpoolRow
from posthouse.mail.world import Random

REPORT_LATER = "This is final, but the report to the sender could not be written yet"
REPORT_IN_LINE = "This is final, but its report waits: the sender gets many reports at the moment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One recipient's row, the outcome of its attempt, and what follows.

    `report` is the action of RFC 3464 §2.3.3 to tell the sender of, or None.
    """

    row: SpoolRow
    outcome: Outcome
    settled: Settled
    report: Action | None = None
    expired_after: Deferred | Uncertain | None = None
    """The last outcome of a recipient whose time ran out; `outcome` is what we made of it."""

    @property
    def outcome_name(self) -> str:
        return type(self.outcome).__name__.lower()

    @property
    def reply(self) -> Reply:
        """The reply that decided."""
        return self.outcome.reply

    @property
    def last(self) -> Outcome:
        """What the last attempt itself came to."""
        return self.expired_after or self.outcome

    @property
    def from_peer(self) -> bool:
        """Whether the next hop said it, rather than we."""
        return said_by_peer(self.outcome)


def judge(
    row: SpoolRow,
    outcome: Outcome,
    schedule: RetrySchedule,
    now: float,
    random: Random,
    *,
    reports_passed_on: bool = False,
    not_before: float | None = None,
) -> Verdict:
    """Decide, without doing anything. `reports_passed_on`: the next hop will tell of success if asked to.

    `not_before`: no host was asked at all, and none is before then; nobody expires by that.
    """
    match outcome:
        case Delivered():
            tell = row.notify is not None and Notify.SUCCESS in row.notify and not reports_passed_on
            settled = _settled(row, outcome.reply, None)
            return Verdict(row=row, outcome=outcome, settled=settled, report=Action.RELAYED if tell else None)
        case Failed():
            return _given_up(row, outcome)
        case Uncertain() if row.destination.via:
            # An identity's own server: its owner decides whether it is sent again.
            return Verdict(row=row, outcome=outcome, settled=replace(_settled(row, outcome.reply, None), held=True))
        case Deferred() | Uncertain():
            expires_at = schedule.expiry(now, row.expires_at)
            next_at = schedule.next_attempt(now, row.attempts, expires_at, random)
            if not_before is not None:
                next_at = max(next_at or 0.0, not_before)
            if next_at is None:
                # The words are ours; the peer's own are in what it expired after.
                failed = Failed(_expired(outcome.reply, from_peer=said_by_peer(outcome)), from_peer=False)
                return replace(_given_up(row, failed), expired_after=outcome)
            tell = _wants(row, Notify.DELAY) and schedule.wants_delay_notice(
                now, row.message.accepted_at, already=row.delay_notified
            )
            settled = _settled(row, outcome.reply, next_at, delay_notified=tell or row.delay_notified)
            settled = replace(settled, expires_at=expires_at)
            return Verdict(row=row, outcome=outcome, settled=settled, report=Action.DELAYED if tell else None)
        case unexpected:
            assert_never(unexpected)


def without_report(verdict: Verdict, schedule: RetrySchedule, now: float) -> Verdict:
    """The same where the report cannot be made now."""
    return report_later(verdict, now + schedule.intervals_s[0], REPORT_LATER)


def report_later(verdict: Verdict, until: float, why: str) -> Verdict:
    """The same without its report: what was delivered stays so, and nobody fails untold, but waits `until` then."""
    match verdict.report:
        case Action.FAILED:
            last = reply(451, "4.3.0", f"{why}: {verdict.last.reply}")
            settled = _settled(verdict.row, last, until)
            return Verdict(row=verdict.row, outcome=Deferred(last, from_peer=False), settled=settled)
        case Action.DELAYED:
            settled = replace(verdict.settled, delay_notified=verdict.row.delay_notified)
            return replace(verdict, settled=settled, report=None)
        case _:
            return replace(verdict, report=None)


def _given_up(row: SpoolRow, outcome: Failed) -> Verdict:
    report = Action.FAILED if _wants(row, Notify.FAILURE) else None
    return Verdict(row=row, outcome=outcome, settled=_settled(row, outcome.reply, None), report=report)


def _wants(row: SpoolRow, occasion: Notify) -> bool:
    """NOTIFY absent means reports of failure and, by our policy, of delay (RFC 3461 §4.1)."""
    return row.notify is None or occasion in row.notify


def _expired(last: Reply, *, from_peer: bool) -> Reply:
    """The last reply, with a code that says that time ran out (RFC 3463: 4.7 of class 4, here final).

    Where it was our own rule that kept the message here (TLS that is required, X.7.z), the code says that.
    """
    code = EnhancedCode(5, 4, 7)
    if not from_peer and last.enhanced is not None and last.enhanced.subject == 7:
        code = replace(last.enhanced, klass=5)
    return Reply(550, code, f"Tried until the message expired. The last answer was: {last}")


def said_by_peer(outcome: Outcome) -> bool:
    """Whether its reply is the next hop's own, rather than ours."""
    match outcome:
        case Delivered():
            return True
        case Uncertain():
            return False
        case Deferred() | Failed():
            return outcome.from_peer
        case _:
            assert_never(outcome)


def _settled(row: SpoolRow, reply: Reply, not_before: float | None, *, delay_notified: bool = False) -> Settled:
    return Settled(
        queue_id=row.message.queue_id,
        recipient_number=row.recipient_number,
        not_before=not_before,
        last_reply=str(reply),
        delay_notified=delay_notified,
    )
