"""From an envelope to an `Acceptance`: policy at MAIL, RCPT and the end of content.

Policy is pure where it can be: given the peer, the envelope and the directory's answers it returns a reply.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from posthouse.admission import replies, trace
from posthouse.admission.peer import Peer, Role
from posthouse.admission.routing import Directory as RoutingDirectory
from posthouse.admission.routing import Routed, qualified, route
from posthouse.mail.acceptance import Acceptance, Destination, Forward, Notify, Placement, Ret
from posthouse.mail.address import Address, ReversePath
from posthouse.mail.content import SealedContent
from posthouse.mail.ids import AccountId, QueueId, new_queue_id
from posthouse.mail.journey import Accepted, JourneyEvent, Placed, Queued
from posthouse.mail.reply import Reply
from posthouse.mail.world import Clock, Random
from posthouse.storage.errors import StorageBusy

MAX_RECEIVED_FIELDS = 100


class Directory(RoutingDirectory, Protocol):
    """What admission asks of storage."""

    async def identities(self, account: AccountId) -> tuple[Address, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The configured part of policy."""

    hostname: str
    postmaster: Address | None
    max_recipients: int
    expire_after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """An accepted RCPT and where it leads."""

    forward_path: Address
    routed: Routed
    notify: frozenset[Notify] | None = None
    original_recipient: str | None = None


@dataclass(slots=True, kw_only=True)
class MailTransaction:
    """What MAIL began (RFC 5321 §3.3); dropped in every outcome."""

    peer: Peer
    reverse_path: ReversePath
    smtputf8: bool = False
    body: str = "7BIT"
    ret: Ret | None = None
    envelope_id: str | None = None
    recipients: list[Recipient] = field(default_factory=list)


