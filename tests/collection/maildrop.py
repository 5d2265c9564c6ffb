"""A POP3 maildrop in memory that misbehaves on demand; a real house and a real Dovecot are in other tests.

It knows only what these tests ask of it: each connection is one session, deletions happen at QUIT.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Maildrop:
    """`messages`: UIDL and octets, in order. The switches make it strange."""

    messages: list[tuple[str, bytes]] = field(default_factory=list)
    has_uidl: bool = True
    has_top: bool = True
    pipelining: bool = False
    refuse_login: str | None = None
    """The line behind `-ERR`."""
    cut_after: int | None = None
    """Octets of answers to RETR until the connection breaks."""
    cut_at_quit: bool = False
    """Deletes, and breaks the connection instead of answering."""
    lie_octets: int = 0
    """Added to each size in LIST."""
    refuse_retr: frozenset[str] = frozenset()
    port: int = 0
    commands: list[str] = field(default_factory=list)

    def fetched(self) -> int:
        return sum(command.startswith("RETR") for command in self.commands)

    async def session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        deleted: set[int] = set()
        sent = 0
        writer.write(b"+OK\r\n")
        while line := await reader.readline():
            command = line.decode().rstrip("\r\n")
            self.commands.append(command)
            verb, _, rest = command.partition(" ")
            match verb:
                case "USER":
                    answer = b"+OK\r\n"
                case "PASS":
                    answer = b"+OK\r\n" if self.refuse_login is None else f"-ERR {self.refuse_login}\r\n".encode()
                case "CAPA":
                    answer = b"+OK\r\nTOP\r\nUIDL\r\n" + (b"PIPELINING\r\n" if self.pipelining else b"") + b".\r\n"
                case "LIST":
                    answer = self._lines(str(len(octets) + self.lie_octets) for _, octets in self.messages)
                case "UIDL" if self.has_uidl:
                    answer = self._lines(uidl for uidl, _ in self.messages)
                case "TOP" if self.has_top:
                    octets = self.messages[int(rest.split()[0]) - 1][1]
                    answer = b"+OK\r\n" + _stuffed(octets.partition(b"\r\n\r\n")[0] + b"\r\n\r\n") + b".\r\n"
                case "RETR" if self.messages[int(rest) - 1][0] in self.refuse_retr:
                    answer = b"-ERR it is broken\r\n"
                case "RETR":
                    answer = b"+OK\r\n" + _stuffed(self.messages[int(rest) - 1][1]) + b".\r\n"
                    if self.cut_after is not None and sent + len(answer) > self.cut_after:
                        writer.write(answer[: self.cut_after - sent])
                        break
                    sent += len(answer)
                case "DELE":
                    deleted.add(int(rest) - 1)
                    answer = b"+OK\r\n"
                case "QUIT":
                    self.messages = [each for number, each in enumerate(self.messages) if number not in deleted]
                    if not self.cut_at_quit:
                        writer.write(b"+OK\r\n")
                    break
                case _:
                    answer = b"-ERR what?\r\n"
            writer.write(answer)
            await writer.drain()
        await writer.drain()
        writer.close()

    @staticmethod
    def _lines(values: object) -> bytes:
        lines = [f"{number} {value}\r\n" for number, value in enumerate(values, start=1)]  # type: ignore[arg-type,var-annotated]
        return b"+OK\r\n" + "".join(lines).encode() + b".\r\n"


def _stuffed(octets: bytes) -> bytes:
    stuffed = b"\r\n".join(b"." + line if line.startswith(b".") else line for line in octets.split(b"\r\n"))
    return stuffed if stuffed.endswith(b"\r\n") else stuffed + b"\r\n"


@asynccontextmanager
async def served(maildrop: Maildrop) -> AsyncIterator[Maildrop]:
    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await maildrop.session(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(session, "127.0.0.1", 0)
    maildrop.port = server.sockets[0].getsockname()[1]
    async with server:
        yield maildrop
