"""Other houses as a whole house meets them: hosts on 127.x.y.z with one port, found by MX, each with its own fault.

    with FarHosts() as far:
        far.add("mx.there.test", {"RCPT": Fault.DROP})
        far.zone[("there.test", "MX")] = ["10 mx.there.test."]
        with RunningHouse(folder, forwarding={"port": far.port, ...}, dns={"servers": [far.name_server]}): ...

They live on a loop in a thread of their own, so that a test may block. A step is a command's verb, `connect`,
`greeting`, `content` (while it comes) or `.` (its end). A script may also answer lines one by one.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

from tests.dns_server import dns_server

Records = dict[tuple[str, str], list[str]]
"""A zone that grows with each host."""

RECEIVE_BUFFER_OCTETS = 65_536
"""Small, so that content cannot hide in the system's buffers."""
SOME_OF_THE_CONTENT_OCTETS = 200_000
DRIP_EVERY_S = 0.2


class Fault(Enum):
    """What a host does instead of what it should."""

    SOFT = "4yz"
    HARD = "5yz"
    CLOSING = "421"
    DROP = "drop"
    RESET = "reset"
    HANG = "hang"
    GARBAGE = "garbage"
    LINE = "endless line"
    LINES = "endless reply"
    WRONG = "wrong class"
    DRIP = "drip"
    UNKNOWN = "502"


REPLIES = {
    Fault.SOFT: "451 4.3.0 Not now",
    Fault.HARD: "554 5.7.1 Never",
    Fault.CLOSING: "421 4.3.2 Closing",
    Fault.WRONG: "354 What else",
    Fault.UNKNOWN: "502 5.5.1 Unknown command",
}
PLAIN = ("8BITMIME", "SIZE 100000000")
PIPELINING = ("PIPELINING", *PLAIN)
CHUNKING = ("CHUNKING", *PIPELINING)


class Gone(Exception):
    """This connection has ended."""


Script = Callable[[str, int], "str | Fault | None"]
"""Given a line ("." for the end of content) and the number of the connection, from 1: what to do; None: the usual."""


@dataclass(slots=True)
class Taken:
    """Content that came whole. `answered`: it was told that we have it."""

    forward_paths: tuple[str, ...]
    content: bytes
    answered: bool


@dataclass(slots=True)
class FarHost:
    """One host. `sessions` has the commands of each connection; `taken` what came whole, in order."""

    name: str
    address: str
    faults: Mapping[str, Fault] = field(default_factory=dict)
    offers: tuple[str, ...] = PIPELINING
    script: Script = lambda _line, _number: None
    tls: ssl.SSLContext | None = None
    recipients_limit: int | None = None
    """In one transaction; those beyond it hear 552 (RFC 5321 §4.5.3.1.10)."""
    sessions: list[list[str]] = field(default_factory=list)
    taken: list[Taken] = field(default_factory=list)
    _serving: set[asyncio.Task[None] | None] = field(default_factory=set)
    """asyncio itself forgets a task that waits for nothing."""

    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    """Of all sessions: one whose peer reads no more would never be closed."""

    def copies(self, forward_path: str) -> int:
        """How often somebody got something, as far as this host knows, whether or not it said so."""
        return sum(forward_path in each.forward_paths for each in self.taken)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands: list[str] = []
        self.sessions.append(commands)
        self._serving.add(asyncio.current_task())
        self.writers.append(writer)
        try:
            await _Session(self, reader, writer, commands, len(self.sessions)).run()
        except asyncio.CancelledError:
            # The end of the test: a farewell over TLS would wait for the other side.
            writer.transport.abort()
        except (Gone, EOFError, OSError):
            pass
        finally:
            writer.close()


