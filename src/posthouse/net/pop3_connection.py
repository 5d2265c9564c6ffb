"""An outgoing POP3 connection: drives the client half of the protocol over a stream (RFC 1939)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from posthouse.net.stream import Stream
from posthouse.net.tls import handshake_fault
from posthouse.protocol.errors import LocalProtocolError, RemoteProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA, Signal
from posthouse.protocol.pop3_client import (
    Answered,
    Capabilities,
    Event,
    Greeted,
    MessageBegin,
    MessageChunk,
    MessageEnd,
    Pop3Client,
    Request,
    Sizes,
    Totals,
    Uidls,
)

Trace = Callable[[str, str], None]
"""Told of each line of the dialogue but content and passwords: who ("C" or "S") and the line."""

ANSWER_TIMEOUT_S = 120.0
"""For a whole answer, however its octets drip in."""
MESSAGE_TIMEOUT_S = 3600.0
"""For a whole message."""

HANDSHAKE_TIMEOUT_S = 60.0
HEADER_OCTETS = 256 * 1024
AHEAD = 32
"""Messages asked for before the first of them has come, where the server knows PIPELINING."""

E = TypeVar("E")


class Pop3Failed(Exception):
    """The server said `-ERR`, or the connection broke. `code` is the response code of RFC 2449 §8, if any."""

    def __init__(self, text: str, code: str | None = None) -> None:
        super().__init__(text)
        self.code = code


class Pop3TlsFailed(Pop3Failed):
    """The connection could not be protected; nothing secret was sent."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What follows is this message, in chunks, until the next `Begun` or the end."""

    number: int


@dataclass(frozen=True, slots=True)
class Whole:
    """The message came whole."""

    number: int


@dataclass(frozen=True, slots=True)
class Missing:
    """The server would not give this message, and why."""

    number: int
    text: str
    code: str | None


