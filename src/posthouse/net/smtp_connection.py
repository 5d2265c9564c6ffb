"""An outgoing SMTP connection: drives the client half of the protocol over a stream (RFC 5321 §4.5.3.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from posthouse.mail.reply import Reply
from posthouse.net.stream import Stream
from posthouse.protocol.errors import LocalProtocolError, RemoteProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA
from posthouse.protocol.smtp_client import (
    AuthReplied,
    ClientEvent,
    ClientTransaction,
    ContentWanted,
    Greeting,
    HelloRefused,
    QuitReplied,
    Ready,
    ResetReplied,
    SmtpClient,
    TransactionEnded,
)

TRANSCRIPT_LINES = 200
"""How many lines of one transaction (or of what comes before the first one) are kept."""
SHOWN_CHARACTERS = 512

Trace = Callable[[str, str], None]
"""Told of each line of the dialogue: who ("C" or "S") and the line, without content and secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpTimeouts:
    """Per-phase limits in seconds; the defaults are the minima of RFC 5321 §4.5.3.2."""

    connect_s: float = 60.0
    greeting_s: float = 300.0
    command_s: float = 300.0
    block_s: float = 180.0
    final_s: float = 600.0
    quit_s: float = 10.0
    transaction_s: float = 7200.0
    """From MAIL until the final dot: a peer that is just quick enough each time must not hold a slot for ever."""


class ConnectionFailed(Exception):
    """The connection or the greeting failed. `reply` is the peer's where it said something."""

    def __init__(self, text: str, reply: Reply | None = None) -> None:
        super().__init__(text)
        self.reply = reply


class ConnectionBroke(Exception):
    """The connection was lost during a transaction. After `final_dot_sent`, the message may have arrived."""

    def __init__(self, text: str, *, final_dot_sent: bool) -> None:
        super().__init__(text)
        self.final_dot_sent = final_dot_sent


class ContentUnfit(Exception):
    """The content holds a CR or LF alone, which must never leave (RFC 5321 §2.3.8). The connection was dropped."""


