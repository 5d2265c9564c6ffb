"""What goes into the client half of SMTP, a transaction, and what comes out of it, its events."""

from __future__ import annotations

from dataclasses import dataclass

from posthouse.mail.acceptance import Notify, Ret
from posthouse.mail.address import Address, ReversePath
from posthouse.mail.reply import Reply
from posthouse.protocol.events import Notice


@dataclass(frozen=True, slots=True)
class ClientRecipient:
    """One RCPT. The parameters are sent only to a peer that offers DSN."""

    forward_path: Address
    notify: frozenset[Notify] | None = None
    original_recipient: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTransaction:
    """One MAIL with its recipients. Parameters are sent only to a peer that offers their extension."""

    reverse_path: ReversePath
    recipients: tuple[ClientRecipient, ...]
    size_octets: int
    body: str = "7BIT"
    smtputf8: bool = False
    ret: Ret | None = None
    envelope_id: str | None = None


@dataclass(frozen=True, slots=True)
class Greeting(Notice):
    """The peer's first word. After 2yz EHLO (or HELO) is under way; after anything else only `quit()` is left."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Ready(Notice):
    """The peer knows us: by EHLO (`extended`), or by HELO."""

    reply: Reply
    extended: bool


@dataclass(frozen=True, slots=True)
class HelloRefused(Notice):
    """The peer does not want us."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class TlsReplied(Notice):
    """The answer to STARTTLS. After 2yz the handshake, then `tls_started()`; else all is as before."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Challenged(Notice):
    """AUTH wants a response: `answer_challenge()`, which may take half a second of computing."""


@dataclass(frozen=True, slots=True)
class AuthReplied(Notice):
    """235, or why not. With `fault` (a sentence) the peer is not to be trusted, whatever it replied."""

    reply: Reply
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class ContentWanted(Notice):
    """At least one recipient was accepted, and content may come: `content()`, then `end_content()`."""

    recipients: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class ChunkTaken(Notice):
    """A chunk that was not the last was taken."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class TransactionEnded(Notice):
    """The transaction is over, whatever way. None stands for what was never asked or never answered.

    `final` is the reply to the content, or the one that refused a chunk of it; without it nothing was delivered to
    anybody. A recipient beyond the peer's limits (RFC 9422) was never asked: another transaction may ask it.
    """

    mail: Reply
    recipients: tuple[Reply | None, ...]
    data: Reply | None
    final: Reply | None


@dataclass(frozen=True, slots=True)
class ResetReplied(Notice):
    """The answer to `reset()`."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class QuitReplied(Notice):
    """The answer to `quit()`; CLOSED follows."""

    reply: Reply
