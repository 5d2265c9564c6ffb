"""Reports to senders, ready to be accepted together with what they report (RFC 3461 §5.2, §6; RFC 3464).

Forwarding writes those about what it tried; reception those about what is in a maildrop with the acceptance itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from posthouse.admission.admission import Admission, MailTransaction, Recipient
from posthouse.admission.routing import qualified
from posthouse.mail.acceptance import Acceptance, Notify
from posthouse.mail.address import Address
from posthouse.mail.content import ContentScanner
from posthouse.mail.ids import QueueId, new_queue_id
from posthouse.mail.journey import JourneyEvent, Reported
from posthouse.mail.reply import reply
from posthouse.mail.report import build_report
from posthouse.mail.report_request import (
    RETURN_LIMIT_OCTETS,
    Action,
    OriginalMessage,
    RecipientStatus,
    Report,
    ReportRequest,
)
from posthouse.mail.world import Random
from posthouse.storage.errors import StorageError
from posthouse.storage.interfaces import Content, Draft

SENDER_LEADS_NOWHERE = "the sender's address leads nowhere"
_IN_ITS_PLACE = reply(250, "2.1.5", "Delivered")


@dataclass(slots=True)
class Reports:
    """What to commit together with what is reported, and what the journey says of it."""

    acceptances: list[Acceptance] = field(default_factory=list)
    events: list[JourneyEvent] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)

    async def discard(self) -> None:
        """Forget what was not committed; does nothing to what was."""
        for draft in self.drafts:
            # A file that cannot be removed now has no row: it goes when this incarnation has ended.
            with suppress(StorageError):
                await draft.discard()


class ReportWriter:
    """Writes one report about one message, to its sender."""

    def __init__(self, content: Content, admission: Admission, random: Random) -> None:
        self._content = content
        self._admission = admission
        self._random = random

    async def true_sender(self, reverse_path: Address) -> Address | None:
        """Whom a report to a reverse-path goes to; None: it leads nowhere. Raises StorageError.

        A row that an alias led elsewhere has a sender that was rewritten, and its report may come late.
        """
        return await self._admission.open(reverse_path, None)

    async def add(
        self, reports: Reports, original: OriginalMessage, told: tuple[RecipientStatus, ...], now: float
    ) -> None:
        """Add a report with a group for each of these, unless the sender's address leads nowhere.

        Raises StorageError: nothing is told then, and what was to be told may not be committed either.
        """
        hostname = self._admission.rules.hostname
        queue_id = new_queue_id(now, self._random)
        sender = await self.true_sender(original.reverse_path)
        if sender is None:
            reports.events += reported(original.queue_id, told, now, None, SENDER_LEADS_NOWHERE)
            return
        original = replace(original, reverse_path=sender)
        report = build_report(
            ReportRequest(
                queue_id=queue_id,
                now=now,
                hostname=hostname,
                postmaster=Address("postmaster", hostname),
                original=original,
                recipients=told,
            )
        )
        acceptance = await self._accept(reports, original, report, queue_id)
        if acceptance is not None:
            reports.acceptances.append(acceptance)
        reason = "" if acceptance is not None else SENDER_LEADS_NOWHERE
        report_id = queue_id if acceptance is not None else None
        reports.events += reported(original.queue_id, told, now, report_id, reason)

    async def add_successes(
        self, reports: Reports, transaction: MailTransaction, acceptance: Acceptance, beginning: bytes
    ) -> Acceptance:
        """The acceptance of a message with the report of success that its recipients asked for (RFC 3461 §5.2.3).

        `beginning`: of its content, as stored. The caller discards `reports` in every outcome.
        """
        told = self._successes(transaction)
        if not told or transaction.reverse_path is None:
            return acceptance
        whole = acceptance.prefix + beginning
        original = OriginalMessage(
            queue_id=acceptance.queue_id,
            reverse_path=transaction.reverse_path,
            arrived_at=acceptance.accepted_at,
            beginning=whole[:RETURN_LIMIT_OCTETS],
            complete=len(whole) <= RETURN_LIMIT_OCTETS and len(beginning) == acceptance.content.size_octets,
            envelope_id=transaction.envelope_id,
            ret=transaction.ret,
            message_id=acceptance.content.facts.message_id,
            smtputf8=transaction.smtputf8,
        )
        await self.add(reports, original, told, acceptance.accepted_at)
        return replace(acceptance, generated=tuple(reports.acceptances), events=(*acceptance.events, *reports.events))

    def _successes(self, transaction: MailTransaction) -> tuple[RecipientStatus, ...]:
        """A group for each recipient who asked, whoever was named twice."""
        hostname = self._admission.rules.hostname
        told: dict[tuple[str, str | None], RecipientStatus] = {}
        for recipient in transaction.recipients:
            action = _success(recipient)
            if action is None:
                continue
            # As it stood in the envelope; what an alias stands for is its owner's affair (RFC 3464 §2.3.2).
            final_recipient = qualified(recipient.forward_path, hostname)
            status = RecipientStatus(
                final_recipient=final_recipient,
                action=action,
                reply=_IN_ITS_PLACE,
                from_peer=False,
                original_recipient=recipient.original_recipient,
            )
            told.setdefault((final_recipient.key, recipient.original_recipient), status)
        return tuple(told.values())

    async def _accept(
        self, reports: Reports, original: OriginalMessage, report: Report, queue_id: QueueId
    ) -> Acceptance | None:
        draft = await self._content.draft()
        reports.drafts.append(draft)
        scanner = ContentScanner()
        scanner.feed(report.content)
        await draft.write(report.content)
        return await self._admission.plan_report(
            original.reverse_path,
            await draft.seal(scanner.facts()),
            about=original.queue_id,
            queue_id=queue_id,
            eight_bit=report.eight_bit,
            smtputf8=report.smtputf8,
        )


def reported(
    about: QueueId, told: Sequence[RecipientStatus], now: float, report_queue_id: QueueId | None, reason: str = ""
) -> list[JourneyEvent]:
    """What the journey of a message says of a report about it: one event for each action."""
    return [
        Reported(
            queue_id=about,
            at=now,
            forward_paths=tuple(str(status.final_recipient) for status in told if status.action is action),
            action=action,
            report_queue_id=report_queue_id,
            reason=reason,
        )
        for action in dict.fromkeys(status.action for status in told)
    ]


def asks_for_success(transaction: MailTransaction) -> bool:
    """Whether a report will be due with the acceptance. There is none to the null path (RFC 3461 §6.1)."""
    return transaction.reverse_path is not None and any(map(_success, transaction.recipients))


def _success(recipient: Recipient) -> Action | None:
    """What is reported at once. Success with a single recipient elsewhere is that house's to report, or forwarding's.

    An alias for one is as good as that one (RFC 3461 §5.2.7.2); an alias for several is "expanded", and those that it
    stands for are not asked to report success as well (§5.2.7.3, c).
    """
    if recipient.notify is None or Notify.SUCCESS not in recipient.notify:
        return None
    if recipient.routed.is_expanded:
        return Action.EXPANDED
    return Action.DELIVERED if recipient.routed.mailboxes else None