class Admission:
    """The one way in for mail, whatever brought it."""

    def __init__(self, directory: Directory, rules: Rules, clock: Clock, random: Random) -> None:
        self._directory = directory
        self.rules = rules
        self._clock = clock
        self._random = random

    async def judge_sender(self, peer: Peer, reverse_path: ReversePath) -> Reply:
        """The reply to MAIL. A login sends only as its own identities; the null path is for machines."""
        if peer.role is Role.EXCHANGE or reverse_path is None:
            return replies.SENDER_OK
        if peer.account is None:
            return replies.NOT_YOUR_IDENTITY
        identities = await self._directory.identities(peer.account.account)
        wanted = _without_detail(reverse_path).key
        owned = {identity.key for identity in identities}
        return replies.SENDER_OK if {reverse_path.key, wanted} & owned else replies.NOT_YOUR_IDENTITY

    async def add_recipient(
        self,
        transaction: MailTransaction,
        forward_path: Address,
        *,
        notify: frozenset[Notify] | None = None,
        original_recipient: str | None = None,
    ) -> Reply:
        """The reply to RCPT; a positive one added the recipient. Unknown users are refused here, not bounced later."""
        if len(transaction.recipients) >= self.rules.max_recipients:
            return replies.TOO_MANY_RECIPIENTS
        routed = await self.route(forward_path)
        refusal = _refusal(transaction.peer, routed)
        if refusal is not None:
            return refusal
        transaction.recipients.append(
            Recipient(forward_path=forward_path, routed=routed, notify=notify, original_recipient=original_recipient)
        )
        return replies.RECIPIENT_OK

    async def route(self, forward_path: Address) -> Routed:
        """Where a forward-path leads."""
        return await route(
            self._directory, forward_path, hostname=self.rules.hostname, postmaster=self.rules.postmaster
        )

    def judge_content(self, content: SealedContent) -> Reply | None:
        """A reason to refuse the content, or None."""
        if content.facts.received_fields >= MAX_RECEIVED_FIELDS:
            return replies.TOO_MANY_HOPS
        return None

    def plan(self, transaction: MailTransaction, content: SealedContent) -> Acceptance:
        """Everything that becomes durable with this message. One entry for each maildrop, whoever named it twice."""
        now = self._clock.now()
        queue_id = new_queue_id(now, self._random)
        only = transaction.recipients[0].forward_path if len(transaction.recipients) == 1 else None
        prefix = trace.received(
            transaction.peer,
            hostname=self.rules.hostname,
            queue_id=queue_id,
            now=now,
            only_recipient=qualified(only, self.rules.hostname) if only is not None else None,
        )
        placements, forwards, placed = self._places(transaction.reverse_path, transaction.recipients, queue_id, now)
        accepted = _accepted(transaction, content, queue_id, now)
        return Acceptance(
            queue_id=queue_id,
            accepted_at=now,
            reverse_path=transaction.reverse_path,
            prefix=prefix,
            content=content,
            placements=placements,
            forwards=forwards,
            events=(accepted, *placed),
            ret=transaction.ret,
            envelope_id=transaction.envelope_id,
            smtputf8=transaction.smtputf8,
            body=transaction.body,
        )

    async def plan_report(
        self,
        forward_path: Address,
        content: SealedContent,
        *,
        queue_id: QueueId,
        about: QueueId,
        eight_bit: bool,
        smtputf8: bool,
    ) -> Acceptance | None:
        """A report to a sender, from the null path. None when the sender's address leads nowhere.

        Raises StorageBusy when the directory cannot say: a report is never dropped for that.
        """
        routed = await self.route(forward_path)
        if routed.leads_nowhere:
            if routed.unavailable:
                raise StorageBusy("the directory cannot be asked now")
            return None
        now = self._clock.now()
        recipient = Recipient(forward_path=forward_path, routed=routed, notify=frozenset({Notify.NEVER}))
        placements, forwards, placed = self._places(None, [recipient], queue_id, now)
        accepted = Accepted(
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
        return Acceptance(
            queue_id=queue_id,
            accepted_at=now,
            reverse_path=None,
            prefix=trace.generated(hostname=self.rules.hostname, queue_id=queue_id, now=now),
            content=content,
            placements=placements,
            forwards=forwards,
            events=(accepted, *placed),
            smtputf8=smtputf8,
            body="8BITMIME" if eight_bit else "7BIT",
        )

    def _places(
        self, reverse_path: ReversePath, recipients: list[Recipient], queue_id: QueueId, now: float
    ) -> tuple[tuple[Placement, ...], tuple[Forward, ...], list[JourneyEvent]]:
        placements: dict[int, Placement] = {}
        forwards: dict[str, Forward] = {}
        events: list[JourneyEvent] = []
        for recipient in recipients:
            for mailbox, address in recipient.routed.mailboxes.values():
                if mailbox.account in placements:
                    continue
                placement = Placement(
                    account=mailbox.account, forward_path=address, prefix=trace.delivery(reverse_path, address)
                )
                placements[mailbox.account] = placement
                events.append(
                    Placed(
                        queue_id=queue_id,
                        at=now,
                        forward_path=str(recipient.forward_path),
                        login=mailbox.login,
                        folder=placement.folder,
                        uidl=queue_id,
                    )
                )
            for key, address in recipient.routed.remotes.items():
                if key not in forwards:
                    forwards[key] = self._forward(reverse_path, recipient, address, now)
                    events.append(Queued(queue_id=queue_id, at=now, forward_path=str(address), domain=address.domain))
        return tuple(placements.values()), tuple(forwards.values()), events

    def _forward(self, reverse_path: ReversePath, recipient: Recipient, address: Address, now: float) -> Forward:
        return Forward(
            forward_path=address,
            reverse_path=reverse_path,
            destination=Destination("", address.domain),
            not_before=now,
            expires_at=now + self.rules.expire_after_s,
            original_recipient=recipient.original_recipient,
            notify=recipient.notify,
        )


def _refusal(peer: Peer, routed: Routed) -> Reply | None:
    if routed.unavailable:
        return replies.DIRECTORY_UNAVAILABLE
    if routed.too_large:
        return replies.ALIAS_TOO_LARGE
    if routed.leads_nowhere:
        return replies.ALIAS_BROKEN if routed.is_alias else replies.NO_SUCH_MAILBOX
    # An alias of ours may lead elsewhere for anybody: its owner asked for that.
    if routed.remotes and not routed.is_alias and not peer.may_relay:
        return replies.RELAY_REFUSED
    return None


def _accepted(transaction: MailTransaction, content: SealedContent, queue_id: QueueId, now: float) -> Accepted:
    peer = transaction.peer
    return Accepted(
        queue_id=queue_id,
        at=now,
        reverse_path=str(transaction.reverse_path) if transaction.reverse_path is not None else "",
        forward_paths=tuple(str(recipient.forward_path) for recipient in transaction.recipients),
        size_octets=content.size_octets,
        peer=peer.address,
        hello=peer.hello,
        protocol=peer.protocol,
        login=peer.account.login if peer.account is not None else None,
        message_id=content.facts.message_id,
        session=peer.session,
    )


def _without_detail(address: Address) -> Address:
    local_part, plus, _detail = address.local_part.partition("+")
    return Address(local_part, address.domain) if plus and local_part and '"' not in local_part else address
