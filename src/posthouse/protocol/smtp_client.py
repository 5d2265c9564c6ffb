"""The client half of SMTP without I/O (RFC 5321 §3, RFC 2920 §3.1, RFC 4954).

The driver's loop is that of the server half: `next_event()`; at NEED_DATA write `outgoing()`, read, `receive()`.
EHLO follows the greeting by itself. Whatever the peer says is data; what it may not say is RemoteProtocolError.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from posthouse.mail.acceptance import Notify
from posthouse.mail.address import ReversePath, path_text
from posthouse.mail.reply import Reply
from posthouse.protocol.errors import LocalProtocolError, RemoteProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA, Signal
from posthouse.protocol.lines import BadLine, ContentWriter, EndlessLine, LineBuffer
from posthouse.protocol.sasl import SaslError, encode_base64, encode_plain
from posthouse.protocol.smtp import MAX_COMMAND_LINE_OCTETS
from posthouse.protocol.smtp_client_events import (
    AuthReplied,
    ClientRecipient,
    ClientTransaction,
    ContentWanted,
    Greeting,
    HelloRefused,
    QuitReplied,
    Ready,
    ResetReplied,
    TransactionEnded,
)
from posthouse.protocol.smtp_parameters import encode_original_recipient, encode_xtext
from posthouse.protocol.smtp_reply import MAX_PEER_LINE_OCTETS, ReplyReader

__all__ = [
    "AuthReplied",
    "ClientEvent",
    "ClientRecipient",
    "ClientTransaction",
    "ContentWanted",
    "Greeting",
    "HelloRefused",
    "QuitReplied",
    "Ready",
    "ResetReplied",
    "SmtpClient",
    "TransactionEnded",
]

ClientEvent: TypeAlias = (
    Greeting
    | Ready
    | HelloRefused
    | AuthReplied
    | ContentWanted
    | TransactionEnded
    | ResetReplied
    | QuitReplied
    | Signal
)


class Awaiting(Enum):
    """What the next reply answers."""

    GREETING = auto()
    EHLO = auto()
    HELO = auto()
    AUTH = auto()
    CLEARING = auto()
    """An RSET that clears what an earlier transaction may have left open; its driver did not ask for it."""
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    FINAL = auto()
    RESET = auto()
    QUIT = auto()


_WITHOUT_ENHANCED_CODE = frozenset({Awaiting.GREETING, Awaiting.EHLO, Awaiting.HELO})
_MAY_CONTINUE = frozenset({Awaiting.AUTH, Awaiting.DATA})


@dataclass(slots=True)
class _Progress:
    """A transaction under way and the replies that it got."""

    transaction: ClientTransaction
    pipelined: bool
    recipients: list[Reply | None]
    answered: int = 0
    mail: Reply | None = None
    data: Reply | None = None

    def has_accepted_recipient(self) -> bool:
        """Whether anybody would get the content."""
        return any(reply is not None and reply.is_positive for reply in self.recipients)


class SmtpClient:
    """One session. `extensions` maps upper-case keywords of the last EHLO to their parameters."""

    def __init__(self, hello_name: str) -> None:
        self._hello_name = _argument(hello_name)
        self._input = LineBuffer()
        self._reader = ReplyReader()
        self._output: list[bytes] = []
        self._awaiting = deque([Awaiting.GREETING])
        self._progress: _Progress | None = None
        self._content: ContentWriter | None = None
        self._auth_response: bytes | None = None
        self._end_of_input = False
        self._ready = False
        self._uncleared = False
        self._closed = False
        self.extensions: dict[str, str] = {}

    def login(self, login: str, password: str) -> None:
        """AUTH PLAIN; AuthReplied follows. The peer must offer it."""
        self._require_idle()
        if "PLAIN" not in self.extensions.get("AUTH", "").upper().split():
            raise LocalProtocolError("the peer does not offer AUTH PLAIN")
        try:
            response = encode_base64(encode_plain(login, password))
        except SaslError as exc:
            raise LocalProtocolError(str(exc)) from exc
        line = b"AUTH PLAIN " + response
        self._auth_response = None
        if len(line) + 2 > MAX_COMMAND_LINE_OCTETS:
            # Too long for a command line: the response waits for the challenge (RFC 4954 §4).
            line, self._auth_response = b"AUTH PLAIN", response
        self._output.append(line + b"\r\n")
        self._awaiting.append(Awaiting.AUTH)

    def begin(self, transaction: ClientTransaction) -> None:
        """MAIL, RCPT and DATA; ContentWanted or TransactionEnded follows.

        In one group, DATA last, if the peer offers PIPELINING (RFC 2920 §3.1); else one by one. What an earlier
        transaction may have left open is cleared by RSET first.
        """
        self._require_idle()
        if not transaction.recipients:
            raise LocalProtocolError("a transaction needs a recipient")
        mail = self._mail_line(transaction)
        recipients = [self._recipient_line(recipient, transaction) for recipient in transaction.recipients]
        pipelined = "PIPELINING" in self.extensions
        self._progress = _Progress(transaction, pipelined, [None] * len(recipients))
        if self._uncleared:
            self._send("RSET", Awaiting.CLEARING)
            if not pipelined:
                return
        self._send(mail, Awaiting.MAIL)
        if pipelined:
            for line in recipients:
                self._send(line, Awaiting.RCPT)
            self._send("DATA", Awaiting.DATA)

    def content(self, octets: bytes) -> None:
        """The next octets of the content, cut anywhere; lines end in CRLF."""
        if self._content is None:
            raise LocalProtocolError("content is not wanted now")
        self._output.append(self._content.encode(octets))

    def end_content(self) -> None:
        """The content is complete; TransactionEnded follows."""
        if self._content is None:
            raise LocalProtocolError("content is not wanted now")
        self._output.append(self._content.finish())
        self._content = None
        self._awaiting.append(Awaiting.FINAL)

    def reset(self) -> None:
        """RSET; ResetReplied follows."""
        self._require_idle()
        self._send("RSET", Awaiting.RESET)

    def quit(self) -> None:
        """QUIT; QuitReplied and CLOSED follow. Inside a transaction it could become content; close there instead.

        After 421 or the end of input it does nothing: there is nobody left to say it to.
        """
        if self._progress is not None:
            raise LocalProtocolError("QUIT could become content")
        if not self._closed:
            self._send("QUIT", Awaiting.QUIT)

    @property
    def is_closed(self) -> bool:
        """Whether no further command can be sent: the peer said 421, left, or spoke nonsense."""
        return self._closed

    def receive(self, octets: bytes) -> None:
        """Take octets from the peer; b"" says that no more will come."""
        if octets:
            self._input.feed(octets)
        else:
            self._end_of_input = True

    def outgoing(self) -> bytes:
        """What is to be written to the peer now; given out once."""
        octets = b"".join(self._output)
        self._output.clear()
        return octets

    def next_event(self) -> ClientEvent:
        """The next event. Raises RemoteProtocolError; after that the session is over."""
        try:
            while not self._closed:
                event = self._step()
                if event is not None:
                    return event
        except RemoteProtocolError:
            self._closed = True
            raise
        return CLOSED

    def _step(self) -> ClientEvent | None:
        try:
            line = self._input.next_line(MAX_PEER_LINE_OCTETS)
        except EndlessLine as exc:
            raise RemoteProtocolError("the peer's reply does not end") from exc
        if line is None:
            if not self._end_of_input:
                return NEED_DATA
            self._closed = True
            return None
        if isinstance(line, BadLine):
            raise RemoteProtocolError(f"the peer's reply has a bad line: {line.fault.name}")
        enhanced = not self._awaiting or self._awaiting[0] not in _WITHOUT_ENHANCED_CODE
        reply = self._reader.feed(line, enhanced=enhanced)
        return self._take(reply) if reply is not None else None

    def _take(self, reply: Reply) -> ClientEvent | None:
        if not self._awaiting:
            return self._take_unasked(reply)
        awaited = self._awaiting.popleft()
        if 300 <= reply.code < 400 and awaited not in _MAY_CONTINUE:
            raise RemoteProtocolError("the peer wants more where there is no more")
        event = self._take_awaited(awaited, reply)
        if reply.code == 421:
            # The peer is closing (RFC 5321 §3.8): replies to the rest of the group will not come.
            self._closed = True
            if event is None and self._progress is not None:
                event = self._end_transaction(None)
        return event

    def _take_unasked(self, reply: Reply) -> ClientEvent | None:
        """Only a farewell, or the refusal of content that is still being sent, may come unasked."""
        if reply.code < 400 or (self._content is None and reply.code != 421):
            raise RemoteProtocolError("the peer answers what was not asked")
        self._closed = True
        return self._end_transaction(reply) if self._content is not None else None

    def _take_awaited(self, awaited: Awaiting, reply: Reply) -> ClientEvent | None:
        match awaited:
            case Awaiting.GREETING:
                if reply.is_positive:
                    self._send(f"EHLO {self._hello_name}", Awaiting.EHLO)
                return Greeting(reply)
            case Awaiting.EHLO | Awaiting.HELO:
                return self._take_hello(awaited, reply)
            case Awaiting.AUTH:
                return self._take_auth(reply)
            case Awaiting.CLEARING | Awaiting.MAIL | Awaiting.RCPT | Awaiting.DATA:
                return self._take_envelope(awaited, reply)
            case Awaiting.FINAL:
                self._uncleared = False
                return self._end_transaction(reply)
            case Awaiting.RESET:
                self._uncleared = not reply.is_positive
                return ResetReplied(reply)
            case Awaiting.QUIT:
                self._closed = True
                return QuitReplied(reply)

    def _take_hello(self, awaited: Awaiting, reply: Reply) -> ClientEvent | None:
        extended = awaited is Awaiting.EHLO
        if reply.is_positive:
            self._ready = True
            self.extensions = _extensions(reply.text) if extended else {}
            return Ready(reply, extended)
        if extended and reply.is_permanent:
            self._send(f"HELO {self._hello_name}", Awaiting.HELO)
            return None
        return HelloRefused(reply)

    def _take_auth(self, reply: Reply) -> ClientEvent | None:
        if not 300 <= reply.code < 400:
            return AuthReplied(reply)
        if reply.code != 334:
            raise RemoteProtocolError("the peer wants more where there is no more")
        # A challenge after our whole message is not PLAIN: cancel, and report the peer's answer to that.
        response, self._auth_response = self._auth_response, None
        self._output.append((response if response is not None else b"*") + b"\r\n")
        self._awaiting.append(Awaiting.AUTH)
        return None

    def _take_envelope(self, awaited: Awaiting, reply: Reply) -> ClientEvent | None:
        progress = self._progress
        assert progress is not None
        match awaited:
            case Awaiting.MAIL:
                progress.mail = reply
                self._uncleared = reply.is_positive
            case Awaiting.RCPT:
                # What follows a refused MAIL in the group says nothing about the recipient.
                if progress.mail is not None and progress.mail.is_positive:
                    progress.recipients[progress.answered] = reply
                progress.answered += 1
            case Awaiting.DATA:
                return self._take_data(progress, reply)
            case _:
                self._uncleared = not reply.is_positive
                if reply.code == 421:
                    progress.mail = reply
                elif self._uncleared:
                    raise RemoteProtocolError("the peer refuses RSET")
        return None if progress.pipelined or reply.code == 421 else self._send_next(progress)

    def _send_next(self, progress: _Progress) -> ClientEvent | None:
        """The next command of a transaction whose peer takes one at a time."""
        transaction = progress.transaction
        if progress.mail is None:
            self._send(self._mail_line(transaction), Awaiting.MAIL)
        elif not progress.mail.is_positive:
            return self._end_transaction(None)
        elif progress.answered < len(transaction.recipients):
            recipient = transaction.recipients[progress.answered]
            self._send(self._recipient_line(recipient, transaction), Awaiting.RCPT)
        elif progress.has_accepted_recipient():
            self._send("DATA", Awaiting.DATA)
        else:
            return self._end_transaction(None)
        return None

    def _take_data(self, progress: _Progress, reply: Reply) -> ClientEvent | None:
        if progress.mail is not None and progress.mail.is_positive:
            progress.data = reply
        if reply.code == 354:
            if not progress.has_accepted_recipient():
                # RFC 2920 §3.1: the peer waits for content that nobody will get.
                self._output.append(b".\r\n")
                self._awaiting.append(Awaiting.FINAL)
                return None
            self._content = ContentWriter()
            return ContentWanted(tuple(reply for reply in progress.recipients if reply is not None))
        if reply.code < 400:
            raise RemoteProtocolError("the peer answers DATA with neither 354 nor a refusal")
        return self._end_transaction(None)

    def _end_transaction(self, final: Reply | None) -> TransactionEnded:
        progress, self._progress, self._content = self._progress, None, None
        assert progress is not None
        mail = progress.mail
        if mail is None:
            raise RemoteProtocolError("the peer closes before the transaction began")
        return TransactionEnded(mail, tuple(progress.recipients), progress.data, final)

    def _mail_line(self, transaction: ClientTransaction) -> str:
        offered = self.extensions
        line = f"MAIL FROM:{self._path(transaction.reverse_path, transaction)}"
        if "SIZE" in offered:
            line += f" SIZE={transaction.size_octets}"
        if "8BITMIME" in offered and transaction.body != "7BIT":
            line += f" BODY={_argument(transaction.body)}"
        if "SMTPUTF8" in offered and transaction.smtputf8:
            line += " SMTPUTF8"
        if "DSN" in offered and transaction.ret is not None:
            line += f" RET={transaction.ret}"
        if "DSN" in offered and transaction.envelope_id is not None:
            line += f" ENVID={_encoded(encode_xtext, transaction.envelope_id)}"
        return line

    def _recipient_line(self, recipient: ClientRecipient, transaction: ClientTransaction) -> str:
        line = f"RCPT TO:{self._path(recipient.forward_path, transaction)}"
        if "DSN" not in self.extensions:
            return line
        if recipient.notify is not None:
            line += " NOTIFY=" + ",".join(word for word in Notify if word in recipient.notify)
        if recipient.original_recipient is not None:
            line += f" ORCPT={_encoded(encode_original_recipient, recipient.original_recipient)}"
        return line

    def _path(self, path: ReversePath, transaction: ClientTransaction) -> str:
        text = _argument(path_text(path))
        if not text.isascii() and not (transaction.smtputf8 and "SMTPUTF8" in self.extensions):
            raise LocalProtocolError("the peer cannot take an internationalised address")
        return text

    def _send(self, line: str, awaited: Awaiting) -> None:
        self._output.append(line.encode() + b"\r\n")
        self._awaiting.append(awaited)

    def _require_idle(self) -> None:
        if not self._ready or self._closed or self._awaiting or self._content is not None:
            raise LocalProtocolError("the session is not ready for a command")


def _argument(text: str) -> str:
    """The text, which must not end its line."""
    if "\r" in text or "\n" in text or "\0" in text:
        raise LocalProtocolError("an argument holds CR, LF or NUL")
    return text


def _encoded(encode: Callable[[str], str], text: str) -> str:
    try:
        return encode(text)
    except ValueError as exc:
        raise LocalProtocolError(str(exc)) from exc


def _extensions(text: str) -> dict[str, str]:
    """Keywords and parameters of an EHLO reply; its first line names the host."""
    found: dict[str, str] = {}
    for line in text.split("\n")[1:]:
        keyword, _, parameter = line.strip().partition(" ")
        if keyword:
            found.setdefault(keyword.upper(), parameter.strip())
    return found