class _Session:
    def __init__(
        self,
        host: FarHost,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        commands: list[str],
        number: int,
    ) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer
        self._commands = commands
        self._number = number
        self._secure = False
        self._mail = False
        self._recipients: list[str] = []
        self._chunks = bytearray()

    async def run(self) -> None:
        if await self._say("greeting", "", f"220 {self._host.name} ESMTP"):
            while True:
                line = (await self._reader.readuntil(b"\r\n")).decode().removesuffix("\r\n")
                self._commands.append(line)
                await self._command(line.partition(" ")[0].partition(":")[0].upper(), line)

    async def _command(self, verb: str, line: str) -> None:
        match verb:
            case "EHLO":
                offers = self._host.offers + (("STARTTLS",) if self._host.tls and not self._secure else ())
                lines = (self._host.name, *offers)
                said = "\r\n".join(f"250{' ' if at == len(lines) else '-'}{text}" for at, text in enumerate(lines, 1))
                await self._say(verb, line, said)
            case "STARTTLS":
                if await self._say(verb, line, "220 2.0.0 Go on"):
                    await self._start_tls()
            case "MAIL":
                self._recipients.clear()
                self._chunks.clear()
                self._mail = await self._say(verb, line, "250 2.1.0 OK")
            case "RCPT":
                usual = "250 2.1.5 OK" if self._mail else "503 5.5.1 No MAIL"
                if len(self._recipients) == self._host.recipients_limit:
                    usual = "552 5.5.3 Too many recipients"
                if await self._say(verb, line, usual) and self._mail:
                    self._recipients.append(line[line.index("<") + 1 : line.index(">")])
            case "DATA":
                if await self._say(verb, line, "354 Go on" if self._recipients else "554 5.5.1 No recipients"):
                    await self._content()
            case "BDAT":
                self._chunks += await self._reader.readexactly(int(line.split()[1]))
                if line.endswith("LAST"):
                    await self._take(bytes(self._chunks))
                else:
                    await self._say(verb, line, "250 2.0.0 OK")
            case "RSET":
                self._mail = False
                await self._say(verb, line, "250 2.0.0 OK")
            case "QUIT":
                await self._say(verb, line, "221 2.0.0 Bye")
                raise Gone
            case _:
                await self._say(verb, line, "250 2.0.0 OK")

    async def _start_tls(self) -> None:
        fault = self._host.faults.get("handshake")
        if fault is not None:
            await self._do(fault, "handshake")
            raise Gone
        assert self._host.tls is not None
        await self._writer.start_tls(self._host.tls)
        self._secure = True

    async def _content(self) -> None:
        fault = self._host.faults.get("content")
        if fault is not None:
            await self._reader.readexactly(SOME_OF_THE_CONTENT_OCTETS)
            await self._do(fault, "content")
            # A reply that is followed by a reset may never be read.
            await self._until_gone()
        octets = bytearray()
        while not octets.endswith(b"\r\n.\r\n") and octets != b".\r\n":
            octets += await self._reader.readuntil(b"\n")
        await self._take(bytes(octets[:-3]))

    async def _take(self, content: bytes) -> None:
        """The end of the content."""
        taken = Taken(tuple(self._recipients), content, answered=False)
        plan = self._planned(".", ".")
        if plan not in (Fault.SOFT, Fault.HARD, Fault.CLOSING) and not str(plan).startswith(("4", "5")):
            # Whatever else it does now, it has the message.
            self._host.taken.append(taken)
        self._mail = False
        taken.answered = await self._say(".", ".", "250 2.0.0 Taken")

    def _planned(self, step: str, line: str) -> str | Fault | None:
        scripted = self._host.script(line, self._number) if line else None
        return scripted if scripted is not None else self._host.faults.get(step)

    async def _say(self, step: str, line: str, usual: str) -> bool:
        """Answer; whether with consent."""
        plan = self._planned(step, line)
        if isinstance(plan, Fault):
            await self._do(plan, step)
            return False
        said = usual if plan is None else plan
        self._writer.write(said.encode() + b"\r\n")
        await self._writer.drain()
        if said.startswith("421"):
            raise Gone
        return said.startswith(("2", "354"))

    async def _do(self, fault: Fault, step: str) -> None:
        match fault:
            case Fault.WRONG if step in ("DATA", "content"):
                await self._write(b"250 2.0.0 Taken already\r\n")
            case Fault.SOFT | Fault.HARD | Fault.WRONG | Fault.UNKNOWN:
                await self._write(REPLIES[fault].encode() + b"\r\n")
            case Fault.CLOSING:
                await self._write(REPLIES[fault].encode() + b"\r\n")
                self._writer.write_eof()
                await self._until_gone()
            case Fault.DROP:
                raise Gone
            case Fault.RESET:
                sock: socket.socket = self._writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._writer.transport.abort()
                raise Gone
            case Fault.HANG:
                if step == "content":
                    # Who still reads takes the content.
                    self._writer.transport.pause_reading()  # type: ignore[attr-defined]
                    await asyncio.Event().wait()
                await self._until_gone()
            case Fault.GARBAGE:
                await self._write(b"\x16\x03\x01\0\xa5 <html>\r\n\xff\xfe250\r\n")
                await self._until_gone()
            case Fault.LINE | Fault.LINES:
                piece = b"2" * 4096 if fault is Fault.LINE else b"250-and so on\r\n" * 300
                while True:
                    await self._write(piece)
            case Fault.DRIP:
                for octet in itertools.chain(b"250-", itertools.repeat(ord("x"))):
                    await self._write(bytes([octet]))
                    await asyncio.sleep(DRIP_EVERY_S)

    async def _write(self, octets: bytes) -> None:
        self._writer.write(octets)
        await self._writer.drain()
        if self._writer.is_closing():
            raise Gone

    async def _until_gone(self) -> None:
        while await self._reader.read(1 << 16):
            pass
        raise Gone