class Pop3Connection:
    """One session with a POP3 server. Every method raises Pop3Failed."""

    def __init__(
        self,
        stream: Stream,
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
        message_timeout_s: float = MESSAGE_TIMEOUT_S,
        trace: Trace | None = None,
    ) -> None:
        self.stream = stream
        self._timeout_s = timeout_s
        self._message_timeout_s = message_timeout_s
        self._trace = trace
        self._pop3 = Pop3Client()
        self._deadline = float("inf")
        self._secret = False

    async def start(self) -> None:
        """Read the greeting."""
        greeted = await self._expect(Greeted)
        if not greeted.ok:
            raise Pop3Failed(f"greeted with -ERR {greeted.text}")

    async def handshake(self, context: ssl.SSLContext, server_name: str) -> None:
        """TLS from the first octet (RFC 8314 §3.2), before `start`. Raises Pop3TlsFailed."""
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                done = await self.stream.start_tls(context, server_name=server_name, server_side=False)
        except (OSError, ValueError) as exc:
            self.stream.abort()
            raise Pop3TlsFailed(handshake_fault(exc)) from exc
        if not done:
            self.stream.abort()
            raise Pop3TlsFailed("it spoke, or closed the connection, before the handshake")

    async def start_tls(self, context: ssl.SSLContext, server_name: str) -> None:
        """STLS and the handshake (RFC 2595 §4). Raises Pop3TlsFailed, also where it is not offered."""
        self._pop3.start_tls()
        try:
            await self._expect(Answered)
        except Pop3Failed as exc:
            self.stream.abort()
            raise Pop3TlsFailed(f"it does not begin TLS: {exc}") from exc
        await self.handshake(context, server_name)
        self._pop3.tls_started()

    async def capabilities(self) -> Capabilities:
        """CAPA; none where the server does not know it (RFC 2449)."""
        self._pop3.capa()
        event = await self._next()
        match event:
            case Capabilities():
                return event
            case Answered(ok=False):
                return Capabilities(())
            case _:
                raise Pop3Failed("the connection was closed" if event is CLOSED else f"unexpected answer: {event}")

    async def authenticate(self, mechanism: str, responses: Sequence[bytes]) -> None:
        """AUTH with these responses, each to a challenge."""
        self._pop3.authenticate(mechanism, responses)
        self._secret = True
        try:
            await self._expect(Answered)
        finally:
            self._secret = False

    async def login(self, name: str, password: str) -> None:
        """USER and PASS."""
        try:
            self._pop3.login(name, password)
        except LocalProtocolError as exc:
            # What stands in the configuration is no bug of ours.
            raise Pop3Failed(f"cannot log in: {exc}") from exc
        await self._expect(Answered)

    async def count(self) -> int:
        """STAT: how many messages there are."""
        self._pop3.stat()
        return (await self._expect(Totals)).count

    async def sizes(self) -> dict[int, int]:
        """LIST: octets by message number."""
        self._pop3.list()
        return (await self._expect(Sizes)).sizes_octets

    async def uidls(self) -> dict[int, str]:
        """UIDL: unique ids by message number."""
        self._pop3.uidl()
        return (await self._expect(Uidls)).uidls

    async def retrieve(self, number: int) -> AsyncGenerator[bytes, None]:
        """RETR: the message in chunks, free of dot-stuffing. It is whole only when this ends without an error.

        Whoever stops earlier closes this generator, which drops the connection.
        """
        self._pop3.retrieve(number)
        await self._expect(MessageBegin)
        self._deadline = asyncio.get_running_loop().time() + self._message_timeout_s
        ended = False
        try:
            while not ended:
                match await self._next():
                    case MessageChunk(octets=octets):
                        yield octets
                    case MessageEnd():
                        ended = True
                    case unexpected:
                        raise Pop3Failed(f"the message broke off: {unexpected}")
        finally:
            self._deadline = float("inf")
            if not ended:
                # What is left of the message must not be taken for the answer to the next command.
                self.stream.abort()

    async def retrieve_all(self, numbers: Iterable[int]) -> AsyncGenerator[Begun | Whole | Missing | bytes, None]:
        """RETR of each, many asked for ahead. A message is whole only once `Whole` has come.

        Whoever stops earlier closes this generator, which drops the connection.
        """
        waiting = iter(numbers)
        asked = 0
        ended = False
        try:
            while True:
                while asked < AHEAD and (following := next(waiting, None)) is not None:
                    self._pop3.retrieve(following)
                    asked += 1
                if not asked:
                    break
                match await self._next():
                    case MessageBegin(number=number):
                        self._deadline = asyncio.get_running_loop().time() + self._message_timeout_s
                        yield Begun(number)
                    case MessageChunk(octets=octets):
                        yield octets
                    case MessageEnd(number=number):
                        self._deadline = float("inf")
                        asked -= 1
                        yield Whole(number)
                    case Answered(ok=False, request=Request(number=int(number))) as refused:
                        asked -= 1
                        yield Missing(number, refused.text, refused.code)
                    case unexpected:
                        raise Pop3Failed(f"the message broke off: {unexpected}")
            ended = True
        finally:
            self._deadline = float("inf")
            if not ended:
                self.stream.abort()

    async def header(self, number: int) -> bytes:
        """TOP n 0: the header section with its empty line, at most HEADER_OCTETS of it."""
        self._pop3.top(number, 0)
        await self._expect(MessageBegin)
        octets = bytearray()
        while True:
            match await self._next():
                case MessageChunk(octets=chunk):
                    if len(octets) < HEADER_OCTETS:
                        octets += chunk
                case MessageEnd():
                    return bytes(octets[:HEADER_OCTETS])
                case unexpected:
                    self.stream.abort()
                    raise Pop3Failed(f"the header broke off: {unexpected}")

    async def delete_all(self, numbers: Sequence[int]) -> None:
        """DELE of each, many at once; a message that the server says is gone already is no error."""
        for number in numbers:
            self._pop3.delete(number)
        for _ in numbers:
            event = await self._next()
            if not isinstance(event, Answered):
                raise Pop3Failed("the connection was closed" if event is CLOSED else f"unexpected answer: {event}")

    async def delete(self, number: int) -> None:
        """DELE: marks only."""
        self._pop3.delete(number)
        await self._expect(Answered)

    async def quit(self) -> None:
        """QUIT: what was marked is deleted when this returns."""
        self._pop3.quit()
        try:
            await self._expect(Answered)
        finally:
            await self.stream.close(grace_s=1.0)

    async def _expect(self, kind: type[E]) -> E:
        event = await self._next()
        if isinstance(event, Answered) and not event.ok:
            raise Pop3Failed(event.text, event.code)
        if not isinstance(event, kind):
            raise Pop3Failed("the connection was closed" if event is CLOSED else f"unexpected answer: {event}")
        return event

    async def _next(self) -> Event | Signal:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(loop.time() + self._timeout_s, self._deadline)):
                await self._flush()
                while (event := self._pop3.next_event()) is NEED_DATA:
                    await self._flush()
                    self._pop3.receive(await self.stream.read())
                await self._flush()
        except TimeoutError as exc:
            self.stream.abort()
            raise Pop3Failed("no answer in time") from exc
        except RemoteProtocolError as exc:
            self.stream.abort()
            raise Pop3Failed(f"the server broke the protocol: {exc}") from exc
        if isinstance(event, Answered):
            self._note("S", f"{'+OK' if event.ok else '-ERR'} {event.text}".rstrip())
        return event

    async def _flush(self) -> None:
        octets = self._pop3.outgoing()
        if octets:
            for line in octets.decode("utf-8", "replace").split("\r\n")[:-1]:
                self._note("C", _shown(line, secret=self._secret))
            self.stream.write(octets)
            await self.stream.drain()

    def _note(self, who: str, line: str) -> None:
        if self._trace is not None:
            self._trace(who, line)


def _shown(line: str, *, secret: bool) -> str:
    """A line as it may be shown: without what was said to log in."""
    if line[:5].upper() == "PASS ":
        return "PASS (secret)"
    return "(secret)" if secret and not line.startswith("AUTH ") else line
