"""A provider on loopback: name servers, web servers and mail servers with certificates, good and bad."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from posthouse.discovery.search import Search
from posthouse.discovery.trial import Trial
from posthouse.mail.address import parse_address
from posthouse.net.connect import TcpConnector
from posthouse.net.dns import Service
from posthouse.net.https import HttpsClient
from posthouse.net.stream import Stream
from posthouse.net.tls import client_context
from tests.fake_world import FakeRandom
from tests.net.authority import Authority

ADA = parse_address("ada@far.test")


@dataclass(slots=True)
class MailServer:
    """POP3 or SMTP, by its greeting. `offers`: what CAPA or EHLO says, `after` TLS something else."""

    greeting: bytes = b"+OK ready\r\n"
    offers: tuple[str, ...] = ("USER", "SASL PLAIN", "STLS")
    tls: ssl.SSLContext | None = None
    implicit: bool = False
    start_tls: bytes | None = None
    """What is answered to STLS or STARTTLS instead of a handshake."""
    refuse_login: bool = False
    silent: bool = False
    commands: list[str] = field(default_factory=list)
    in_clear: list[str] = field(default_factory=list)

    @property
    def is_pop3(self) -> bool:
        return self.greeting.startswith(b"+")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._session(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.silent:
            await reader.read()
            return
        writer.write(self.greeting)
        while line := (await reader.readline()).decode().rstrip("\r\n"):
            self.commands.append(line)
            if writer.get_extra_info("ssl_object") is None:
                self.in_clear.append(line)
            verb = line.split()[0].upper()
            if verb in ("STLS", "STARTTLS"):
                if self.start_tls is not None:
                    writer.write(self.start_tls)
                    continue
                writer.write(b"+OK go\r\n" if self.is_pop3 else b"220 go\r\n")
                if self.tls is None:
                    return
                await writer.start_tls(self.tls)
                continue
            if verb == "AUTH" and self.is_pop3:
                writer.write(b"+ \r\n")
                self.commands.append((await reader.readline()).decode().rstrip("\r\n"))
            writer.write(self._answer(verb))
            if verb == "QUIT":
                return

    def _answer(self, verb: str) -> bytes:
        if self.is_pop3:
            if verb == "CAPA":
                return b"+OK\r\n" + "".join(f"{each}\r\n" for each in self.offers).encode() + b".\r\n"
            return b"-ERR [AUTH] wrong\r\n" if verb == "PASS" and self.refuse_login else b"+OK\r\n"
        if verb == "EHLO":
            lines = ["far.test", *self.offers]
            return "".join(f"250{'-' if each is not lines[-1] else ' '}{each}\r\n" for each in lines).encode()
        if verb == "AUTH":
            return b"535 5.7.8 wrong\r\n" if self.refuse_login else b"235 2.7.0 in\r\n"
        return b"221 bye\r\n" if verb == "QUIT" else b"250 OK\r\n"


def pop3(**options: object) -> MailServer:
    return MailServer(**options)  # type: ignore[arg-type]


def smtp(**options: object) -> MailServer:
    offers = options.pop("offers", ("STARTTLS", "AUTH PLAIN XOAUTH2"))
    return MailServer(greeting=b"220 far.test ESMTP\r\n", offers=offers, **options)  # type: ignore[arg-type]


@dataclass(slots=True)
class Provider:
    """What the world is like. `servers` by (host, port); `pages` by URL without its query: what is answered whole."""

    authority: Authority
    servers: dict[tuple[str, int], MailServer] = field(default_factory=dict)
    records: dict[str, tuple[Service, ...]] = field(default_factory=dict)
    pages: dict[str, bytes] = field(default_factory=dict)
    web_tls: ssl.SSLContext | None = None
    asked: list[str] = field(default_factory=list)
    connected: list[tuple[str, int]] = field(default_factory=list)
    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    missing: bool = False
    """No name leads anywhere."""

    async def services(self, name: str) -> tuple[Service, ...]:
        return self.records.get(name, ())

    async def connect(self, host: str, port: int, *, local_address: str | None = None) -> Stream:
        assert local_address is None
        self.connected.append((host, port))
        if self.missing:
            raise socket.gaierror(-2, "Name or service not known")
        if (host, port) not in self.ports:
            raise ConnectionRefusedError(111, "Connection refused")
        return await TcpConnector().connect("127.0.0.1", self.ports[host, port])

    async def web(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = request.split("\r\n")
            path = lines[0].split(" ")[1]
            host = next(line[6:] for line in lines if line.startswith("Host: "))
            self.asked.append(f"https://{host}{path}")
            page = self.pages.get(f"https://{host}{path}".partition("?")[0])
            writer.write(page if page is not None else b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def search(self) -> Search:
        def context() -> ssl.SSLContext:
            return client_context(verified=True, authorities=self.authority.file)

        trial = Trial(connector=self, pop3_context=context, smtp_context=context, hello_name="posthouse.internal")
        https = HttpsClient(connector=self, context=context)
        return Search(resolver=self, https=https, trial=trial, random=FakeRandom())

    def passwords(self) -> list[str]:
        """Whatever was said that only a login says."""
        said = [line for server in self.servers.values() for line in server.commands]
        return [line for line in said if line.split()[0].upper() in ("USER", "PASS", "AUTH", "APOP")]


def page(xml: bytes | str) -> bytes:
    octets = xml.encode() if isinstance(xml, str) else xml
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n" % len(octets) + octets


@contextmanager
def running_aside(folder: Path, furnish: Callable[[Provider], None]) -> Iterator[Provider]:
    """The same in a thread of its own, for tests that do not run in a loop."""
    started: Future[Provider] = Future()
    ended = threading.Event()

    async def run() -> None:
        async with running(folder, furnish) as provider:
            started.set_result(provider)
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    try:
        yield started.result(30)
    finally:
        ended.set()
        thread.join(30)


@asynccontextmanager
async def running(folder: Path, furnish: Callable[[Provider], None]) -> AsyncIterator[Provider]:
    """The provider as `furnish` makes it."""
    provider = Provider(Authority(folder))
    furnish(provider)
    async with AsyncExitStack() as stack:
        for place, server in provider.servers.items():
            tls = server.tls if server.implicit else None
            listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
            await stack.enter_async_context(listening)
            provider.ports[place] = listening.sockets[0].getsockname()[1]
        if provider.web_tls is not None:
            web = await asyncio.start_server(provider.web, "127.0.0.1", 0, ssl=provider.web_tls)
            await stack.enter_async_context(web)
            for host in ("autoconfig.far.test", "far.test", "elsewhere.test"):
                provider.ports[host, 443] = web.sockets[0].getsockname()[1]
        yield provider
