"""An outgoing SMTP connection: drives the client half of the protocol over a stream (RFC 5321 §4.5.3.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from posthouse.mail.reply import Reply
from posthouse.net.stream import Stream
from posthouse.protocol.errors import RemoteProtocolError
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

Trace = Callable[[str, str], None]
"""Told of each line of the dialogue: who ("C" or "S") and the line, without content and secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpTimeouts:
    """Per-phase limits in seconds; the defaults are the minima of RFC 5321 §4.5.3.2."""

    connect_s: float = 60.0
    greeting_s: float = 300.0
    command_s: float = 300.0
    data_s: float = 120.0
    block_s: float = 180.0
    final_s: float = 600.0
    quit_s: float = 10.0


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


class SmtpConnection:
    """One session with a next hop: `start`, any number of `deliver`, `quit`."""

    def __init__(
        self, stream: Stream, hello_name: str, timeouts: SmtpTimeouts | None = None, trace: Trace | None = None
    ) -> None:
        self.stream = stream
        self.timeouts = timeouts or SmtpTimeouts()
        self.transcript: list[str] = []
        self._trace = trace
        self._smtp = SmtpClient(hello_name)
        self._final_dot_sent = False
        self._in_content = False

    @property
    def extensions(self) -> dict[str, str]:
        """What the peer offered, keyword to parameter."""
        return self._smtp.extensions

    async def start(self) -> Reply:
        """Greeting and EHLO. Returns the reply to EHLO or HELO. Raises ConnectionFailed."""
        try:
            while True:
                match await self._next(self.timeouts.greeting_s):
                    case Greeting(reply=reply):
                        if not reply.is_positive:
                            raise ConnectionFailed(f"greeted with {reply.code}", reply)
                    case Ready(reply=reply):
                        return reply
                    case HelloRefused(reply=reply):
                        raise ConnectionFailed(f"EHLO was refused with {reply.code}", reply)
                    case _:
                        raise ConnectionFailed("the connection was closed before the greeting ended")
        except ConnectionBroke as exc:
            raise ConnectionFailed(str(exc)) from exc

    async def login(self, login: str, password: str) -> Reply:
        """AUTH PLAIN (RFC 4616). Raises ConnectionBroke."""
        self._smtp.login(login, password)
        match await self._next(self.timeouts.command_s):
            case AuthReplied(reply=reply):
                return reply
            case _:
                raise ConnectionBroke("the connection was closed during AUTH", final_dot_sent=False)

    async def deliver(self, transaction: ClientTransaction, chunks: AsyncIterator[bytes]) -> TransactionEnded:
        """One transaction. `chunks` is read only when the peer wants the content. Raises ConnectionBroke."""
        self._final_dot_sent = False
        self._smtp.begin(transaction)
        while True:
            timeout_s = self.timeouts.final_s if self._final_dot_sent else self.timeouts.command_s
            match await self._next(timeout_s):
                case ContentWanted():
                    await self._send_content(chunks)
                case TransactionEnded() as ended:
                    return ended
                case _:
                    raise ConnectionBroke(
                        "the connection was closed by the other server", final_dot_sent=self._final_dot_sent
                    )

    async def reset(self) -> Reply:
        """RSET, before the connection is used for another message."""
        self._smtp.reset()
        match await self._next(self.timeouts.command_s):
            case ResetReplied(reply=reply):
                return reply
            case _:
                raise ConnectionBroke("the connection was closed at RSET", final_dot_sent=False)

    async def quit(self) -> None:
        """QUIT, politely but not patiently."""
        try:
            self._smtp.quit()
            while not isinstance(await self._next(self.timeouts.quit_s), QuitReplied | type(CLOSED)):
                continue
        except (ConnectionBroke, RemoteProtocolError):
            pass
        finally:
            await self.stream.close(grace_s=1.0)

    def abort(self) -> None:
        """Drop the connection without a word."""
        self.stream.abort()

    async def _send_content(self, chunks: AsyncIterator[bytes]) -> None:
        try:
            async for chunk in chunks:
                self._smtp.content(chunk)
                await self._flush(self.timeouts.block_s, shown=False)
            self._smtp.end_content()
            # From here on the peer may have the whole message, whatever we see of it.
            self._final_dot_sent = True
            self._note("C", "(content) .")
            await self._flush(self.timeouts.block_s, shown=False)
        except BaseException:
            # Content that stops in the middle must never look complete to the peer (RFC 5321 §4.1.1.4).
            self.abort()
            raise

    async def _next(self, timeout_s: float) -> ClientEvent:
        try:
            await self._flush(timeout_s)
            while (event := self._smtp.next_event()) is NEED_DATA:
                async with asyncio.timeout(timeout_s):
                    octets = await self.stream.read()
                self._note_replies(octets)
                self._smtp.receive(octets)
            return event
        except TimeoutError as exc:
            self.abort()
            raise ConnectionBroke(f"no answer within {timeout_s:.0f} s", final_dot_sent=self._final_dot_sent) from exc
        except RemoteProtocolError as exc:
            self.abort()
            raise ConnectionBroke(
                f"the other server broke the protocol: {exc}", final_dot_sent=self._final_dot_sent
            ) from exc

    async def _flush(self, timeout_s: float, *, shown: bool = True) -> None:
        octets = self._smtp.outgoing()
        if not octets:
            return
        if shown:
            for line in octets.split(b"\r\n")[:-1]:
                self._note("C", _without_secrets(line))
        if self.stream.is_lost:
            raise ConnectionBroke("the connection was lost", final_dot_sent=self._final_dot_sent)
        self.stream.write(octets)
        async with asyncio.timeout(timeout_s):
            await self.stream.drain()

    def _note_replies(self, octets: bytes) -> None:
        for line in octets.split(b"\r\n"):
            if line:
                self._note("S", line[:512].decode("ascii", "replace"))

    def _note(self, who: str, line: str) -> None:
        if len(self.transcript) < TRANSCRIPT_LINES:
            self.transcript.append(f"{who}: {line}")
        if self._trace is not None:
            self._trace(who, line)


def _without_secrets(line: bytes) -> str:
    if line[:5].upper() == b"AUTH ":
        return " ".join(line.decode("ascii", "replace").split(" ")[:2]) + " (secret)"
    return line.decode("utf-8", "replace")
