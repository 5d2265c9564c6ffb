"""The outgoing POP3 connection against scripted servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from posthouse.net.connect import TcpConnector
from posthouse.net.pop3_connection import Pop3Connection, Pop3Failed
from tests.scripted_peer import Close, Drip, Expect, Hang, Raw, Reset, ScriptedPeer, Send, Step, scripted_peer

LOGIN = (Send("+OK hello"), Expect("USER me"), Send("+OK"), Expect("PASS hunter2"), Send("+OK in"))


@asynccontextmanager
async def connected(
    *steps: Step, timeout_s: float = 5.0, lines: list[str] | None = None
) -> AsyncIterator[tuple[Pop3Connection, ScriptedPeer]]:
    """A connection that is not started yet; `lines` takes the dialogue."""
    async with scripted_peer(*steps) as peer:
        stream = await TcpConnector().connect("127.0.0.1", peer.port)
        told = lines if lines is not None else []
        try:
            yield (
                Pop3Connection(
                    stream,
                    timeout_s=timeout_s,
                    message_timeout_s=timeout_s,
                    trace=lambda who, line: told.append(f"{who}: {line}"),
                ),
                peer,
            )
        finally:
            stream.abort()


@asynccontextmanager
async def logged_in(*steps: Step, timeout_s: float = 5.0) -> AsyncIterator[tuple[Pop3Connection, ScriptedPeer]]:
    async with connected(*LOGIN, *steps, timeout_s=timeout_s) as (ours, peer):
        await ours.start()
        await ours.login("me", "hunter2")
        yield ours, peer


async def test_a_whole_session() -> None:
    lines: list[str] = []
    steps = (
        *LOGIN,
        *(Expect("LIST"), Send("+OK", "1 12", "2 5", ".")),
        *(Expect("UIDL"), Send("+OK", "1 a", "2 b", ".")),
        *(Expect("RETR 1"), Send("+OK", "a: b", "", "..dot", ".")),
        *(Expect("DELE 1"), Send("+OK")),
        *(Expect("QUIT"), Send("+OK bye"), Hang()),
    )
    async with connected(*steps, lines=lines) as (ours, peer):
        await ours.start()
        await ours.login("me", "hunter2")
        assert await ours.sizes() == {1: 12, 2: 5}
        assert await ours.uidls() == {1: "a", 2: "b"}
        assert b"".join([chunk async for chunk in ours.retrieve(1)]) == b"a: b\r\n\r\n.dot\r\n"
        await ours.delete(1)
        await ours.quit()
        assert ours.stream.is_lost
    peer.check()
    assert "C: PASS (secret)" in lines
    assert not any("hunter2" in line for line in lines)


@pytest.mark.parametrize(
    "steps",
    [
        (Send("-ERR busy"), Hang()),
        (Raw(b"HTTP/1.1 400\r\n"), Hang()),
        (Raw(b"+OK" + b"x" * 100_000), Hang()),
        (Raw(b"+O"), Close()),
        (Reset(),),
        (Hang(),),
        (Drip(b"+OK " + b"x" * 300, 0.005), Hang()),
    ],
)
async def test_sessions_that_never_begin(steps: tuple[Step, ...]) -> None:
    async with connected(*steps, timeout_s=0.1) as (ours, _peer):
        with pytest.raises(Pop3Failed):
            await ours.start()


async def test_a_refused_login_says_why() -> None:
    steps = (*LOGIN[:4], Send("-ERR [IN-USE] somebody reads"), Hang())
    async with connected(*steps) as (ours, _peer):
        await ours.start()
        with pytest.raises(Pop3Failed) as raised:
            await ours.login("me", "hunter2")
    assert raised.value.code == "IN-USE"


@pytest.mark.parametrize(("name", "password"), [("me\r\nDELE 1", "x"), ("me", "a\nb"), ("me", ""), ("", "x")])
@pytest.mark.conformance("S19")
async def test_a_login_that_cannot_be_sent(name: str, password: str) -> None:
    async with connected(Send("+OK"), Hang()) as (ours, peer):
        await ours.start()
        with pytest.raises(Pop3Failed, match="cannot log in"):
            await ours.login(name, password)
    assert peer.octets == b""


@pytest.mark.parametrize(
    "steps",
    [
        (Raw(b"+OK\r\na: b\r\n"), Close()),
        (Raw(b"+OK\r\na: b\r\n."), Reset()),
        (Raw(b"+OK\r\na: b\r\n.\r"), Hang()),
        (Send("+OK"), Drip(b"x" * 1000, 0.002), Hang()),
    ],
)
async def test_a_message_that_breaks_off_is_never_whole(steps: tuple[Step, ...]) -> None:
    async with logged_in(Expect("RETR"), *steps, timeout_s=0.15) as (ours, _peer):
        with pytest.raises(Pop3Failed):
            async for _chunk in ours.retrieve(1):
                pass
        assert ours.stream.is_lost


async def test_who_stops_in_a_message_loses_the_connection() -> None:
    """Else the rest of it could be taken for the answer to the next command."""
    async with logged_in(Expect("RETR"), Send("+OK", "+OK deleted"), Hang()) as (ours, _peer):
        message = ours.retrieve(1)
        assert await anext(message)
        await message.aclose()
        assert ours.stream.is_lost
        with pytest.raises(Pop3Failed):
            await ours.delete(1)


async def test_a_farewell_that_is_refused_closes_too() -> None:
    async with logged_in(Expect("QUIT"), Send("-ERR [SYS/TEMP] not deleted"), Hang()) as (ours, _peer):
        with pytest.raises(Pop3Failed) as raised:
            await ours.quit()
        assert raised.value.code == "SYS/TEMP"
        assert ours.stream.is_lost
