"""SMTP and POP3 as `prove` speaks them: plain lines over its own socket, so that no code of the house is trusted."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

ANSWER_TIMEOUT_S = 12.0
READ_OCTETS = 1 << 20
_RESET = struct.pack("ii", 1, 0)


class Gone(Exception):
    """The connection ended, broke, or stayed silent; the message says where."""


class NotShown(Exception):
    """An entry that was listed is not shown."""


class Unexpected(Exception):
    """An answer that no server may give there."""


class Wire:
    """One connection; lines end in CRLF."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._said = b""

    async def send(self, octets: bytes) -> None:
        """Raises Gone."""
        self._said = octets[:4]
        try:
            self._writer.write(octets)
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._writer.drain()
        except (OSError, TimeoutError, RuntimeError) as exc:
            # (RuntimeError is how uvloop says that a connection is closed.)
            raise Gone("while it was written to") from exc

    async def line(self) -> bytes:
        """The next line, without its end. Raises Gone."""
        return (await self._until(b"\r\n"))[:-2]

    async def _until(self, mark: bytes) -> bytes:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await self._reader.readuntil(mark)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, RuntimeError) as exc:
            raise Gone(f"{type(exc).__name__} after {self._said!r}") from exc

    # SMTP.

    async def reply(self) -> bytes:
        """The last line of the next reply. Raises Gone."""
        while True:
            line = await self.line()
            if line[3:4] != b"-":
                if not line[:3].isdigit():
                    raise Unexpected(f"no reply: {line!r}")
                return line

    async def say(self, line: str) -> bytes:
        """A command, and the reply to it. Raises Gone."""
        await self.send(line.encode() + b"\r\n")
        return await self.reply()

    async def greet(self) -> None:
        """Greeting and EHLO. Raises Gone, also where the house is not ready."""
        for answer in (await self.reply(), await self.say("EHLO sender.prove.test")):
            if not answer.startswith(b"2"):
                raise Gone(answer.decode(errors="replace"))

    # POP3.

    async def status(self, line: str) -> bool:
        """Whether a command was answered with +OK. Raises Gone."""
        await self.send(line.encode() + b"\r\n")
        return (await self.line()).startswith(b"+OK")

    async def login(self, name: str, password: str) -> bool:
        """From the greeting on; False where the maildrop is in use, or the house cannot say. Raises Gone."""
        await self.line()
        return await self.status(f"USER {name}") and await self.status(f"PASS {password}")

    async def scan(self, command: str) -> list[str]:
        """What LIST or UIDL say of each message, in order. Raises Gone."""
        if not await self.status(command):
            raise Gone(f"{command} was refused")
        values = []
        while (line := await self.line()) != b".":
            values.append(line.split(b" ")[1].decode())
        return values

    async def retrieve(self, number: int) -> bytes:
        """A whole message. Raises Gone, or NotShown for -ERR."""
        if not await self.status(f"RETR {number}"):
            raise NotShown
        octets = await self._until(b"\r\n.\r\n")
        return unstuffed(octets[:-3])

    def drop(self) -> None:
        """Vanish: the other side reads a reset."""
        reset(self._writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection: the other side reads a reset, not an end. One that is closed already stays so."""
    opened = writer.get_extra_info("socket")
    if opened is not None:
        # (ValueError is what uvloop says of a socket that is closed.)
        with suppress(OSError, ValueError):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


@asynccontextmanager
async def connected(port: int) -> AsyncGenerator[Wire, None]:
    """A connection to a port of loopback, dropped at the end of the block. Raises Gone."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=READ_OCTETS * 4)
    except (OSError, TimeoutError) as exc:
        raise Gone("at its beginning") from exc
    wire = Wire(reader, writer)
    try:
        yield wire
    finally:
        wire.drop()


async def until_greeted(port: int, every_s: float, alive: Callable[[], None]) -> None:
    """Returns when a connection is greeted with 220. `alive` is asked between two tries, and may raise."""
    while True:
        alive()
        try:
            async with connected(port) as wire:
                if (await wire.reply()).startswith(b"220"):
                    return
        except Gone:
            pass
        await asyncio.sleep(every_s)


def stuffed(content: bytes) -> bytes:
    """Content as DATA carries it, without its end (RFC 5321 §4.5.2). It ends in CRLF."""
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]


def unstuffed(octets: bytes) -> bytes:
    """A message as RETR carried it (RFC 1939 §3)."""
    return (b"\r\n" + octets).replace(b"\r\n.", b"\r\n")[2:]


def commands(lines: Sequence[str]) -> bytes:
    """Several commands in one go (RFC 2920)."""
    return "".join(f"{line}\r\n" for line in lines).encode()
