"""The first event of each journey: what was taken, from whom, for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posthouse.mail.address import Address
from posthouse.mail.content import SealedContent
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Accepted

if TYPE_CHECKING:
    from posthouse.admission.admission import MailTransaction


def accepted(transaction: MailTransaction, content: SealedContent, queue_id: QueueId, now: float) -> Accepted:
    """Mail that somebody brought."""
    peer = transaction.peer
    return Accepted(
        queue_id=queue_id,
        at=now,
        reverse_path=str(transaction.reverse_path) if transaction.reverse_path is not None else "",
        forward_paths=tuple(str(recipient.forward_path) for recipient in transaction.recipients),
        size_octets=content.size_octets,
        peer=peer.address,
        hello=peer.hello,
        protocol=peer.protocol(smtputf8=transaction.smtputf8),
        login=peer.account.login if peer.account is not None else None,
        message_id=content.facts.message_id,
        session=peer.session or None,
        source="written" if peer.is_here else "smtp",
    )


def accepted_report(
    forward_path: Address, content: SealedContent, queue_id: QueueId, about: QueueId, now: float
) -> Accepted:
    """A report that this house wrote, from the null path."""
    return Accepted(
        queue_id=queue_id,
        at=now,
        reverse_path="",
        forward_paths=(str(forward_path),),
        size_octets=content.size_octets,
        peer="",
        hello="",
        protocol="",
        source="report",
        about=about,
    )
