"""Whether a maildrop has room: asked at RCPT, so that nothing is accepted only to be returned (RFC 1870 §6.1)."""

from __future__ import annotations

from typing import Protocol

from posthouse.admission import replies
from posthouse.admission.routing import Routed
from posthouse.mail.ids import AccountId
from posthouse.mail.reply import Reply


class Maildrops(Protocol):
    """What is asked of storage."""

    async def used_octets(self, account: AccountId) -> int: ...


async def over_quota(maildrops: Maildrops, routed: Routed, size_octets: int | None) -> Reply | None:
    """Why not all maildrops of a recipient have room for `size_octets` (None: unknown), or None.

    For those without a quota nothing is asked. An alias whose members have not all room is refused whole: mail for
    some of them would be lost.
    """
    refusal: Reply | None = None
    for mailbox, _ in routed.mailboxes.values():
        quota_octets = mailbox.quota_octets
        if quota_octets is None:
            continue
        # A message that says no size has at least one octet.
        wanted_octets = max(1, size_octets or 0)
        if wanted_octets > quota_octets:
            return replies.NEVER_FITS
        if await maildrops.used_octets(mailbox.account) + wanted_octets > quota_octets:
            refusal = replies.MAILBOX_FULL
    return refusal
