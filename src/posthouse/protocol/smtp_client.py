"""The client half of SMTP without I/O (RFC 5321 §3; RFC 2920 §3.1, 3030, 3207, 4954, 9422).

The driver's loop is that of the server half: `next_event()`; at NEED_DATA write `outgoing()`, read, `receive()`.
EHLO follows the greeting by itself. Whatever the peer says is data; what it may not say is RemoteProtocolError.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import TypeAlias

from posthouse.mail.reply import Reply
from posthouse.mail.source import Mechanism
from posthouse.protocol.errors import LocalProtocolError, RemoteProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA, Signal
from posthouse.protocol.lines import BadLine, EndlessLine, LineBuffer
from posthouse.protocol.sasl import SaslError
from posthouse.protocol.smtp import MAX_COMMAND_LINE_OCTETS
from posthouse.protocol.smtp_client_auth import ClientExchange, begin_exchange, weaker_than
from posthouse.protocol.smtp_client_content import ChunkedContent, ContentUnfit, DottedContent
from posthouse.protocol.smtp_client_envelope import hello_name, mail_line, recipient_line
from posthouse.protocol.smtp_client_events import (
    AuthReplied,
    Challenged,
    ChunkTaken,
    ClientRecipient,
    ClientTransaction,
    ContentWanted,
    Greeting,
    HelloRefused,
    QuitReplied,
    Ready,
    ResetReplied,
    TlsReplied,
    TransactionEnded,
)
from posthouse.protocol.smtp_client_offers import Limits, parse_extensions, parse_limits, parse_mechanisms
from posthouse.protocol.smtp_client_progress import Progress, Tally
from posthouse.protocol.smtp_reply import MAX_PEER_LINE_OCTETS, ReplyReader

__all__ = [
    "AuthReplied",
    "Awaiting",
    "Challenged",
    "ChunkTaken",
    "ClientEvent",
    "ClientRecipient",
    "ClientTransaction",
    "ContentUnfit",
    "ContentWanted",
    "Greeting",
    "HelloRefused",
    "Limits",
    "QuitReplied",
    "Ready",
    "ResetReplied",
    "SmtpClient",
    "TlsReplied",
    "TransactionEnded",
]

ClientEvent: TypeAlias = (
    Greeting
    | Ready
    | HelloRefused
    | TlsReplied
    | Challenged
    | AuthReplied
    | ContentWanted
    | ChunkTaken
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
    TLS = auto()
    AUTH = auto()
    CLEARING = auto()
    """An RSET that clears what an earlier transaction may have left open; its driver did not ask for it."""
    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    CHUNK = auto()
    FINAL = auto()
    RESET = auto()
    QUIT = auto()


_WITHOUT_ENHANCED_CODE = frozenset({Awaiting.GREETING, Awaiting.EHLO, Awaiting.HELO})
_MAY_CONTINUE = frozenset({Awaiting.AUTH, Awaiting.DATA})
_NO_MAIL_HERE = 521
"""There is no mail service at all (RFC 7504): HELO would hear it, too."""


class SmtpClient:
    """One session. `extensions` maps upper-case keywords of the last EHLO to their parameters."""

    def __init__(self, name: str, *, extended: bool = True) -> None:
        """`name` is ours, a full domain name or an address literal; without `extended`, HELO is said at once."""
        self._name = hello_name(name)
        self._extended = extended
        self._input = LineBuffer()
        self._reader = ReplyReader()
        self._output: list[bytes] = []
        self._awaiting = deque([Awaiting.GREETING])
        self._progress: Progress | None = None
        self._content: DottedContent | ChunkedContent | None = None
        self._exchange: ClientExchange | None = None
        self._challenge: str | None = None
        self._fault: str | None = None
        self._mechanism = ""
        self._tally = Tally()
        self._end_of_input = False
        self._upgrading = False
        self._ready = False
        self._uncleared = False
        self._closed = False
        self.extensions: dict[str, str] = {}
        self.limits = Limits()
        self.replies = 0
        """How many whole replies have come."""

    def start_tls(self) -> None:
        """STARTTLS, with nothing behind it; TlsReplied follows. The peer must offer it."""
        self._require_idle()
        if "STARTTLS" not in self.extensions:
            raise LocalProtocolError("the peer does not offer STARTTLS")
        self._send("STARTTLS", Awaiting.TLS)

    def tls_started(self) -> None:
        """The handshake is done: what the peer said in clear is forgotten, EHLO begins anew (RFC 3207 §4.2)."""
        if not self._upgrading:
            raise LocalProtocolError("no handshake was due")
        self._upgrading = self._ready = False
        self.extensions, self.limits = {}, Limits()
        self._send_hello()

    def login(
        self,
        login: str,
        password: str,
        nonce: str,
        *,
        weaker: bool = False,
        mechanism: Mechanism = Mechanism.PASSWORD,
    ) -> None:
        """AUTH by the strongest mechanism that is offered; AuthReplied follows, perhaps after Challenged.

        `weaker`: by one that is weaker than the last that was tried. `mechanism`: the password is a token for this one.

        `nonce` is random, printable ASCII without a comma. Raises LocalProtocolError where it cannot be tried.
        """
        self._require_idle()
        offered = self.weaker_mechanisms if weaker else parse_mechanisms(self.extensions)
        exchange = begin_exchange(offered, login, password, nonce, mechanism)
        command = f"AUTH {exchange.mechanism}"
        first = exchange.begin(MAX_COMMAND_LINE_OCTETS - len(command) - 3)
        self._exchange, self._fault, self._mechanism = exchange, None, exchange.mechanism
        self._send(command if first is None else f"{command} {first.decode()}", Awaiting.AUTH)

    @property
    def weaker_mechanisms(self) -> frozenset[str]:
        """What is offered beside the mechanism that was tried last, and weaker; nothing where the peer has left."""
        if not self._mechanism or self._closed:
            return frozenset()
        return weaker_than(self._mechanism, parse_mechanisms(self.extensions))

    def answer_challenge(self) -> None:
        """After Challenged: send the response, or cancel where the peer is not to be trusted."""
        exchange, challenge = self._exchange, self._challenge
        if exchange is None or challenge is None:
            raise LocalProtocolError("there is no challenge")
        self._challenge = None
        try:
            response = exchange.answer(challenge).decode()
        except SaslError as exc:
            self._fault, response = str(exc), "*"
        self._send(response, Awaiting.AUTH)

    def begin(self, transaction: ClientTransaction) -> None:
        """MAIL, RCPT and perhaps DATA; ContentWanted or TransactionEnded follows.

        In one group, DATA last, if the peer offers PIPELINING (RFC 2920 §3.1); else one by one. What an earlier
        transaction may have left open is cleared by RSET first. Recipients beyond the peer's limits are not asked;
        `may_begin` says whether any would be. With CHUNKING the content goes by BDAT.
        """
        self._require_idle()
        if not transaction.recipients:
            raise LocalProtocolError("a transaction needs a recipient")
        mail = mail_line(transaction, self.extensions)
        lines = [recipient_line(each, transaction, self.extensions) for each in transaction.recipients]
        asked = self._tally.choose(transaction.recipients, self.limits)
        if not asked:
            raise LocalProtocolError("the peer's limits are reached")
        pipelined, chunking = "PIPELINING" in self.extensions, "CHUNKING" in self.extensions
        self._progress = Progress(transaction, asked, pipelined, chunking, [None] * len(lines))
        if self._uncleared:
            self._send("RSET", Awaiting.CLEARING)
            if not pipelined:
                return
        self._send(mail, Awaiting.MAIL)
        if pipelined:
            for number in asked:
                self._send(lines[number], Awaiting.RCPT)
            if not chunking:
                self._send("DATA", Awaiting.DATA)

    def may_begin(self, transaction: ClientTransaction) -> bool:
        """Whether the peer's limits leave room for at least one of the recipients."""
        domains = {recipient.forward_path.domain for recipient in transaction.recipients}
        return self.has_room and any(self._tally.takes_domain(domain, self.limits) for domain in domains)

    @property
    def has_room(self) -> bool:
        """Whether the peer takes another transaction in this session."""
        return not self._closed and self._tally.has_room(self.limits)

    def content(self, octets: bytes) -> list[str]:
        """The next octets of the content, cut anywhere; lines end in CRLF. Returns the commands put between them.

        By BDAT without PIPELINING: when the last command was answered, and no more than half of CHUNK_OCTETS.
        Raises ContentUnfit: the connection must be dropped then.
        """
        if self._content is None or (self._awaiting and "PIPELINING" not in self.extensions):
            raise LocalProtocolError("content is not wanted now")
        parts = self._content.encode(octets)
        self._output += [part for _command, part in parts]
        commands = [command for command, _part in parts if command]
        self._awaiting.extend(Awaiting.CHUNK for _ in commands)
        return commands

    def end_content(self) -> str:
        """The content is complete; TransactionEnded follows. Returns the command that ends it, or the dot.

        Not before each chunk was answered: a message of which one is refused must never be completed.
        """
        if self._content is None or self._awaiting:
            raise LocalProtocolError("the content cannot end now")
        command, octets = self._content.finish()
        self._output.append(octets)
        self._content = None
        self._awaiting.append(Awaiting.FINAL)
        return command

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

    @property
    def recipient_replies(self) -> tuple[Reply | None, ...]:
        """What the recipients of the transaction under way were answered by now."""
        return tuple(self._progress.recipients) if self._progress is not None else ()

    @property
    def awaiting(self) -> Awaiting | None:
        """What the next reply answers."""
        return self._awaiting[0] if self._awaiting else None

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
        if self._upgrading and len(self._input):
            raise RemoteProtocolError("the peer, or somebody in between, speaks before the handshake")
        try:
            line = self._input.next_line(MAX_PEER_LINE_OCTETS)
        except EndlessLine as exc:
            raise RemoteProtocolError("the peer's reply does not end") from exc
        if line is None:
            if not self._end_of_input:
                return NEED_DATA
            self._closed = True
            # Who refuses and hangs up, without a word to the rest of the group, has refused.
            return self._end_transaction(None) if self._progress is not None and self._progress.is_refused else None
        if isinstance(line, BadLine):
            raise RemoteProtocolError(f"the peer's reply has a bad line: {line.fault.name}")
        enhanced = not self._awaiting or self._awaiting[0] not in _WITHOUT_ENHANCED_CODE
        reply = self._reader.feed(line, enhanced=enhanced)
        return self._take(reply) if reply is not None else None

    def _take(self, reply: Reply) -> ClientEvent | None:
        self.replies += 1
        if not self._awaiting:
            return self._take_unasked(reply)
        awaited = self._awaiting.popleft()
        if 300 <= reply.code < 400 and awaited not in _MAY_CONTINUE:
            raise RemoteProtocolError("the peer wants more where there is no more")
        event = self._take_awaited(awaited, reply)
        if reply.code == 421:
            # The peer is closing (RFC 5321 §3.8): replies to the rest of the group will not come.
            self._closed = True
            if not isinstance(event, TransactionEnded) and self._progress is not None:
                event = self._end_transaction(self._progress.refusal)
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
                    self._send_hello()
                return Greeting(reply)
            case Awaiting.EHLO | Awaiting.HELO:
                return self._take_hello(awaited, reply)
            case Awaiting.TLS:
                return self._take_tls(reply)
            case Awaiting.AUTH:
                return self._take_auth(reply)
            case Awaiting.CLEARING | Awaiting.MAIL | Awaiting.RCPT | Awaiting.DATA:
                return self._take_envelope(awaited, reply)
            case Awaiting.CHUNK:
                return self._take_chunk(reply)
            case Awaiting.FINAL:
                # What a refused chunk leaves behind is for RSET to clear (RFC 3030 §2).
                self._uncleared = self._progress is not None and self._progress.chunking and not reply.is_positive
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
            self.extensions = parse_extensions(reply.text) if extended else {}
            self.limits = parse_limits(self.extensions)
            return Ready(reply, extended)
        if extended and reply.is_permanent and reply.code != _NO_MAIL_HERE:
            # 500 and 502 are usual where nobody has heard of EHLO (RFC 5321 §3.2), but old servers and boxes in between
            # say 501, 503, 504, 550, 554; who has another reason tells HELO the same.
            self._send(f"HELO {self._name}", Awaiting.HELO)
            return None
        return HelloRefused(reply)

    def _take_tls(self, reply: Reply) -> ClientEvent:
        if reply.is_positive:
            self._upgrading = True
            if len(self._input):
                raise RemoteProtocolError("the peer, or somebody in between, speaks before the handshake")
        return TlsReplied(reply)

    def _take_auth(self, reply: Reply) -> ClientEvent:
        exchange = self._exchange
        assert exchange is not None
        if reply.code == 334 and self._fault is None:
            self._challenge = reply.text
            return Challenged()
        if 300 <= reply.code < 400:
            raise RemoteProtocolError("the peer wants more where there is no more")
        self._exchange = None
        if reply.is_positive and self._fault is None:
            try:
                exchange.finish()
            except SaslError as exc:
                self._fault = str(exc)
        return AuthReplied(reply, self._fault)

    def _take_envelope(self, awaited: Awaiting, reply: Reply) -> ClientEvent | None:
        progress = self._progress
        assert progress is not None
        match awaited:
            case Awaiting.MAIL:
                progress.mail = reply
                self._uncleared = reply.is_positive
            case Awaiting.RCPT:
                progress.note_recipient(reply)
            case Awaiting.DATA:
                return self._take_data(progress, reply)
            case _:
                self._uncleared = not reply.is_positive
                if reply.code == 421:
                    progress.mail = reply
                elif self._uncleared:
                    raise RemoteProtocolError("the peer refuses RSET")
        return None if reply.code == 421 else self._send_next(progress)

    def _send_next(self, progress: Progress) -> ClientEvent | None:
        """The next command of a transaction, unless it went with the group, or what stands in its place."""
        transaction = progress.transaction
        if progress.pipelined and (not progress.chunking or progress.next_recipient is not None):
            return None
        if progress.mail is None:
            self._send(mail_line(transaction, self.extensions), Awaiting.MAIL)
        elif not progress.mail.is_positive:
            return self._end_transaction(None)
        elif (recipient := progress.next_recipient) is not None:
            self._send(recipient_line(recipient, transaction, self.extensions), Awaiting.RCPT)
        elif not progress.has_accepted_recipient:
            return self._end_transaction(None)
        elif progress.chunking:
            return self._want_content(ChunkedContent())
        else:
            self._send("DATA", Awaiting.DATA)
        return None

    def _take_data(self, progress: Progress, reply: Reply) -> ClientEvent | None:
        if progress.is_mail_accepted:
            progress.data = reply
        if reply.code == 354:
            if not progress.has_accepted_recipient:
                # RFC 2920 §3.1: the peer waits for content that nobody will get.
                self._output.append(b".\r\n")
                self._awaiting.append(Awaiting.FINAL)
                return None
            return self._want_content(DottedContent())
        if reply.code < 400:
            raise RemoteProtocolError("the peer answers DATA with neither 354 nor a refusal")
        return self._end_transaction(None)

    def _take_chunk(self, reply: Reply) -> ClientEvent | None:
        progress = self._progress
        assert progress is not None
        if not reply.is_positive and progress.refusal is None:
            progress.refusal = reply
            self._content = None
        if progress.refusal is None:
            return ChunkTaken(reply)
        # Those that were on their way already are refused, too.
        return None if self._awaiting else self._end_transaction(progress.refusal)

    def _want_content(self, content: DottedContent | ChunkedContent) -> ClientEvent:
        assert self._progress is not None
        self._content = content
        return ContentWanted(tuple(reply for reply in self._progress.recipients if reply is not None))

    def _end_transaction(self, final: Reply | None) -> TransactionEnded:
        progress, self._progress, self._content = self._progress, None, None
        assert progress is not None
        if progress.mail is None:
            raise RemoteProtocolError("the peer closes before the transaction began")
        return progress.ended(progress.mail, final)

    def _send_hello(self) -> None:
        verb, awaited = ("EHLO", Awaiting.EHLO) if self._extended else ("HELO", Awaiting.HELO)
        self._send(f"{verb} {self._name}", awaited)

    def _send(self, line: str, awaited: Awaiting) -> None:
        self._output.append(line.encode() + b"\r\n")
        self._awaiting.append(awaited)

    def _require_idle(self) -> None:
        busy = self._awaiting or self._content is not None or self._upgrading
        if not self._ready or self._closed or busy:
            raise LocalProtocolError("the session is not ready for a command")