class SmtpConnection:
    """One session with a next hop: `start`, any number of `deliver`, `quit`."""

    def __init__(
        self, stream: Stream, hello_name: str, timeouts: SmtpTimeouts | None = None, trace: Trace | None = None
    ) -> None:
        self.stream = stream
        self.timeouts = timeouts or SmtpTimeouts()
        self.transcript: list[str] = []
        self._noted = 0
        self._trace = trace
        self._smtp = SmtpClient(hello_name)
        self._final_dot_sent = False
        self._in_transaction = False
        self._in_login = False
        self._reply_lines = _ReplyLines()
        self._deadline = float("inf")

    @property
    def extensions(self) -> dict[str, str]:
        """What the peer offered, keyword to parameter."""
        return self._smtp.extensions

    async def start(self) -> Reply:
        """Greeting and EHLO. Returns the reply to EHLO or HELO. Raises ConnectionFailed."""
        timeout_s = self.timeouts.greeting_s
        try:
            while True:
                match await self._next(timeout_s):
                    case Greeting(reply=reply):
                        if not reply.is_positive:
                            raise ConnectionFailed(f"greeted with {reply.code}", reply)
                        timeout_s = self.timeouts.command_s
                    case Ready(reply=reply):
                        return reply
                    case HelloRefused(reply=reply):
                        raise ConnectionFailed(f"EHLO was refused with {reply.code}", reply)
                    case _:
                        raise ConnectionFailed("the connection was closed before the greeting ended")
        except ConnectionBroke as exc:
            raise ConnectionFailed(str(exc)) from exc

    async def login(self, login: str, password: str) -> Reply:
        """AUTH PLAIN (RFC 4616). Raises ConnectionFailed where it cannot be tried, ConnectionBroke."""
        try:
            self._smtp.login(login, password)
        except LocalProtocolError as exc:
            # What the peer offers and what stands in the configuration are no bugs of ours.
            raise ConnectionFailed(f"cannot log in: {exc}") from exc
        self._in_login = True
        try:
            match await self._next(self.timeouts.command_s):
                case AuthReplied(reply=reply):
                    return reply
                case _:
                    raise ConnectionBroke("the connection was closed during AUTH", final_dot_sent=False)
        finally:
            self._in_login = False

    async def deliver(self, transaction: ClientTransaction, chunks: AsyncIterator[bytes]) -> TransactionEnded:
        """One transaction. `chunks` is read only when the peer wants the content.

        Raises ConnectionBroke, ContentUnfit, or what `chunks` raises; the connection is dropped then.
        """
        self._begin(transaction)
        try:
            while True:
                timeout_s = self.timeouts.final_s if self._final_dot_sent else self.timeouts.command_s
                event = await self._next(timeout_s)
                if isinstance(event, ContentWanted):
                    event = self._before_its_turn()
                    if event is NEED_DATA:
                        await self._send_content(chunks)
                        continue
                match event:
                    case TransactionEnded() as ended:
                        self._in_transaction = False
                        return ended
                    case _:
                        raise self._broke("the connection was closed by the other server")
        finally:
            # Whoever leaves here has learned what the dot led to; the next command is another story.
            self._final_dot_sent = False
            self._deadline = float("inf")

    def _before_its_turn(self) -> ClientEvent:
        """What came with the 354 in one read; NEED_DATA is as it should be. Never the answer to the final dot."""
        try:
            return self._smtp.next_event()
        except RemoteProtocolError as exc:
            self.abort()
            raise self._broke(f"the other server broke the protocol: {exc}") from exc

    def _begin(self, transaction: ClientTransaction) -> None:
        paths = (transaction.reverse_path, *(recipient.forward_path for recipient in transaction.recipients))
        if not all(path is None or path.is_ascii for path in paths):
            if "SMTPUTF8" not in self.extensions:
                raise self._broke("it takes no internationalised addresses")
            transaction = replace(transaction, smtputf8=True)
        if self._smtp.is_closed:
            raise self._broke("the connection was closed by the other server")
        self._final_dot_sent = False
        self._noted = 0
        self._smtp.begin(transaction)
        self._in_transaction = True
        self._deadline = asyncio.get_running_loop().time() + self.timeouts.transaction_s

    async def reset(self) -> Reply:
        """RSET, before the connection is used for another message. Raises ConnectionBroke."""
        if self._in_transaction or self._smtp.is_closed:
            raise self._broke("the connection cannot be used again")
        self._smtp.reset()
        match await self._next(self.timeouts.command_s):
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
            while not isinstance(await self._next(self.timeouts.quit_s), QuitReplied | type(CLOSED)):
                continue
        except ConnectionBroke:
            pass
        finally:
            await self.stream.close(grace_s=1.0)

    def abort(self) -> None:
        """Drop the connection without a word."""
        self.stream.abort()

    async def _send_content(self, chunks: AsyncIterator[bytes]) -> None:
        """The content and the final dot; stops early where the peer speaks or leaves before its turn."""
        held = b""
        try:
            async for chunk in chunks:
                if self.stream.has_input:
                    return
                held = self._add_content(held + chunk if held else chunk)
                await self._flush(self.timeouts.block_s, shown=False)
            if held:
                raise ContentUnfit("the content ends in a CR")
            if self.stream.has_input or self.stream.is_lost:
                return
            self._smtp.end_content()
            self._note("C", "(content) .")
            # From here on the peer may have the whole message, whatever we see of it.
            self._final_dot_sent = True
            self._deadline = float("inf")
            await self._flush(self.timeouts.block_s, shown=False)
        except TimeoutError as exc:
            if self.stream.has_input and not self._final_dot_sent:
                return
            self.abort()
            raise self._broke(f"nothing was taken within {self.timeouts.block_s:.0f} s") from exc
        except BaseException:
            # Content that stops in the middle must never look complete to the peer (RFC 5321 §4.1.1.4).
            self.abort()
            raise

    def _add_content(self, octets: bytes) -> bytes:
        """Hand a chunk to the core; returns a CR at its end, which waits for its LF. Raises ContentUnfit."""
        held = b"\r" if octets.endswith(b"\r") else b""
        if held:
            octets = octets[:-1]
        line_ends = octets.count(b"\r\n")
        if octets.count(b"\r") != line_ends or octets.count(b"\n") != line_ends:
            raise ContentUnfit("a CR or LF stands alone in the content")
        self._smtp.content(octets)
        return held

    async def _next(self, timeout_s: float) -> ClientEvent:
        """The next event. Each whole reply has `timeout_s` seconds, however its octets drip in."""
        loop = asyncio.get_running_loop()
        deadline = min(loop.time() + timeout_s, self._deadline)
        try:
            await self._flush(deadline - loop.time())
            while (event := self._smtp.next_event()) is NEED_DATA:
                await self._flush(deadline - loop.time())
                async with asyncio.timeout_at(deadline):
                    octets = await self.stream.read()
                if self._note_replies(octets):
                    deadline = min(loop.time() + timeout_s, self._deadline)
                self._smtp.receive(octets)
            return event
        except TimeoutError as exc:
            self.abort()
            raise self._broke(f"no answer within {timeout_s:.0f} s") from exc
        except RemoteProtocolError as exc:
            self.abort()
            raise self._broke(f"the other server broke the protocol: {exc}") from exc

    async def _flush(self, timeout_s: float, *, shown: bool = True) -> None:
        octets = self._smtp.outgoing()
        if not octets:
            return
        if shown:
            for line in octets.split(b"\r\n")[:-1]:
                self._note("C", _without_secrets(line, in_login=self._in_login))
        # On a lost connection this does nothing: what the peer said before it left is still to be read.
        self.stream.write(octets)
        async with asyncio.timeout(timeout_s):
            await self.stream.drain()

    def _note_replies(self, octets: bytes) -> bool:
        """Note the lines that are complete now; says whether a whole reply is."""
        ended = False
        for line in self._reply_lines.feed(octets):
            ended = ended or line[3:4] != b"-"
            self._note("S", _shown(line.decode("ascii", "replace")))
        return ended

    def _note(self, who: str, line: str) -> None:
        if self._noted < TRANSCRIPT_LINES:
            self._noted += 1
            self.transcript.append(f"{who}: {line}")
        if self._trace is not None:
            self._trace(who, line)

    def _broke(self, text: str) -> ConnectionBroke:
        return ConnectionBroke(text, final_dot_sent=self._final_dot_sent)


class _ReplyLines:
    """Lines of replies for the transcript, however they are cut. Keeps at most SHOWN_CHARACTERS of one."""

    def __init__(self) -> None:
        self._line = b""

    def feed(self, octets: bytes) -> list[bytes]:
        """The lines that end in `octets`, without their line ends; an unfinished one too at the end of the stream."""
        *lines, rest = (self._line + octets).split(b"\n") if octets else (self._line, b"")
        self._line = rest[:SHOWN_CHARACTERS]
        return [line.removesuffix(b"\r")[:SHOWN_CHARACTERS] for line in lines if line]


def _without_secrets(line: bytes, *, in_login: bool) -> str:
    if line[:5].upper() == b"AUTH ":
        return " ".join(line.decode("ascii", "replace").split(" ")[:2]) + " (secret)"
    if in_login:
        # A long response goes on a line of its own (RFC 4954 §4).
        return "(secret)"
    return line.decode("utf-8", "replace")


def _shown(text: str) -> str:
    """The peer's text as it may stand in a journey or on a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
