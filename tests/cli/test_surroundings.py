"""What the machine and its network are like: nothing waits long, nothing is sent."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable

import pytest

from posthouse.cli import surroundings
from posthouse.cli.surroundings import name_of_machine, outgoing_addresses, port_25
from posthouse.net.dns import DnsResolver
from tests.dns_server import Fault, dns_server

MAIL = {("large.test", "MX"): ["10 mx.large.test."], ("mx.large.test", "A"): ["127.0.0.1"]}


async def test_port_25_is_open() -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, dns_server(MAIL) as names:
        port = server.sockets[0].getsockname()[1]
        found = await port_25(DnsResolver((names.address,)), domain="large.test", port=port)
        while not heard:
            await asyncio.sleep(0)
    assert found.state == "ok"
    assert heard == [b""]


async def test_port_25_is_closed_or_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        async with dns_server(MAIL) as names:
            found = await port_25(DnsResolver((names.address,)), domain="large.test", port=bound.getsockname()[1])
            assert (found.state, "routes = " in found.text) == ("problem", True)

            async def never(*_: object) -> None:
                await asyncio.Event().wait()

            monkeypatch.setattr(surroundings, "CONNECT_S", 0.01)
            monkeypatch.setattr(asyncio, "open_connection", never)
            assert (await port_25(DnsResolver((names.address,)), domain="large.test")).state == "problem"


@pytest.mark.parametrize("zone", [{}, {("large.test", "MX"): Fault.SERVFAIL}, {("large.test", "MX"): ["0 ."]}])
async def test_without_dns_port_25_is_not_judged(zone: dict[tuple[str, str], Fault | list[str]]) -> None:
    async with dns_server(zone) as names:
        found = await port_25(DnsResolver((names.address,)), domain="large.test")
    assert found.state == "unknown"


def resolved(name: str) -> Callable[[], str]:
    return lambda: name


@pytest.mark.parametrize(
    ("full", "known"),
    [("Box.here.test", "box.here.test"), ("box", None), ("localhost.localdomain", None), ("1.0.0.ip6.arpa", None)],
)
def test_the_machines_own_name(monkeypatch: pytest.MonkeyPatch, full: str, known: str | None) -> None:
    monkeypatch.setattr(socket, "getfqdn", resolved(full))
    assert name_of_machine() == known


def test_the_systems_resolver_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(socket, "getfqdn", lambda: str(go_on.wait(20)))
    monkeypatch.setattr(socket, "gethostname", resolved("box.here.test"))
    monkeypatch.setattr(surroundings, "NAME_S", 0.01)
    assert name_of_machine() == "box.here.test"
    go_on.set()


def test_the_addresses_of_this_machine_are_its_own() -> None:
    for address in outgoing_addresses():
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
