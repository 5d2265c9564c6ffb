"""The decision to tell a sender, and the report's acceptance (RFC 3464; RFC 5321 §6.1).

What cannot be delivered returns to its sender. Nothing is ever returned to the null reverse-path: a report about a
report does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import aclosing, suppress

from posthouse.admission.reports import Reports, ReportWriter, reported
from posthouse.forwarding.pace import ReportPace
from posthouse.forwarding.relay import Attempt
from posthouse.forwarding.verdict import REPORT_IN_LINE, Verdict, report_later, said_by_peer
from posthouse.mail.address import Address
from posthouse.mail.outcome import Uncertain
from posthouse.mail.report_request import RETURN_LIMIT_OCTETS, Action, OriginalMessage, RecipientStatus
from posthouse.mail.spool import SpoolMessage
from posthouse.storage.errors import StorageError
from posthouse.storage.interfaces import Content

_PORT = re.compile(r":[0-9]+\Z")
_IPV4 = re.compile(r"[0-9]+(\.[0-9]+){3}")
_CAN_WAIT = (Action.FAILED, Action.DELAYED)
"""Success is reported only once to each who asked for it, and only while it is being recorded."""

NULL_REVERSE_PATH = "the message came from the null path, to which nothing is returned"


class Bouncer:
    """Makes the reports that the verdicts of one attempt cause: one for each action, about all its recipients."""

    def __init__(self, content: Content, writer: ReportWriter, pace: ReportPace) -> None:
        self._content = content
        self._writer = writer
        self._pace = pace

    async def in_pace(self, verdicts: Sequence[Verdict], now: float) -> list[Verdict]:
        """The verdicts of one attempt; where the sender's turn has not come, without the reports that can wait."""
        sender = verdicts[0].row.reverse_path
        if sender is None or not any(verdict.report in _CAN_WAIT for verdict in verdicts):
            return list(verdicts)
        with suppress(StorageError):
            # Aliases rewrite one sender in many ways; it is the same person who is told.
            sender = await self._writer.true_sender(sender) or sender
        wait_s = self._pace.wait_s(sender)
        if not wait_s:
            return list(verdicts)
        return [
            report_later(verdict, now + wait_s, REPORT_IN_LINE) if verdict.report in _CAN_WAIT else verdict
            for verdict in verdicts
        ]

    async def add_reports(self, reports: Reports, attempt: Attempt, verdicts: Sequence[Verdict], now: float) -> None:
        """Add the reports that these verdicts ask for."""
        for action in (Action.FAILED, Action.DELAYED, Action.RELAYED):
            rows = [verdict for verdict in verdicts if verdict.report == action]
            if not rows:
                continue
            told = tuple(_status(attempt, verdict, action, now) for verdict in rows)
            message, sender = rows[0].row.message, rows[0].row.reverse_path
            if sender is None:
                reports.events += reported(message.queue_id, told, now, None, NULL_REVERSE_PATH)
            else:
                await self._writer.add(reports, await self._original(message, sender), told, now)

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
    row, last = verdict.row, verdict.last
    return RecipientStatus(
        final_recipient=row.forward_path,
        action=action,
        reply=last.reply,
        from_peer=said_by_peer(last),
        remote_host=_host(attempt.next_hop),
        remote_ip=attempt.address,
        original_recipient=row.original_recipient,
        last_attempt_at=now,
        will_retry_until=row.expires_at if action is Action.DELAYED else None,
        expired=verdict.expired_after is not None,
        may_have_arrived=isinstance(last, Uncertain),
    )


def _host(next_hop: str) -> str:
    """The name of a next hop without its port, an address as a literal (RFC 3464 §2.1.2: the type is `dns`)."""
    host = _PORT.sub("", next_hop)
    return f"[{host}]" if _IPV4.fullmatch(host) else host