class FarHosts:
    """Hosts, one port for all of them, and the name server that knows them. `zone` may grow at any time."""

    def __init__(self) -> None:
        self.zone: Records = {}
        self.hosts: dict[str, FarHost] = {}
        self.port = 0
        self.name_server = ""
        self._numbers = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> FarHosts:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    def add(
        self,
        name: str,
        faults: Mapping[str, Fault] | None = None,
        *,
        offers: tuple[str, ...] = PIPELINING,
        script: Script = lambda _line, _number: None,
        tls: ssl.SSLContext | None = None,
    ) -> FarHost:
        """A host with an address of its own. `connect`: DROP listens nowhere, HANG never accepts."""
        number = next(self._numbers)
        host = FarHost(name, f"127.77.{number // 250}.{number % 250 + 1}", faults or {}, offers, script, tls)
        self.hosts[name] = host
        self.zone[name, "A"] = [host.address]
        self._do(self._listen(host))
        return host

    def mail_for(self, domain: str, *names: str) -> None:
        """The MX records of a domain, best first."""
        self.zone[domain, "MX"] = [f"{10 * at} {name}." for at, name in enumerate(names, 1)]

    def heal(self) -> None:
        """Every host does its duty from now on; what was dead listens."""
        for host in self.hosts.values():
            was, host.faults = host.faults, {}
            host.script = lambda _line, _number: None
            if "connect" in was:
                self._do(self._close(host))
                self._do(self._listen(host))

    def _do(self, work: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _listen(self, host: FarHost) -> None:
        fault = host.faults.get("connect")
        if fault is Fault.DROP:
            return
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_OCTETS)
        listener.bind((host.address, self.port))
        self.port = listener.getsockname()[1]
        if fault is Fault.HANG:
            self._fill(listener)
            self._listening[host.name] = listener
            return
        self._listening[host.name] = await asyncio.start_server(host.serve, sock=listener, limit=1 << 20)

    def _fill(self, listener: socket.socket) -> None:
        """Nobody accepts, and the backlog is full: a connection more gets no answer at all."""
        listener.listen(0)
        for _ in range(2):
            waiting = socket.socket()
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
            self._waiting.append(waiting)

    async def _close(self, host: FarHost) -> None:
        if host.name in self._listening:
            self._listening.pop(host.name).close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        self._listening: dict[str, asyncio.Server | socket.socket] = {}
        self._waiting: list[socket.socket] = []
        async with dns_server(self.zone) as server:
            self.name_server = f"{server.address[0]}:{server.address[1]}"
            self._ready.set()
            await self._ended.wait()
        for each in (*self._listening.values(), *self._waiting):
            each.close()
        while left := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in left:
                task.cancel()
            await asyncio.wait(left)
        for host in self.hosts.values():
            for writer in host.writers:
                writer.transport.abort()
        # Turns in which transports close their sockets, and those below TLS.
        for _ in range(3):
            await asyncio.sleep(0)
