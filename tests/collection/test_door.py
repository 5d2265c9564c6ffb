"""Into a server that strips, injects, lies or has a wrong certificate: the password is never said."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from base64 import b64encode
from pathlib import Path

import pytest

from posthouse.collection.door import Login, LoginRefused, NotReached, connect, enter
from posthouse.mail.address import parse_address
from posthouse.mail.ids import AccountId
from posthouse.mail.source import Mechanism, Protection, Server, SourceSettings
from posthouse.net.connect import TcpConnector
from posthouse.net.pop3_connection import Pop3Failed
from posthouse.net.stream import Stream
from posthouse.net.tls import client_context
from tests.net.authority import Authority
from tests.scripted_peer import Close, Expect, Hang, Raw, ScriptedPeer, Send, StartTls, Step, scripted_peer

SECRET = "open sesame"
ADA = Login("ada", SECRET)
WITH_TOKEN = Login("ada", "t0ken")
GREETING = Send("+OK hello")
CAPA = (Expect("CAPA"), Send("+OK", "TOP", "UIDL", "."))
IN = (Expect("USER ada"), Send("+OK"), Expect(f"PASS {SECRET}"), Send("+OK in"))


def settings(port: int, protection: Protection, mechanism: Mechanism = Mechanism.PASSWORD) -> SourceSettings:
    return SourceSettings(
        address=parse_address("ada@provider.test"),
        account=AccountId(1),
        server=Server("127.0.0.1", port, protection),
        login="ada",
        secret="file:x",
        mechanism=mechanism,
    )


async def said(protection: Protection, *steps: Step, context: ssl.SSLContext | None = None) -> tuple[str, ScriptedPeer]:
    """Why there is no way in, and what the server heard."""
    async with scripted_peer(*steps) as peer:
        trust = context or client_context(verified=True)
        with pytest.raises((NotReached, Pop3Failed)) as refused:
            await enter(settings(peer.port, protection), ADA, TcpConnector(), trust)
    for heard in peer.received:
        assert SECRET.encode() not in heard
        assert b"ada" not in heard
    return str(refused.value), peer


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def trust(authority: Authority) -> ssl.SSLContext:
    return client_context(verified=True, authorities=authority.file)


@pytest.mark.parametrize("protection", [Protection.STARTTLS, Protection.IMPLICIT])
async def test_a_right_certificate_lets_in(authority: Authority, trust: ssl.SSLContext, protection: Protection) -> None:
    begin = StartTls(authority.server("127.0.0.1"))
    steps: tuple[Step, ...] = (begin, GREETING)
    if protection is Protection.STARTTLS:
        steps = (GREETING, Expect("STLS"), Send("+OK begin"), begin)
    async with scripted_peer(*steps, *IN, *CAPA, Hang()) as peer:
        connection, capabilities = await enter(settings(peer.port, protection), ADA, TcpConnector(), trust)
        assert capabilities.has("UIDL")
        connection.stream.abort()
    peer.check()


@pytest.mark.conformance("C271")
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param((Send("-ERR no"), Hang()), id="refused"),
        pytest.param((Send("-ERR unknown command"), Hang()), id="stripped"),
        pytest.param((Close(),), id="closed"),
        pytest.param((Raw(b"+OK begin\r\n+OK already in\r\n"), Hang()), id="injected"),
        pytest.param((Send("+OK begin"), Raw(b"+OK no TLS here\r\n" * 10), Hang()), id="no TLS"),
        pytest.param((Send("+OK begin"), Close()), id="closed before the handshake"),
    ],
)
async def test_tls_that_does_not_begin_gets_no_password(steps: tuple[Step, ...], trust: ssl.SSLContext) -> None:
    await said(Protection.STARTTLS, GREETING, Expect("STLS"), *steps, context=trust)


@pytest.mark.conformance("C271")
@pytest.mark.parametrize("fault", ["another name", "expired", "nobody's", "not begun"])
@pytest.mark.parametrize("protection", [Protection.STARTTLS, Protection.IMPLICIT])
async def test_a_wrong_certificate_gets_no_password(
    authority: Authority, trust: ssl.SSLContext, tmp_path: Path, fault: str, protection: Protection
) -> None:
    names = ("localhost",) if fault == "another name" else ("127.0.0.1",)
    begins = {"expired": -20.0, "not begun": 1.0}.get(fault, -1.0)
    server = authority.server(*names, begins_days=begins)
    if fault == "nobody's":
        (tmp_path / "other").mkdir()
        trust = client_context(verified=True, authorities=Authority(tmp_path / "other").file)
    steps: tuple[Step, ...] = (StartTls(server), Hang())
    if protection is Protection.STARTTLS:
        steps = (GREETING, Expect("STLS"), Send("+OK begin"), *steps)
    why, _ = await said(protection, *steps, context=trust)
    assert "cannot be protected" in why


@pytest.mark.conformance("C270")
@pytest.mark.parametrize(
    "greeting",
    [
        pytest.param((Send("-ERR go away"), Hang()), id="-ERR"),
        pytest.param((Raw(b"hello?\r\n"), Hang()), id="garbage"),
        pytest.param((Raw(b"+OK" + b"x" * 2_000_000), Hang()), id="endless"),
        pytest.param((Raw(b"+OK hello\n"), Close()), id="no CRLF"),
        pytest.param((Raw(b"+OK hello\r\n+OK in already\r\n"), Hang()), id="two lines"),
        pytest.param((Close(),), id="nothing"),
    ],
)
async def test_a_greeting_that_is_none_is_an_error(greeting: tuple[Step, ...]) -> None:
    await said(Protection.NONE, *greeting)


class Elsewhere(TcpConnector):
    """Every name leads to this machine, and says that it does not."""

    async def connect(self, host: str, port: int, *, local_address: str | None = None) -> Stream:
        stream = await super().connect("127.0.0.1", port)
        type(self).opened = stream
        return stream

    opened: Stream


async def test_a_password_in_clear_stays_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted_peer(GREETING, Hang()) as peer:
        far = settings(peer.port, Protection.NONE)
        far = dataclasses.replace(far, server=dataclasses.replace(far.server, host="pop.provider.test"))
        monkeypatch.setattr(Stream, "peer_address", property(lambda _stream: "192.0.2.1"))
        with pytest.raises(NotReached, match="no password is sent to it in clear"):
            await connect(far, Elsewhere(), client_context(verified=True))
    assert not any(peer.received)


@pytest.mark.parametrize(
    ("mechanism", "token", "last"),
    [
        (Mechanism.XOAUTH2, b"user=ada\x01auth=Bearer t0ken\x01\x01", ""),
        (Mechanism.OAUTHBEARER, b"n,a=ada,\x01auth=Bearer t0ken\x01\x01", "AQ=="),
    ],
)
async def test_a_token_goes_in_two_steps(mechanism: Mechanism, token: bytes, last: str) -> None:
    begin = (GREETING, Expect(f"AUTH {mechanism.upper()}"), Send("+ "), Expect(b64encode(token).decode()))
    async with scripted_peer(*begin, Send("+OK in"), *CAPA, Hang()) as peer:
        connection, _ = await enter(
            settings(peer.port, Protection.NONE, mechanism), WITH_TOKEN, TcpConnector(), client_context(verified=True)
        )
        connection.stream.abort()
    peer.check()
    refusal = (Send("+ eyJzdGF0dXMiOiI0MDEifQ=="), Expect(last), Send("-ERR [AUTH] the token is old"))
    async with scripted_peer(*begin, *refusal, Hang()) as peer:
        with pytest.raises(LoginRefused, match="the token is old") as refused:
            await enter(
                settings(peer.port, Protection.NONE, mechanism),
                WITH_TOKEN,
                TcpConnector(),
                client_context(verified=True),
            )
    assert refused.value.certain
    peer.check()


async def test_a_token_that_no_server_could_read_is_not_sent() -> None:
    async with scripted_peer(GREETING, Hang()) as peer:
        with pytest.raises(LoginRefused, match="no token has") as refused:
            await enter(
                settings(peer.port, Protection.NONE, Mechanism.XOAUTH2),
                Login("ada", "two words"),
                TcpConnector(),
                client_context(verified=True),
            )
    assert not refused.value.certain
    assert not any(peer.received)


async def test_a_server_that_is_silent_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_given: object, **_named: object) -> Stream:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr("posthouse.collection.door.CONNECT_TIMEOUT_S", 0.01)
    monkeypatch.setattr(TcpConnector, "connect", never)
    with pytest.raises(NotReached, match="does not answer"):
        await connect(settings(1, Protection.NONE), TcpConnector(), client_context(verified=True))
