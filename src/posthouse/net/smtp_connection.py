"""An outgoing SMTP connection: drives the client half of the protocol over a stream (RFC 5321 §4.5.3.2)."""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from posthouse.mail.reply import Reply
from posthouse.mail.source import Mechanism
from posthouse.net.smtp_failures import (
    ClosedAtHello,
    ConnectionBroke,
    ConnectionFailed,
    HandshakeFailed,
    LoginImpossible,
    PeerUntrusted,
    TlsNotOffered,
    TlsRefused,
)
from posthouse.net.smtp_transcript import TRANSCRIPT_LINES, Step, Trace, Transcript
from posthouse.net.stream import Stream
from posthouse.net.tls import TlsFacts, handshake_fault, tls_facts
from posthouse.protocol.errors import LocalProtocolError, RemoteProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA
from posthouse.protocol.smtp_client import (
    AuthReplied,
    Awaiting,
    Challenged,
    ChunkTaken,
    ClientEvent,
    ClientTransaction,
    ContentUnfit,
    ContentWanted,
    Greeting,
    HelloRefused,
    Limits,
    QuitReplied,
    Ready,
    ResetReplied,
    SmtpClient,
    TlsReplied,
    TransactionEnded,
)
from posthouse.protocol.smtp_client_content import CHUNK_OCTETS
from posthouse.protocol.smtp_client_envelope import hello_name as checked_hello_name

__all__ = [
    "TRANSCRIPT_LINES",
    "ClosedAtHello",
    "ConnectionBroke",
    "ConnectionFailed",
    "ContentUnfit",
    "HandshakeFailed",
    "Limits",
    "LoginImpossible",
    "PeerUntrusted",
    "SmtpConnection",
    "SmtpTimeouts",
    "TlsFacts",
    "TlsNotOffered",
    "TlsRefused",
    "Trace",
]

BeforeEnd = Callable[[], Awaitable[None]]
NONCE_OCTETS = 18
PIECE_OCTETS = CHUNK_OCTETS // 2
"""So much content at a time: never more than one chunk, which may have to be answered before the next."""
TIMER_STEP_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpTimeouts:
    """Per-phase limits in seconds; the defaults are the minima of RFC 5321 §4.5.3.2.

    Each whole reply has its limit, however its octets drip in.
    """

    connect_s: float = 60.0
    greeting_s: float = 300.0
    handshake_s: float = 60.0
    command_s: float = 300.0
    data_s: float = 120.0
    block_s: float = 180.0
    final_s: float = 600.0
    quit_s: float = 10.0
    transaction_s: float = 7200.0
    """From MAIL until the final dot: a peer that is just quick enough each time must not hold a slot for ever."""


