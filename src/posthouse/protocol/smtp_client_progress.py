"""What a client session has to remember: the transaction under way, and how much of the peer's limits is used."""

from __future__ import annotations

from dataclasses import dataclass

from posthouse.mail.reply import Reply
from posthouse.protocol.smtp_client_events import ClientRecipient, ClientTransaction, TransactionEnded
from posthouse.protocol.smtp_client_offers import Limits


@dataclass(slots=True)
class Progress:
    """A transaction under way and the replies that it got. `asked`: the numbers of the recipients that are asked."""

    transaction: ClientTransaction
    asked: tuple[int, ...]
    pipelined: bool
    chunking: bool
    recipients: list[Reply | None]
    answered: int = 0
    mail: Reply | None = None
    data: Reply | None = None
    refusal: Reply | None = None
    """Of a chunk: the first one decides."""

    @property
    def has_accepted_recipient(self) -> bool:
        """Whether anybody would get the content."""
        return any(reply is not None and reply.is_positive for reply in self.recipients)

    @property
    def is_mail_accepted(self) -> bool:
        return self.mail is not None and self.mail.is_positive

    @property
    def is_refused(self) -> bool:
        """Whether nobody will get the content, by the replies that came: the sender was refused, or each recipient."""
        if self.mail is None or not self.mail.is_positive:
            return self.mail is not None
        return self.answered == len(self.asked) and not self.has_accepted_recipient

    @property
    def next_recipient(self) -> ClientRecipient | None:
        """The next one to be asked."""
        if self.answered == len(self.asked):
            return None
        return self.transaction.recipients[self.asked[self.answered]]

    def note_recipient(self, reply: Reply) -> None:
        """What follows a refused MAIL in the group says nothing about the recipient."""
        if self.is_mail_accepted:
            self.recipients[self.asked[self.answered]] = reply
        self.answered += 1

    def ended(self, mail: Reply, final: Reply | None) -> TransactionEnded:
        return TransactionEnded(mail, tuple(self.recipients), self.data, final)


class Tally:
    """How much of its limits a peer has seen of us in this session (RFC 9422 §4)."""

    def __init__(self) -> None:
        self._transactions = 0
        self._domains: set[str] = set()

    def has_room(self, limits: Limits) -> bool:
        """Whether another MAIL is within the limits."""
        return limits.mail_max is None or self._transactions < limits.mail_max

    def takes_domain(self, domain: str, limits: Limits) -> bool:
        """Whether a recipient of `domain` is within the limits."""
        most = limits.recipient_domains_max
        return most is None or domain in self._domains or len(self._domains) < most

    def choose(self, recipients: tuple[ClientRecipient, ...], limits: Limits) -> tuple[int, ...]:
        """The numbers of those that may be asked in the next transaction, which is counted if there are any."""
        chosen: list[int] = []
        if self.has_room(limits):
            for number, recipient in enumerate(recipients):
                if limits.recipients_max is not None and len(chosen) >= limits.recipients_max:
                    break
                if self.takes_domain(recipient.forward_path.domain, limits):
                    self._domains.add(recipient.forward_path.domain)
                    chosen.append(number)
        self._transactions += bool(chosen)
        return tuple(chosen)
