"""The decision to tell a sender, and the report's acceptance (RFC 3464; RFC 5321 §6.1).

What cannot be delivered returns to its sender. Nothing is ever returned to the null reverse-path: a report about a
report does not exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from posthouse.admission.admission import Admission
from posthouse.forwarding.relay import Attempt
from posthouse.forwarding.verdict import Verdict
from posthouse.mail.acceptance import Acceptance
from posthouse.mail.address import Address
from posthouse.mail.content import ContentScanner
from posthouse.mail.ids import QueueId, new_queue_id
from posthouse.mail.journey import JourneyEvent, Reported
from posthouse.mail.report import build_report
from posthouse.mail.report_request import (
    RETURN_LIMIT_OCTETS,
    Action,
    OriginalMessage,
    RecipientStatus,
    Report,
    ReportRequest,
)
from posthouse.mail.spool import SpoolMessage
from posthouse.mail.world import Random
from posthouse.storage.errors import StorageError
from posthouse.storage.interfaces import Content, Draft

NULL_REVERSE_PATH = "the message came from the null path, to which nothing is returned"
SENDER_LEADS_NOWHERE = "the sender's address leads nowhere"


@dataclass(slots=True)
class Reports:
    """What to settle together with the outcomes, and what the journey says of it."""

    acceptances: list[Acceptance] = field(default_factory=list)
    events: list[JourneyEvent] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)

    async def discard(self) -> None:
        """Forget what was not settled; does nothing to what was."""
        for draft in self.drafts:
            await draft.discard()


class Bouncer:
    """Makes the reports that the verdicts of one attempt cause: one for each action, about all its recipients."""

    def __init__(self, content: Content, admission: Admission, random: Random) -> None:
        self._content = content
        self._admission = admission
        self._random = random

    async def add_reports(self, reports: Reports, attempt: Attempt, verdicts: Sequence[Verdict], now: float) -> None:
        """Add the reports that these verdicts ask for."""
        for action in (Action.FAILED, Action.DELAYED, Action.RELAYED):
            told = [verdict for verdict in verdicts if verdict.report == action]
            if not told:
                continue
            acceptance, reason = await self._report(reports, attempt, told, action, now)
            if acceptance is not None:
                reports.acceptances.append(acceptance)
            reports.events.append(
                Reported(
                    queue_id=told[0].row.message.queue_id,
                    at=now,
                    forward_paths=tuple(str(verdict.row.forward_path) for verdict in told),
                    action=action,
                    report_queue_id=acceptance.queue_id if acceptance is not None else None,
                    reason=reason,
                )
            )

    async def _report(
        self, reports: Reports, attempt: Attempt, told: Sequence[Verdict], action: Action, now: float
    ) -> tuple[Acceptance | None, str]:
        sender = told[0].row.reverse_path
        if sender is None:
            return None, NULL_REVERSE_PATH
        message = told[0].row.message
        queue_id = new_queue_id(now, self._random)
        report = build_report(
            ReportRequest(
                queue_id=queue_id,
                now=now,
                hostname=self._admission.rules.hostname,
                postmaster=Address("postmaster", self._admission.rules.hostname),
                original=await self._original(message, sender),
                recipients=tuple(_status(attempt, verdict, action, now) for verdict in told),
            )
        )
        acceptance = await self._accept(reports, sender, report, queue_id=queue_id, about=message.queue_id)
        return acceptance, "" if acceptance is not None else SENDER_LEADS_NOWHERE

    async def _accept(
        self, reports: Reports, sender: Address, report: Report, *, queue_id: QueueId, about: QueueId
    ) -> Acceptance | None:
        draft = await self._content.draft()
        reports.drafts.append(draft)
        scanner = ContentScanner()
        scanner.feed(report.content)
        await draft.write(report.content)
        sealed = await draft.seal(scanner.facts())
        return await self._admission.plan_report(
            sender, sealed, about=about, queue_id=queue_id, eight_bit=report.eight_bit, smtputf8=report.smtputf8
        )

    async def _original(self, message: SpoolMessage, sender: Address) -> OriginalMessage:
        beginning, whole = await self._beginning(message)
        return OriginalMessage(
            queue_id=message.queue_id,
            reverse_path=sender,
            arrived_at=message.accepted_at,
            beginning=beginning,
            complete=whole,
            envelope_id=message.envelope_id,
            ret=message.ret,
            message_id=message.facts.message_id,
            smtputf8=message.smtputf8,
        )

    async def _beginning(self, message: SpoolMessage) -> tuple[bytes, bool]:
        """What a report returns of the message, and whether that is all of it.

        Of content that cannot be read, which may last, it returns our own trace fields: better than no report.
        """
        beginning = bytearray(message.prefix)
        try:
            async with aclosing(self._content.open(message.content_id)) as chunks:
                async for chunk in chunks:
                    beginning += chunk
                    if len(beginning) >= RETURN_LIMIT_OCTETS:
                        break
        except (StorageError, KeyError):
            return message.prefix[:RETURN_LIMIT_OCTETS], False
        whole = len(message.prefix) + message.content_octets <= RETURN_LIMIT_OCTETS
        return bytes(beginning[:RETURN_LIMIT_OCTETS]), whole


def _status(attempt: Attempt, verdict: Verdict, action: Action, now: float) -> RecipientStatus:
    row = verdict.row
    return RecipientStatus(
        final_recipient=row.forward_path,
        action=action,
        reply=verdict.reply,
        from_peer=verdict.from_peer,
        remote_host=attempt.next_hop,
        remote_ip=attempt.address,
        original_recipient=row.original_recipient,
        last_attempt_at=now,
        will_retry_until=row.expires_at if action is Action.DELAYED else None,
    )