class SmtpConnection:
    """One session with a next hop: `start`, perhaps `start_tls` and `login`, any number of `deliver`, `quit`."""

    def __init__(
        self,
        stream: Stream,
        hello_name: str,
        timeouts: SmtpTimeouts | None = None,
        trace: Trace | None = None,
        *,
        extended: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """A `hello_name` that is no full name is replaced by our address (RFC 5321 §4.1.1.1).

        Without `extended` HELO is said at once: for a peer at which ClosedAtHello was raised.
        """
        self.stream = stream
        self.timeouts = timeouts or SmtpTimeouts()
        self.tls: TlsFacts | None = None
        """How the connection is protected; None in clear."""
        self._smtp = SmtpClient(_hello_name(hello_name, stream), extended=extended)
        self._extended = extended
        self._transcript = Transcript(trace, monotonic)
        self._final_dot_sent = False
        self._in_transaction = False
        self._deadline = float("inf")

    @property
    def extensions(self) -> dict[str, str]:
        """What the peer offered, keyword to parameter."""
        return self._smtp.extensions

    @property
    def limits(self) -> Limits:
        """What the peer says it takes (RFC 9422). `deliver` keeps to it: recipients beyond it are not asked."""
        return self._smtp.limits

    @property
    def recipient_replies(self) -> tuple[Reply | None, ...]:
        """What the recipients of the transaction under way were answered by now."""
        return self._smtp.recipient_replies

    @property
    def may_carry_another(self) -> bool:
        """Whether another transaction may begin here: the peer is there, idle, and has not had its MAILMAX."""
        return not self._in_transaction and self._smtp.has_room and not self.stream.is_lost

    @property
    def steps(self) -> list[Step]:
        """What was said since the list was last emptied, without content and secrets; each transaction bounded."""
        return self._transcript.steps

    @property
    def transcript(self) -> list[str]:
        """The same without the times."""
        return [step.line for step in self.steps]

    async def start(self) -> Reply:
        """Greeting and EHLO. Returns the reply to EHLO or HELO. Raises ConnectionFailed, ClosedAtHello among them."""
        try:
            match await self._next():
                case Greeting(reply=reply):
                    if not reply.is_positive:
                        raise ConnectionFailed(f"greeted with {reply.code}", reply)
                case _:
                    raise ConnectionFailed("the connection was closed before the greeting ended")
        except ConnectionBroke as exc:
            raise ConnectionFailed(str(exc)) from exc
        return await self._hello()

    async def _hello(self) -> Reply:
        try:
            match await self._next():
                case Ready(reply=reply):
                    return reply
                case HelloRefused(reply=reply):
                    raise ConnectionFailed(f"EHLO was refused with {reply.code}", reply)
                case _ if self._extended and self._smtp.awaiting is Awaiting.EHLO:
                    raise ClosedAtHello("the connection was closed at EHLO")
                case _:
                    raise ConnectionFailed("the connection was closed before the greeting ended")
        except ConnectionBroke as exc:
            raise ConnectionFailed(str(exc)) from exc

    async def handshake(self, context: ssl.SSLContext, server_name: str | None) -> None:
        """TLS from the first octet (RFC 8314 §3.3), before `start`. Raises HandshakeFailed."""
        self._transcript.forget_unfinished()
        try:
            async with asyncio.timeout(self.timeouts.handshake_s):
                name = _server_name(server_name)
                done = await self.stream.start_tls(context, server_name=name, server_side=False)
        except (OSError, ValueError) as exc:
            raise self._handshake_failed(handshake_fault(exc)) from exc
        tls = self.stream.tls
        if not done or tls is None:
            raise self._handshake_failed("it spoke, or closed the connection, before the handshake")
        self.tls = tls_facts(tls)
        self._transcript.note("C", f"({self.tls})")

    async def start_tls(self, context: ssl.SSLContext, server_name: str | None) -> Reply:
        """STARTTLS, the handshake, and EHLO anew, to which the reply is returned (RFC 3207).

        Raises TlsNotOffered and TlsRefused (go on in clear, or not), HandshakeFailed (the connection is lost; also
        where anything was said before the handshake), ConnectionFailed (EHLO was refused after it).
        """
        if "STARTTLS" not in self.extensions:
            raise TlsNotOffered("STARTTLS is not offered")
        self._smtp.start_tls()
        try:
            match await self._next():
                case TlsReplied(reply=reply):
                    if not reply.is_positive:
                        raise TlsRefused(f"STARTTLS was refused with {reply.code}", reply)
                case _:
                    raise self._handshake_failed("it closed the connection at STARTTLS")
        except ConnectionBroke as exc:
            raise self._handshake_failed(str(exc)) from exc
        await self.handshake(context, server_name)
        self._smtp.tls_started()
        try:
            return await self._hello()
        except ConnectionFailed as exc:
            if exc.reply is None:
                # With TLS 1.3 a server that dislikes us says so only after our part of the handshake is done.
                raise self._handshake_failed(f"after the handshake {exc}") from exc
            raise

    def _handshake_failed(self, text: str) -> HandshakeFailed:
        self.abort()
        self._transcript.note("C", f"(TLS failed: {text})")
        return HandshakeFailed(text)

    async def login(
        self, login: str, password: str, *, in_clear: bool = False, mechanism: Mechanism = Mechanism.PASSWORD
    ) -> Reply:
        """AUTH by the strongest mechanism offered; 235, or why not. `in_clear`: without TLS, too, as on loopback.

        `mechanism`: what is given is an OAuth 2 token for this one.

        Many servers offer SCRAM to all and have verifiers for some: one that refuses it, and whose certificate was
        verified, is told the password itself. Nobody in the middle can ask for that.

        Raises LoginImpossible (nothing was tried), PeerUntrusted (dropped), ConnectionBroke.
        """
        if not (in_clear or self.stream.is_tls):
            raise LoginImpossible("a login is not sent in clear")
        answer = await self._login(login, password, mechanism=mechanism)
        verified = self.tls is not None and self.tls.verified
        if verified and answer.is_permanent and self._smtp.weaker_mechanisms:
            with suppress(ConnectionBroke):
                answer = await self._login(login, password, weaker=True)
        return answer

    async def _login(
        self, login: str, password: str, *, weaker: bool = False, mechanism: Mechanism = Mechanism.PASSWORD
    ) -> Reply:
        try:
            nonce = secrets.token_urlsafe(NONCE_OCTETS)
            self._smtp.login(login, password, nonce, weaker=weaker, mechanism=mechanism)
        except LocalProtocolError as exc:
            # What the peer offers and what stands in the configuration are no bugs of ours.
            raise LoginImpossible(f"cannot log in: {exc}") from exc
        self._transcript.begin_secrets(password)
        try:
            while (event := await self._next()) is not CLOSED:
                match event:
                    case Challenged():
                        # SCRAM computes for a while, as long as the peer wants.
                        await asyncio.to_thread(self._smtp.answer_challenge)
                    case AuthReplied(reply=reply, fault=None):
                        return replace(reply, text=self._transcript.redacted(reply.text))
                    case AuthReplied(fault=str(fault)):
                        self.abort()
                        raise PeerUntrusted(f"the login was broken off: {fault}")
            raise ConnectionBroke("the connection was closed during AUTH", final_dot_sent=False)
        finally:
            self._transcript.end_secrets()

    async def deliver(
        self, transaction: ClientTransaction, chunks: AsyncIterator[bytes], *, before_end: BeforeEnd | None = None
    ) -> TransactionEnded:
        """One transaction. `chunks` is read only when the peer wants the content.

        `before_end` is awaited just before the final dot, or the last chunk, leaves: from then on the message may
        arrive, whatever is raised. Raises ConnectionBroke (also where the peer's limits leave no room), ContentUnfit,
        or what `chunks` or `before_end` raises; the connection is dropped then, and the content never completed.
        """
        self._begin(transaction)
        try:
            while True:
                event: ClientEvent | None = await self._next()
                if isinstance(event, ContentWanted):
                    # What came with the 354 in one read; it is never the answer to the final dot.
                    event = await self._send_content(chunks, before_end)
                match event:
                    case None:
                        continue
                    case TransactionEnded() as ended:
                        self._in_transaction = False
                        return ended
                    case _:
                        raise self._broke("the connection was closed by the other server")
        finally:
            # Whoever leaves here has learned what the dot led to; the next command is another story.
            self._final_dot_sent = False
            self._deadline = float("inf")

    def _begin(self, transaction: ClientTransaction) -> None:
        paths = (transaction.reverse_path, *(recipient.forward_path for recipient in transaction.recipients))
        if not all(path is None or path.is_ascii for path in paths):
            transaction = replace(transaction, smtputf8=True)
        if transaction.smtputf8 and "SMTPUTF8" not in self.extensions:
            raise self._broke("it takes no internationalised addresses")
        if self._smtp.is_closed:
            raise self._broke("the connection was closed by the other server")
        if not self._smtp.may_begin(transaction):
            raise self._broke("the other server takes no more in one session")
        self._final_dot_sent = False
        self._transcript.begin_part()
        self._smtp.begin(transaction)
        self._in_transaction = True
        self._deadline = asyncio.get_running_loop().time() + self.timeouts.transaction_s

    async def reset(self) -> Reply:
        """RSET, before the connection is used for another message. Raises ConnectionBroke."""
        if self._in_transaction or self._smtp.is_closed:
            raise self._broke("the connection cannot be used again")
        self._smtp.reset()
        match await self._next():
            case ResetReplied(reply=reply):
                return reply
            case _:
                raise ConnectionBroke("the connection was closed at RSET", final_dot_sent=False)

    async def quit(self) -> None:
        """QUIT, politely but not patiently. Inside a transaction the connection is dropped instead."""
        if self._in_transaction:
            self.abort()
            return
        try:
            self._smtp.quit()
            while not isinstance(await self._next(), QuitReplied | type(CLOSED)):
                continue
        except ConnectionBroke:
            pass
        finally:
            await self.stream.close(grace_s=1.0)

    def abort(self) -> None:
        """Drop the connection without a word."""
        self.stream.abort()

    async def _send_content(self, chunks: AsyncIterator[bytes], before_end: BeforeEnd | None) -> ClientEvent | None:
        """The content and its end; or the event that came before that: the peer refuses, speaks or leaves."""
        try:
            async for chunk in chunks:
                for at in range(0, len(chunk), PIECE_OCTETS):
                    if (event := await self._send_piece(chunk[at : at + PIECE_OCTETS])) is not None:
                        return event
            if (event := await self._heard_all()) is not None:
                return event
            if before_end is not None:
                await before_end()
                if (event := await self._heard()) is not None:
                    return event
            if self.stream.is_lost:
                return CLOSED
            command = self._smtp.end_content()
            self._transcript.note("C", f"(content) {command}")
            # From here on the peer may have the whole message, whatever we see of it.
            self._final_dot_sent = True
            self._deadline = float("inf")
            await self._flush(self.timeouts.block_s, shown=False)
        except TimeoutError as exc:
            if self.stream.has_input and not self._final_dot_sent:
                return None
            self.abort()
            raise self._too_late(f"nothing was taken within {self.timeouts.block_s:.0f} s") from exc
        except BaseException:
            # Content that stops in the middle must never look complete to the peer (RFC 5321 §4.1.1.4).
            self.abort()
            raise
        return None

    async def _send_piece(self, octets: bytes) -> ClientEvent | None:
        """At most PIECE_OCTETS of the content; or the event that came instead, as above."""
        if (event := await self._heard()) is not None:
            return event
        commands = self._smtp.content(octets)
        for command in commands:
            self._transcript.note("C", f"{command} (content)")
        left_s = self._deadline - asyncio.get_running_loop().time()
        await self._flush(min(self.timeouts.block_s, left_s), shown=False)
        return await self._heard_all() if commands and "PIPELINING" not in self.extensions else None

    async def _heard(self) -> ClientEvent | None:
        """What the peer has said by now, but that it took a chunk."""
        while True:
            event = await self._next(patient=False)
            if event is NEED_DATA:
                return None
            if not isinstance(event, ChunkTaken):
                return event

    async def _heard_all(self) -> ClientEvent | None:
        """Waits until each chunk was answered, too."""
        while self._smtp.awaiting is not None:
            event = await self._next()
            if not isinstance(event, ChunkTaken):
                return event
        return await self._heard()

    async def _next(self, *, patient: bool = True) -> ClientEvent:
        """The next event; NEED_DATA only to somebody who is not `patient`, when nothing is there to be read."""
        loop = asyncio.get_running_loop()
        replies, timeout_s = self._smtp.replies, self._timeout_s()
        deadline = min(loop.time() + timeout_s, self._deadline)
        try:
            await self._flush(deadline - loop.time())
            while (event := self._smtp.next_event()) is NEED_DATA:
                if self._smtp.replies != replies:
                    # Each whole reply has its time.
                    replies, timeout_s = self._smtp.replies, self._timeout_s()
                    deadline = min(loop.time() + timeout_s, self._deadline)
                await self._flush(deadline - loop.time())
                if not (patient or self.stream.has_input):
                    break
                async with asyncio.timeout_at(deadline):
                    octets = await self.stream.read()
                self._transcript.server(octets)
                self._smtp.receive(octets)
            return event
        except TimeoutError as exc:
            self.abort()
            raise self._too_late(f"no answer within {timeout_s:.0f} s") from exc
        except RemoteProtocolError as exc:
            self.abort()
            raise self._broke(f"the other server broke the protocol: {exc}") from exc

    def _timeout_s(self) -> float:
        match self._smtp.awaiting:
            case Awaiting.GREETING:
                return self.timeouts.greeting_s
            case Awaiting.DATA:
                return self.timeouts.data_s
            case Awaiting.CHUNK | Awaiting.FINAL:
                return self.timeouts.final_s
            case Awaiting.QUIT:
                return self.timeouts.quit_s
            case _:
                return self.timeouts.command_s

    async def _flush(self, timeout_s: float, *, shown: bool = True) -> None:
        octets = self._smtp.outgoing()
        if not octets:
            return
        if shown:
            self._transcript.client(octets)
        # On a lost connection this does nothing: what the peer said before it left is still to be read.
        self.stream.write(octets)
        async with asyncio.timeout(timeout_s):
            await self.stream.drain()

    def _too_late(self, text: str) -> ConnectionBroke:
        # (uvloop counts in milliseconds, and its timers may come one too early.)
        if asyncio.get_running_loop().time() >= self._deadline - TIMER_STEP_S:
            text = f"the transaction took longer than {self.timeouts.transaction_s:.0f} s"
        return self._broke(text)

    def _broke(self, text: str) -> ConnectionBroke:
        return ConnectionBroke(text, final_dot_sent=self._final_dot_sent, recipients=self.recipient_replies)


def _hello_name(name: str, stream: Stream) -> str:
    try:
        return checked_hello_name(name)
    except LocalProtocolError:
        address = stream.local_address
        return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _server_name(name: str | None) -> str | None:
    """A host's name, or the address of a literal, as certificates have it."""
    return name.removeprefix("[").removeprefix("IPv6:").removesuffix("]").rstrip(".") if name is not None else None
