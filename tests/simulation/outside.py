"""The rest of the world: hosts that take mail, each in its mood, and name servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from posthouse.net.dns import Addresses, MxHost, NoSuchName, TemporaryDnsFailure
from tests.simulation.loop import SimulatedLoop
from tests.simulation.network import Door, Host, Tell, Transport

GREY_S = 1200.0
DNS_S = 0.03
DNS_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Taken:
    """Something that an outside host said 250 to."""

    queue_id: str
    reverse_path: str
    forward_paths: tuple[str, ...]
    content: bytes
    source: str
    """The address that it came from."""


@dataclass(slots=True)
class OutsideHost:
    """What one host of the outside world is like, and what it has."""

    name: str
    host: Host
    loop: SimulatedLoop
    tell: Tell
    pipelining: bool = True
    dsn: bool = False
    mood: Callable[[], str] = lambda: ""
    """Where in the session all is refused just now, and with which code: "greeting 421", "RCPT 451", ". 554"."""
    taken: list[Taken] = field(default_factory=list)
    has: set[tuple[str, str]] = field(default_factory=set)
    """(queue id, forward-path)"""
    grey: dict[str, float] = field(default_factory=dict)
    on_taken: Callable[[Taken], None] = lambda _taken: None
    on_told: Callable[[Taken], None] = lambda _taken: None
    """The 250 has reached who sent it."""

    def __post_init__(self) -> None:
        self.host.has_patience = True
        Door(self.host, 25, lambda: _Session(self))

    def take(self, reverse_path: str, forward_paths: tuple[str, ...], content: bytes, source: str) -> Taken:
        queue_id = f"{self.name}-{len(self.taken)}"
        taken = Taken(queue_id, reverse_path, forward_paths, content, source)
        self.taken.append(taken)
        self.has |= {(queue_id, path) for path in forward_paths}
        self.tell(self.name, "takes", queue_id, *forward_paths)
        self.on_taken(taken)
        return taken

    def judge(self, path: str) -> str:
        """The answer to RCPT."""
        local_part = path.partition("@")[0]
        if local_part.startswith("nobody"):
            return "550 5.1.1 no such user"
        if local_part.startswith("full"):
            return "452 4.2.2 mailbox full"
        if local_part.startswith("grey"):
            first = self.grey.setdefault(path, self.loop.time())
            if self.loop.time() - first < GREY_S:
                return "451 4.7.1 come again later"
        return "250 2.1.5 OK"


class _Session(asyncio.Protocol):
    """The server half of SMTP, as simple as it gets (RFC 5321 §4.1)."""

    def __init__(self, world: OutsideHost) -> None:
        self._world = world
        self._buffer = b""
        self._reverse: str | None = None
        self._forward: list[str] = []
        self._in_content = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(Transport, transport)
        self._say("greeting", f"220 {self._world.name} ESMTP")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while not self._transport.is_closing():
            if self._in_content:
                end = self._buffer.find(b"\r\n.\r\n")
                if end < 0:
                    return
                content, self._buffer = self._buffer[: end + 2], self._buffer[end + 5 :]
                self._in_content = False
                self._content(content)
                continue
            line, found, rest = self._buffer.partition(b"\r\n")
            if not found:
                return
            self._buffer = rest
            self._command(line.decode())

    def eof_received(self) -> bool:
        return False

    def _say(self, where: str, usual: str) -> bool:
        """Answer; False: it was refused by mood."""
        place, _, code = self._world.mood().partition(" ")
        if place == where:
            self._transport.write(f"{code} {code[0]}.3.2 not now\r\n".encode())
            if code == "421":
                self._transport.close()
            return False
        self._transport.write(usual.encode() + b"\r\n")
        return usual[0] in "23"

    def _command(self, line: str) -> None:
        verb = line[:4].upper()
        path = line[line.find("<") + 1 : line.rfind(">")] if "<" in line else ""
        match verb:
            case "EHLO":
                extensions = ["8BITMIME", "SMTPUTF8", "SIZE 10000000", "ENHANCEDSTATUSCODES"]
                extensions += ["PIPELINING"] * self._world.pipelining + ["DSN"] * self._world.dsn
                self._say(
                    "EHLO", "\r\n".join(f"250-{each}" for each in (self._world.name, *extensions)) + "\r\n250 HELP"
                )
            case "MAIL":
                self._forward = []
                self._reverse = path.split(">")[0] if self._say("MAIL", "250 2.1.0 OK") else None
            case "RCPT" if self._reverse is not None:
                path = path.split(">")[0]
                if self._say("RCPT", self._world.judge(path)):
                    self._forward.append(path)
            case "DATA" if self._forward:
                self._in_content = self._say("DATA", "354 go on")
            case "RSET":
                self._reverse, self._forward = None, []
                self._say("RSET", "250 2.0.0 OK")
            case "QUIT":
                self._say("QUIT", "221 2.0.0 bye")
                self._transport.close()
            case "NOOP" | "HELO":
                self._say(verb, "250 2.0.0 OK")
            case _:
                self._say("other", "503 5.5.1 not now")

    def _content(self, content: bytes) -> None:
        content = content.replace(b"\r\n..", b"\r\n.")
        if content.startswith(b".."):
            content = content[1:]
        assert self._reverse is not None
        place, _, code = self._world.mood().partition(" ")
        if place == ".":
            self._transport.write(f"{code} {code[0]}.3.2 not now\r\n".encode())
        elif any(path.startswith("content") for path in self._forward):
            self._transport.write(b"554 5.6.0 not this content\r\n")
        else:
            source = self._transport.get_extra_info("peername")[0]
            taken = self._world.take(self._reverse, tuple(self._forward), content, source)
            self._transport.on_arrival = lambda: self._world.on_told(taken)
            self._transport.write(f"250 2.0.0 taken as {taken.queue_id}\r\n".encode())
        self._reverse, self._forward = None, []


class Names:
    """What the name servers know, and what they say instead."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.mail_exchangers: dict[str, tuple[MxHost, ...]] = {}
        self.addresses: dict[str, tuple[str, ...]] = {}
        self.trouble: Callable[[str], str] = lambda _name: ""
        """For a name: "", "timeout", "servfail", "lies" (no such name) or an address where the host is not."""


class SimulatedResolver:
    """Implements `net.dns.Resolver` for one house."""

    def __init__(self, names: Names) -> None:
        self._names = names

    async def mail_exchangers(self, domain: str) -> tuple[MxHost, ...]:
        await self._ask(domain)
        if domain not in self._names.mail_exchangers and domain not in self._names.addresses:
            raise NoSuchName(domain)
        return self._names.mail_exchangers.get(domain, ())

    async def addresses(self, host: str) -> Addresses:
        said = await self._ask(host)
        if said:
            return Addresses((said,))
        if host not in self._names.addresses:
            raise NoSuchName(host)
        return Addresses(self._names.addresses[host])

    async def _ask(self, name: str) -> str:
        trouble = self._names.trouble(name)
        await self._names.loop.pause(DNS_TIMEOUT_S if trouble == "timeout" else DNS_S)
        if trouble in ("timeout", "servfail"):
            raise TemporaryDnsFailure(name)
        if trouble == "lies":
            raise NoSuchName(name)
        return trouble
