"""From an envelope to an `Acceptance`: policy at MAIL, RCPT and the end of content.

Policy is pure where it can be: given the peer, the envelope and the directory's answers it returns a reply.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from posthouse.admission import replies, trace
from posthouse.admission.expansion import original_recipient, passed_on
from posthouse.admission.identities import Directory, may_send_as
from posthouse.admission.loops import are_in_circles
from posthouse.admission.peer import Peer, Role
from posthouse.admission.quota import Maildrops, over_quota
from posthouse.admission.rewriting import Rewriter
from posthouse.admission.routing import EXPANSION_TARGETS, Home, Routed, qualified, route
from posthouse.admission.rules import Rules
from posthouse.admission.seams import Elsewhere, SenderDomains, SystemMaildrops
from posthouse.admission.senders import held_here, own_way, sending, takes_no_mail
from posthouse.admission.submission import Missing, Submission
from posthouse.admission.taken import accepted, accepted_report
from posthouse.mail.acceptance import Acceptance, Destination, Forward, Notify, Placement, Ret
from posthouse.mail.account import Identity, Mailbox
from posthouse.mail.address import Address, AddressError, ReversePath, parse_address
from posthouse.mail.content import SealedContent
from posthouse.mail.ids import QueueId, new_queue_id
from posthouse.mail.journey import JourneyEvent, Placed, Queued
from posthouse.mail.record import record
from posthouse.mail.reply import Reply
from posthouse.mail.world import Clock, Random
from posthouse.storage.errors import StorageBusy

MAX_RECEIVED_FIELDS = 100
MAX_FOLLOWED = 10 * EXPANSION_TARGETS
"""Addresses that aliases led to in one transaction: a list named a thousand times would be work for a minute."""
# Looked up once: a member of an enumeration is as dear as a call, and each message asks.
_EXCHANGE, _SUBMISSION = Role.EXCHANGE, Role.SUBMISSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """What admission asks of the rest of the house.

    `elsewhere` None: nothing is known of other domains; `sender_domains` None: those of senders are not asked about;
    `rewriter` None: no sender is rewritten, and none was.
    """

    directory: Directory
    maildrops: Maildrops
    administration: SystemMaildrops
    elsewhere: Elsewhere | None = None
    rewriter: Rewriter | None = None
    sender_domains: SenderDomains | None = None


@record
class Recipient:
    """An accepted RCPT and where it leads."""

    forward_path: Address
    routed: Routed
    notify: frozenset[Notify] | None = None
    original_recipient: str | None = None
    rewritten_at: str = ""
    """The domain of ours in which the sender is rewritten for those elsewhere; "": it stays."""

    @property
    def alias(self) -> Address | None:
        """The alias that it is, if it leads to another house."""
        routed = self.routed
        return (
            Address(self.forward_path.local_part, routed.alias_domain) if routed.is_alias and routed.remotes else None
        )


@dataclass(slots=True, kw_only=True)
class MailTransaction:
    """What MAIL began (RFC 5321 §3.3); dropped in every outcome."""

    peer: Peer
    reverse_path: ReversePath
    smtputf8: bool = False
    body: str = "7BIT"
    ret: Ret | None = None
    envelope_id: str | None = None
    size_octets: int | None = None
    """What SIZE said (RFC 1870)."""
    recipients: list[Recipient] = field(default_factory=list)
    followed: int = 0
    """Addresses that aliases led to, of refused recipients too."""
    identity: Identity | None = None
    """What the reverse-path is, where mail of it leaves through a server of its own; known once it has to leave."""
    missing: Missing | None = None
    """Header fields that a submitted message lacks and that we add (RFC 6409 §8)."""


class Admission:
    """The one way in for mail, whatever brought it."""

    def __init__(self, seams: Seams, rules: Rules, clock: Clock, random: Random) -> None:
        self._seams = seams
        self.rules = rules
        self._home = Home(
            hostname=rules.hostname, postmaster=rules.postmaster, roles=rules.roles, literals=rules.literals
        )
        self._clock = clock
        self._random = random

    async def judge_sender(self, peer: Peer, reverse_path: ReversePath) -> Reply:
        """The reply to MAIL. A login sends only as its own identities; the null path is for machines."""
        if reverse_path is None:
            return replies.SENDER_OK
        if peer.role is not _EXCHANGE and not await self.may_send_as(peer, reverse_path):
            return replies.NOT_YOUR_IDENTITY
        sender_domains = self._seams.sender_domains
        if sender_domains is None or peer.trusted or sender_domains.known(reverse_path.domain) is False:
            return replies.SENDER_OK
        takes_none = await takes_no_mail(reverse_path.domain, sender_domains, self._seams.directory, self.rules)
        return replies.SENDER_TAKES_NO_MAIL if takes_none else replies.SENDER_OK

    async def may_send_as(self, peer: Peer, address: Address) -> bool:
        """Whether the address is an identity of who logged in."""
        account = peer.account
        return account is not None and await may_send_as(self._seams.directory, account.account, address, self._home)

    def submission(self, transaction: MailTransaction) -> Submission | None:
        """What the content of a transaction has to pass before it is stored; None: nothing (RFC 6409 is for users)."""
        peer = transaction.peer
        if peer.role is not _SUBMISSION or peer.account is None:
            return None
        return Submission(_submitter(transaction, peer.account.login), lambda address: self.may_send_as(peer, address))

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
        if transaction.followed >= MAX_FOLLOWED:
            return replies.TOO_MANY_RECIPIENTS
        peer = transaction.peer
        led_to = await self.open(forward_path, self._clock.now())
        if led_to is None:
            return replies.NO_SUCH_MAILBOX
        is_returned = led_to is not forward_path
        if is_returned and transaction.reverse_path is not None:
            return replies.NOT_A_REPORT
        routed = await self.route(led_to, local_address=peer.local_address)
        transaction.followed += routed.followed - 1
        refusal = _refusal(peer, routed, is_returned=is_returned)
        if refusal is None and routed.remotes:
            transaction.identity = await own_way(self._seams.directory, peer, transaction.reverse_path)
            if not routed.is_alias:
                refusal = await self._unreachable(led_to.domain, by_via=transaction.identity is not None)
        if refusal is None:
            refusal = await over_quota(self._seams.maildrops, routed, transaction.size_octets)
        if refusal is not None:
            return refusal
        rewriter = self._seams.rewriter
        transaction.recipients.append(
            Recipient(
                forward_path=forward_path,
                routed=routed,
                notify=notify,
                original_recipient=original_recipient,
                rewritten_at=await rewriter.domain_for(transaction.reverse_path, routed)
                if rewriter is not None and transaction.identity is None
                else "",
            )
        )
        return replies.RECIPIENT_OK

    async def open(self, address: Address, now: float | None) -> Address | None:
        """Whom a rewritten sender of ours stands for, as `Rewriter.open` has it; any other address is itself."""
        rewriter = self._seams.rewriter
        return await rewriter.open(address, now) if rewriter is not None else address

    async def route(self, forward_path: Address, *, local_address: str = "") -> Routed:
        """Where a forward-path leads. Mail for a postmaster whom nobody is leads to the system maildrop."""
        routed = await route(self._seams.directory, forward_path, self._home, local_address=local_address)
        if routed.unread:
            login = self._home.system_login
            account = await self._seams.administration.system_maildrop(login, self._clock.now())
            routed.mailboxes[account] = (Mailbox(account, str(login)), qualified(forward_path, self.rules.hostname))
        return routed

    async def judge_content(self, transaction: MailTransaction, content: SealedContent) -> Reply | None:
        """A reason to refuse the content, or None.

        There is one reply for all recipients, so what was said at RCPT stands while one of them can have the message.
        Where none can, now that the size is known, it is refused: an address named twice, as `ann+a` and `ann+b`, or
        a size that MAIL made smaller, is no way past a quota.
        """
        if content.facts.received_fields >= MAX_RECEIVED_FIELDS:
            return replies.TOO_MANY_HOPS
        delivered_to = content.facts.delivered_to
        # Whoever logs in may send an old message on again.
        aliases = [recipient.alias for recipient in transaction.recipients]
        if delivered_to and transaction.peer.role is _EXCHANGE and are_in_circles(aliases, delivered_to):
            return replies.IN_A_CIRCLE
        refusal: Reply | None = None
        for recipient in transaction.recipients:
            found = await over_quota(self._seams.maildrops, recipient.routed, content.size_octets)
            if found is None:
                return None
            refusal = found if refusal is None or found.is_transient else refusal
        return refusal

    async def _unreachable(self, domain: str, *, by_via: bool) -> Reply | None:
        """Why mail for another domain would only come back as a report (RFC 6409 §3.2, §4.2)."""
        if domain in self.rules.routed_domains and not by_via:
            return None
        if "." not in domain and not domain.startswith("["):
            return replies.SHORT_DOMAIN
        elsewhere = self._seams.elsewhere
        # What is behind a `via` looks for the way itself; ours may not even have name servers.
        return await elsewhere.refusal(domain) if elsewhere is not None and not by_via else None

    def plan(self, transaction: MailTransaction, content: SealedContent) -> Acceptance:
        """Everything that becomes durable with this message. One entry for each maildrop, whoever named it twice."""
        now = self._clock.now()
        queue_id = new_queue_id(now, self._random)
        prefix, content = self._prefix(transaction, content, queue_id, now)
        sender, identity = transaction.reverse_path, transaction.identity
        placements, forwards, placed = self._places(sender, transaction.recipients, queue_id, now, identity)
        return Acceptance(
            queue_id=queue_id,
            accepted_at=now,
            reverse_path=transaction.reverse_path,
            prefix=prefix,
            content=content,
            placements=placements,
            forwards=forwards,
            events=(accepted(transaction, content, queue_id, now), *placed),
            ret=transaction.ret,
            envelope_id=transaction.envelope_id,
            smtputf8=transaction.smtputf8,
            body=transaction.body,
            sending=sending(transaction.peer, self.rules) if forwards else None,
        )

    def _prefix(
        self, transaction: MailTransaction, content: SealedContent, queue_id: QueueId, now: float
    ) -> tuple[bytes, SealedContent]:
        """Our fields above the content, and the content's facts with those that we added."""
        hostname = self.rules.hostname
        recipient = transaction.recipients[0] if len(transaction.recipients) == 1 else None
        only = recipient.forward_path if recipient is not None else None
        remotes = (address for each in transaction.recipients for address in each.routed.remotes.values())
        received = trace.received(
            transaction.peer,
            hostname=hostname,
            queue_id=queue_id,
            now=now,
            only_recipient=qualified(only, hostname) if only is not None else None,
            smtputf8=transaction.smtputf8,
            u_labels=transaction.smtputf8
            and trace.stays_international(transaction.reverse_path, content.facts, remotes),
        )
        received += trace.led_away(recipient.alias if recipient is not None else None)
        missing = transaction.missing
        if missing is None:
            return received, content
        if missing.message_id:
            message_id = trace.message_id(hostname, queue_id)
            content = replace(content, facts=replace(content.facts, message_id=message_id))
        return received + trace.submitted(missing, hostname=hostname, queue_id=queue_id, now=now), content

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

        To an identity elsewhere it comes into the maildrop of its account: sent out, it would be a stranger's mail.

        Raises StorageBusy when the directory cannot say: a report is never dropped for that.
        """
        routed = await held_here(self._seams.directory, forward_path) or await self.route(forward_path)
        if routed.leads_nowhere:
            if routed.unavailable:
                raise StorageBusy("the directory cannot be asked now")
            return None
        now = self._clock.now()
        recipient = Recipient(forward_path=forward_path, routed=routed, notify=frozenset({Notify.NEVER}))
        placements, forwards, placed = self._places(None, [recipient], queue_id, now)
        return Acceptance(
            queue_id=queue_id,
            accepted_at=now,
            reverse_path=None,
            prefix=trace.generated(hostname=self.rules.hostname, queue_id=queue_id, now=now),
            content=content,
            placements=placements,
            forwards=forwards,
            events=(accepted_report(forward_path, content, queue_id, about, now), *placed),
            smtputf8=smtputf8,
            body="8BITMIME" if eight_bit else "7BIT",
        )

    def _places(
        self,
        reverse_path: ReversePath,
        recipients: list[Recipient],
        queue_id: QueueId,
        now: float,
        identity: Identity | None = None,
    ) -> tuple[tuple[Placement, ...], tuple[Forward, ...], list[JourneyEvent]]:
        via = identity.via if identity is not None else ""
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
                if key in forwards:
                    continue
                rewriter = self._seams.rewriter
                sender = (
                    rewriter.rewrite(reverse_path, recipient.rewritten_at, queue_id, now) if rewriter else reverse_path
                )
                forwards[key] = self._forward(sender, recipient, address, now, identity)
                events.append(
                    Queued(
                        queue_id=queue_id,
                        at=now,
                        forward_path=str(address),
                        domain=address.domain,
                        via=via,
                        rewritten=str(sender) if sender != reverse_path else "",
                    )
                )
        return tuple(placements.values()), tuple(forwards.values()), events

    def _forward(
        self,
        reverse_path: ReversePath,
        recipient: Recipient,
        address: Address,
        now: float,
        identity: Identity | None,
    ) -> Forward:
        return Forward(
            forward_path=address,
            reverse_path=reverse_path,
            destination=Destination(identity.via if identity else "", address.domain),
            identity=str(identity.address) if identity else None,
            not_before=now,
            expires_at=now + self.rules.expire_after_s,
            original_recipient=original_recipient(recipient.original_recipient, recipient.alias),
            notify=passed_on(recipient.notify, is_expanded=recipient.routed.is_expanded),
            # Whom an alias leads to, its owner chose, not who wrote to it.
            counted=not recipient.routed.is_alias,
        )


def _submitter(transaction: MailTransaction, login: str) -> Address | None:
    """Whom to name as Sender: who the envelope says it is from, else the login; None where it cannot be written."""
    try:
        address = transaction.reverse_path or parse_address(login)
    except AddressError:
        return None
    return address if address.is_ascii or transaction.smtputf8 else None


def _refusal(peer: Peer, routed: Routed, *, is_returned: bool) -> Reply | None:
    if routed.unavailable:
        return replies.DIRECTORY_UNAVAILABLE
    if routed.too_large:
        return replies.ALIAS_TOO_LARGE
    if routed.leads_nowhere:
        return replies.ALIAS_BROKEN if routed.is_alias else replies.NO_SUCH_MAILBOX
    # An alias of ours may lead elsewhere for anybody: its owner asked for that, and for the reports on it.
    if routed.remotes and not routed.is_alias and not peer.may_relay and not is_returned:
        return replies.RELAY_REFUSED
    return None
