"""An outgoing POP3 connection: drives the client half of the protocol over a stream (RFC 1939)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from posthouse.net.stream import Stream
from posthouse.protocol.errors import LocalProtocolError, RemoteProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA, Signal
from posthouse.protocol.pop3_client import (
    Answered,
    Event,
    Greeted,
    MessageBegin,
    MessageChunk,
    MessageEnd,
    Pop3Client,
    Sizes,
    Uidls,
)

Trace = Callable[[str, str], None]
"""Told of each line of the dialogue but content and passwords: who ("C" or "S") and the line."""

ANSWER_TIMEOUT_S = 120.0
"""For a whole answer, however its octets drip in."""
MESSAGE_TIMEOUT_S = 3600.0
"""For a whole message."""

E = TypeVar("E")


class Pop3Failed(Exception):
    """The server said `-ERR`, or the connection broke. `code` is the response code of RFC 2449 §8, if any."""

    def __init__(self, text: str, code: str | None = None) -> None:
        super().__init__(text)
        self.code = code


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

    async def start(self) -> None:
        """Read the greeting."""
        greeted = await self._expect(Greeted)
        if not greeted.ok:
            raise Pop3Failed(f"greeted with -ERR {greeted.text}")

    async def login(self, name: str, password: str) -> None:
        """USER and PASS."""
        try:
            self._pop3.login(name, password)
        except LocalProtocolError as exc:
            # What stands in the configuration is no bug of ours.
            raise Pop3Failed(f"cannot log in: {exc}") from exc
        await self._expect(Answered)

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
                self._note("C", "PASS (secret)" if line[:5].upper() == "PASS " else line)
            self.stream.write(octets)
            await self.stream.drain()

    def _note(self, who: str, line: str) -> None:
        if self._trace is not None:
            self._trace(who, line)
