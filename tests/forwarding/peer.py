"""A next hop for tests of forwarding: a script decides what it answers, and it remembers what it took."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

DROP = "drop"
"""Close the connection instead of answering."""
EHLO = "250-there.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 SIZE 1000000"

Script = Callable[[str, int], "str | bytes | None"]
"""Given a command line ("" for the greeting, "." for the content's end) and the number of the connection, from 1:
the answer without its CRLF, octets as they are, DROP, or None for the usual answer."""


@dataclass(slots=True)
class Peer:
    """What came. `messages` are (recipients, content) that it said 250 to."""

    script: Script
    ehlo: str = EHLO
    port: int = 0
    connections: int = 0
    open: int = 0
    most_open: int = 0
    commands: list[str] = field(default_factory=list)
    messages: list[tuple[tuple[str, ...], bytes]] = field(default_factory=list)
    answering: asyncio.Event | None = None
    """Where set, nothing is answered to the end of content before it."""
    tls: ssl.SSLContext | None = None
    """What it takes a handshake with after its 220 to STARTTLS; without it, it breaks off."""
    implicit: bool = False
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    in_clear: list[str] = field(default_factory=list)
    """Those commands that anybody on the way could read."""

    @property
    def recipients(self) -> list[str]:
        """Everybody who got something, once for each time."""
        return [recipient for recipients, _content in self.messages for recipient in recipients]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self._session(reader, writer, self.connections)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        taken: list[str] = []
        in_mail = False
        if not self._say(writer, "", number, "220 there.test ESMTP"):
            return
        while line := (await reader.readline()).decode().rstrip("\r\n"):
            self.commands.append(line)
            if writer.get_extra_info("ssl_object") is None:
                self.in_clear.append(line)
            verb = line.partition(" ")[0].upper()
            usual = self.ehlo if verb == "EHLO" else "354 Go on" if verb == "DATA" else "250 2.0.0 OK"
            if verb == "DATA" and not taken:
                usual = "554 5.5.1 No recipients"
            if verb in ("MAIL", "RSET"):
                taken.clear()
            answer = self._answer(line, number, usual)
            if verb == "MAIL":
                in_mail = str(answer).startswith("2")
            if verb == "RCPT" and in_mail and str(answer).startswith("2"):
                taken.append(line[line.index("<") + 1 : line.index(">")])
            if not self._say(writer, line, number, usual) or verb == "QUIT":
                return
            if verb == "STARTTLS" and str(answer).startswith("2"):
                if self.tls is None:
                    return
                await writer.start_tls(self.tls)
            if verb == "DATA" and str(answer).startswith("354"):
                content = await self._content(reader)
                if self.answering is not None:
                    await self.answering.wait()
                if str(self._answer(".", number, "250")).startswith("2"):
                    self.messages.append((tuple(taken), content))
                taken.clear()
                if not self._say(writer, ".", number, "250 2.0.0 Taken"):
                    return

    async def _content(self, reader: asyncio.StreamReader) -> bytes:
        lines = []
        while (line := await reader.readline()) != b".\r\n":
            if not line:
                raise ConnectionError
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    def _answer(self, line: str, number: int, usual: str) -> str | bytes:
        scripted = self.script(line, number)
        return usual if scripted is None else scripted

    def _say(self, writer: asyncio.StreamWriter, line: str, number: int, usual: str) -> bool:
        answer = self._answer(line, number, usual)
        if answer == DROP:
            return False
        writer.write(answer if isinstance(answer, bytes) else answer.encode() + b"\r\n")
        return not str(answer).startswith("421")


def says(answers: dict[str, str | bytes]) -> Script:
    """The answers to command lines that begin with these words; "" is the greeting."""

    def script(line: str, _number: int) -> str | bytes | None:
        if not line:
            return answers.get("")
        return next((answer for begin, answer in answers.items() if begin and line.startswith(begin)), None)

    return script


@asynccontextmanager
async def peer(
    answers: dict[str, str | bytes] | Script | None = None,
    ehlo: str = EHLO,
    *,
    tls: ssl.SSLContext | None = None,
    implicit: bool = False,
) -> AsyncIterator[Peer]:
    """A peer on a port of loopback. `implicit`: it speaks TLS from the first octet."""
    script = says(answers or {}) if not callable(answers) else answers
    serving = Peer(script, ehlo, tls=tls, implicit=implicit)
    server = await asyncio.start_server(serving.serve, "127.0.0.1", 0, limit=2**20, ssl=tls if implicit else None)
    serving.port = server.sockets[0].getsockname()[1]
    try:
        yield serving
    finally:
        server.close()
