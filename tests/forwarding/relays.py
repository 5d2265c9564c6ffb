"""A relay whose hosts are peers on loopback."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

from posthouse.config_forwarding import Credentials, Forwarding
from posthouse.forwarding.attempt import Attempt
from posthouse.forwarding.dial import ClientTls, Dialer
from posthouse.forwarding.hosts import DeadHosts
from posthouse.forwarding.pool import Pool
from posthouse.forwarding.relay import Relay
from posthouse.forwarding.routes import Router
from posthouse.forwarding.session import RelaySession
from posthouse.mail.acceptance import Destination
from posthouse.mail.ids import ContentId
from posthouse.mail.outcome import Outcome
from posthouse.mail.spool import SpoolRow
from posthouse.net.connect import TcpConnector
from posthouse.net.dns import MxHost
from posthouse.net.smtp_connection import SmtpTimeouts
from posthouse.net.stream import Stream
from tests.fake_world import FakeClock, FakeRandom, FakeResolver
from tests.forwarding.peer import Peer
from tests.forwarding.rows import a_row

THERE = Destination("", "there.test")
CONTENT = b"Subject: hello\r\n\r\n.A dot\r\n"
ADDRESSES = {f"mx{number}.test": (f"192.0.2.{number}",) for number in range(1, 10)}
TLS = ClientTls()


class Contents:
    """Every message has the same content; `damaged` cannot be read."""

    def __init__(self, content: bytes = CONTENT, damaged: frozenset[int] = frozenset()) -> None:
        self.content = content
        self.damaged = damaged

    async def open(self, content_id: ContentId) -> AsyncGenerator[bytes, None]:
        yield self.content[:5]
        if content_id in self.damaged:
            raise RuntimeError("unreadable")
        yield self.content[5:]


class Ports:
    """Connects to ports of loopback that stand for addresses; what has none refuses."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.ports = ports
        self.tried: list[str] = []
        self.sources: list[str | None] = []

    async def connect(self, host: str, port: int, *, local_address: str | None = None) -> Stream:
        self.tried.append(host)
        self.sources.append(local_address)
        if host not in self.ports:
            raise ConnectionRefusedError(111, "Connection refused")
        return await TcpConnector().connect("127.0.0.1", self.ports[host])


def relay_to(
    *peers: Peer | None,
    content: Contents | None = None,
    terms: Forwarding | None = None,
    credentials: Mapping[str, Credentials] | None = None,
    tls: ClientTls = TLS,
    pool_limit: int = 0,
    clock: FakeClock | None = None,
    **timeouts: float,
) -> tuple[Relay, Ports]:
    """A relay for there.test, whose MX hosts are the peers in order; None is a host that does not answer."""
    ports = Ports({f"192.0.2.{number}": each.port for number, each in enumerate(peers, 1) if each is not None})
    mx = tuple(MxHost(number, f"mx{number}.test") for number in range(1, len(peers) + 1))
    terms = terms or Forwarding()
    router = Router(
        resolver=FakeResolver({"there.test": mx}, ADDRESSES),
        explicit=terms.next_hop,
        hostname="mx.here.test",
        port=25,
        allow_private=True,
        random=FakeRandom(),
    )
    clock = clock or FakeClock()
    limits: dict[str, Any] = {"quit_s": 1.0, **timeouts}
    relay = Relay(
        router=router,
        dialer=Dialer(connector=ports, timeouts=SmtpTimeouts(**limits), tls=tls),
        content=content or Contents(),  # type: ignore[arg-type]
        clock=clock,
        hello_name="mx.here.test",
        hosts=DeadHosts(clock),
        pool=Pool(clock, limit=pool_limit),
        terms=terms,
        credentials=credentials or {},
    )
    return relay, ports


def session_to(*peers: Peer | None, content: Contents | None = None) -> RelaySession:
    return relay_to(*peers, content=content)[0].session(THERE)


async def attempt(*peers: Peer | None, rows: tuple[SpoolRow, ...] = (), **options: Any) -> Attempt:
    """One message of a claim, from its beginning to its end."""
    return await attempt_in(relay_to(*peers, **options)[0].session(THERE), rows)


async def attempt_in(session: RelaySession, rows: tuple[SpoolRow, ...] = ()) -> Attempt:
    """As the runner: until all have an outcome; it is shown in the order of `rows`."""
    rows = rows or (a_row("bob"), a_row("eve", recipient_number=1))
    outcomes: dict[int, Outcome] = {}
    try:
        while left := tuple(row for row in rows if row.recipient_number not in outcomes):
            done = await session.attempt(left)
            assert done.rows
            outcomes |= {row.recipient_number: each for row, each in zip(done.rows, done.outcomes, strict=True)}
    finally:
        await session.close()
    return replace(done, rows=rows, outcomes=tuple(outcomes[row.recipient_number] for row in rows))


def kinds(done: Attempt) -> list[type[Outcome]]:
    return [type(outcome) for outcome in done.outcomes]
