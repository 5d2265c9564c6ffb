"""The proxy does the harm that it tells of, and no other."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator

import pytest

from posthouse.prove import proxy as proxy_module
from posthouse.prove.proxy import Harm, Link, Proxy
from posthouse.prove.wire import connected

MARK = re.compile(rb"END\r\n")


class Server:
    """Keeps what it hears, and answers each END with OK and its number."""

    def __init__(self) -> None:
        self.heard = b""
        self.ended = asyncio.Event()
        self.more = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered = 0
        try:
            while octets := await reader.read(65536):
                self.heard += octets
                self.more.set()
                while answered < self.heard.count(b"END\r\n"):
                    answered += 1
                    writer.write(b"OK %d\r\n" % answered)
        except ConnectionError:
            pass
        finally:
            self.ended.set()
            writer.close()

    async def until_heard(self, octets: bytes) -> None:
        """Returns when this is all that it heard."""
        while self.heard != octets:
            self.more.clear()
            await self.more.wait()


class Street:
    """A client's connection through a proxy to a server."""

    def __init__(self, link: Link, server: Server, happened: list[str]) -> None:
        self.link, self.server, self.happened = link, server, happened

    async def talk(self, octets: bytes) -> bytes:
        """Send, end, and return all that came back; `reset` is appended where the connection was broken."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        back = b""
        try:
            writer.write(octets)
            writer.write_eof()
            while came := await reader.read(65536):
                back += came
        except ConnectionError:
            back += b"reset"
        finally:
            writer.close()
        await self.server.ended.wait()
        return back

    port = 0


@pytest.fixture
async def street(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Street]:
    server, happened, link = Server(), [], Link(None)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    proxy = Proxy(listening.sockets[0].getsockname()[1], MARK, "way", happened.append)
    monkeypatch.setattr(Proxy, "_choose", lambda _self: link)
    monkeypatch.setattr(proxy_module, "DRIBBLED_OCTETS", 20)
    await proxy.open()
    street = Street(link, server, happened)
    street.port = proxy.port
    async with asyncio.timeout(20):
        yield street
    proxy.close()
    listening.close()


async def test_what_is_not_harmed_passes_whole(street: Street) -> None:
    assert await street.talk(b"x" * 300_000 + b"END\r\n") == b"OK 1\r\n"
    assert street.server.heard == b"x" * 300_000 + b"END\r\n"
    assert street.happened == []


@pytest.mark.parametrize(
    ("harm", "heard", "back"),
    [
        (Harm.LOSE_END, b"END\r\nabcEN", b"OK 1\r\n"),
        (Harm.LOSE_ANSWER, b"END\r\nabcEND\r\n", b"OK 1\r\n"),
        (Harm.TEAR_ANSWER, b"END\r\nabcEND\r\n", b"OK 1\r\nOK "),
        (Harm.STOP_AT_END, b"END\r\nabcEND\r\n", b"OK 1\r\nOK 2\r\n"),
    ],
)
async def test_harm_at_an_end(street: Street, harm: Harm, heard: bytes, back: bytes) -> None:
    street.link.harm, street.link.ends_before, street.link.after = harm, 1, 2
    # What is lost is lost for longer than an answer takes.
    street.link.stop_s = 0.2
    reader, writer = await asyncio.open_connection("127.0.0.1", street.port)
    # The first end comes in two parts, and passes.
    writer.write(b"EN")
    await street.server.until_heard(b"EN")
    writer.write(b"D\r\n")
    first = await reader.readline()
    writer.write(b"abcEND\r\n")
    assert first + await read_all(reader, b"OK 2\r\n") == back
    writer.close()
    await street.server.ended.wait()
    assert street.server.heard == heard
    assert street.happened == [f"way: {harm}"]


async def read_all(reader: asyncio.StreamReader, last: bytes) -> bytes:
    """Up to the end, or `last`."""
    octets = b""
    while not octets.endswith(last) and (came := await reader.read(100)):
        octets += came
    return octets


async def test_both_sides_are_reset_at_an_end(street: Street) -> None:
    street.link.harm = Harm.LOSE_BOTH
    assert b"OK" not in await street.talk(b"abcEND\r\n")
    assert street.happened == ["way: reset at the end"]


@pytest.mark.parametrize("harm", [Harm.CUT, Harm.RESET])
async def test_nothing_passes_after_the_octet(street: Street, harm: Harm) -> None:
    street.link.harm, street.link.after = harm, 4
    await street.talk(b"abcdefghEND\r\n")
    # (A reset may overtake what was on its way.)
    assert street.server.heard == b"abcd" if harm is Harm.CUT else b"abcd".startswith(street.server.heard)
    assert street.happened == [f"way: {harm} up"]


async def test_answers_are_cut_where_the_harm_is_downwards(street: Street) -> None:
    street.link.harm, street.link.after, street.link.down = Harm.CUT, 3, True
    assert await street.talk(b"END\r\n") == b"OK "
    assert street.happened == ["way: cut down"]


async def test_what_is_half_closed_is_still_answered(street: Street) -> None:
    street.link.harm, street.link.after = Harm.HALF_CLOSE, 5
    reader, writer = await asyncio.open_connection("127.0.0.1", street.port)
    writer.write(b"END\r\nabc")
    await street.server.until_heard(b"END\r\n")
    writer.write(b"END\r\n")
    writer.write_eof()
    assert await reader.read() == b"OK 1\r\n"
    writer.close()
    assert street.server.heard == b"END\r\n"


async def test_a_client_that_vanishes_is_gone_for_the_server_too(street: Street) -> None:
    async with connected(street.port) as wire:
        await wire.send(b"END\r\n")
        assert await wire.line() == b"OK 1"
    await street.server.ended.wait()


@pytest.mark.parametrize("harm", [Harm.STOP, Harm.DRIBBLE])
async def test_what_is_slow_arrives(street: Street, harm: Harm) -> None:
    street.link.harm, street.link.after = harm, 4
    sent = b"abc" * 100 + b"END\r\n"
    assert await street.talk(sent) == b"OK 1\r\n"
    assert street.server.heard == sent
    assert street.happened == [f"way: {harm} up"]


async def test_the_same_seed_harms_the_same_connections() -> None:
    def harms(seed: str) -> list[tuple[Harm | None, int]]:
        proxy = Proxy(1, MARK, "way", print)
        proxy.set_harm(0.5, seed)
        links = [proxy._choose() for _ in range(50)]
        return [(link.harm, link.after) for link in links]

    assert harms("a") == harms("a") != harms("b")
    assert {harm for harm, _ in harms("a") + harms("b") + harms("c")} == {None, *Harm}


async def test_what_is_reset_already_can_be_reset_again(street: Street) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", street.port)
    writer.write(b"END\r\n")
    assert await reader.readline() == b"OK 1\r\n"
    for _ in range(2):
        street.link.writers.append(writer)
        street.link.reset()
        await street.server.ended.wait()
        await asyncio.sleep(0)
    writer.close()
