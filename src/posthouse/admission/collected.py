"""Mail that was collected from another house: whatever it is, it is its owner's and is kept as it came."""

from __future__ import annotations

from posthouse.mail.acceptance import Acceptance, Collected, Placement
from posthouse.mail.content import SealedContent
from posthouse.mail.header import date_time, field
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Accepted, Placed
from posthouse.mail.source import Source


def plan_collected(
    source: Source,
    login: str,
    content: SealedContent,
    collected: Collected,
    *,
    hostname: str,
    queue_id: QueueId,
    now: float,
) -> Acceptance:
    """One entry in the source's folder. `login` is its account's. Our Received field stands above the message."""
    settings = source.settings
    address = settings.address
    server = settings.server.host
    received = f"from {server}\r\n\tby {hostname} with POP3 id {queue_id};\r\n\t{date_time(now)}"
    return Acceptance(
        queue_id=queue_id,
        accepted_at=now,
        reverse_path=None,
        prefix=field("Received", received),
        content=content,
        placements=(Placement(account=settings.account, forward_path=address, prefix=b"", folder=settings.folder),),
        events=(
            Accepted(
                queue_id=queue_id,
                at=now,
                reverse_path="",
                forward_paths=(str(address),),
                size_octets=content.size_octets,
                peer=str(settings.server),
                hello="",
                protocol="",
                message_id=content.facts.message_id,
                source="collection",
            ),
            Placed(
                queue_id=queue_id,
                at=now,
                forward_path=str(address),
                login=login,
                folder=settings.folder,
                uidl=queue_id,
            ),
        ),
        collected=collected,
    )
