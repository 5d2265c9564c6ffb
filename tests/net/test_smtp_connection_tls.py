"""The outgoing connection and TLS: nothing said in clear is believed, and each way to fail has its own name."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from posthouse.net.smtp_connection import (
    ConnectionFailed,
    HandshakeFailed,
    LoginImpossible,
    PeerUntrusted,
    SmtpTimeouts,
    TlsNotOffered,
    TlsRefused,
)
from posthouse.net.tls import CertificateUnusable, client_context
from tests.net.authority import Authority
from tests.net.test_smtp_connection import MAIL, connected, content
from tests.scripted_peer import (
    Close,
    Expect,
    Hang,
    Raw,
    Reset,
    Send,
    StartTls,
    Step,
    TakeContent,
    TakeOctets,
)

OFFERED = (
    Send("220 peer.test"),
    Expect("EHLO house.test"),
    Send("250-peer.test", "250-AUTH PLAIN LOGIN", "250-LIMITS MAILMAX=1", "250 STARTTLS"),
)
ASKED = (*OFFERED, Expect("STARTTLS"))
AGREED = (*ASKED, Send("220 2.0.0 go"))
HELLO_INSIDE = (Expect("EHLO house.test"), Send("250-peer.test", "250 AUTH PLAIN"))


@pytest.fixture(scope="session")
def anybody() -> ssl.SSLContext:
    return client_context(verified=False)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def strict(authority: Authority) -> ssl.SSLContext:
    return client_context(verified=True, authorities=authority.file)


@pytest.mark.conformance("C141", "C144", "C176", "S4")
async def test_starttls_and_everything_anew(server_tls: ssl.SSLContext, anybody: ssl.SSLContext) -> None:
    login = (Expect("AUTH PLAIN"), Send("235 welcome"), Expect("QUIT"), Send("221 bye"), Hang())
    async with connected(*AGREED, StartTls(server_tls), *HELLO_INSIDE, *login) as (ours, peer):
        await ours.start()
        assert ours.limits.mail_max == 1
        assert (await ours.start_tls(anybody, "peer.test")).code == 250
        assert ours.extensions == {"AUTH": "PLAIN"}
        assert ours.limits.mail_max is None
        assert ours.tls is not None
        assert ours.tls.version == "TLSv1.3"
        assert not ours.tls.verified
        assert (await ours.login("ada", "tell-nobody")).code == 235
        await ours.quit()
    peer.check()
    facts = f"C: (TLS 1.3, {ours.tls.cipher}, certificate not checked)"
    assert ours.transcript[6:9] == ["C: STARTTLS", "S: 220 2.0.0 go", facts]
    # The command left alone, and behind it came nothing but the handshake.
    assert peer.octets.startswith(b"EHLO house.test\r\nSTARTTLS\r\nEHLO house.test\r\nAUTH PLAIN ")


@pytest.mark.conformance("C141", "S4", "S5")
@pytest.mark.parametrize(
    "injected",
    [
        b"220 go\r\n250-AUTH PLAIN LOGIN\r\n250 SIZE\r\n",
        b"220 go\r\n250-SIZE",
        b"220 go\r\n2",
        b"220-go\r\n220 go\r\n235 welcome\r\n",
        b"220 go\r\n" + b"\x16\x03\x03\x00\x7a",
    ],
)
async def test_octets_before_the_handshake(injected: bytes, anybody: ssl.SSLContext) -> None:
    """CVE-2021-38371 and its like, also a line that has no end yet."""
    async with connected(*ASKED, Raw(injected), Hang()) as (ours, peer):
        await ours.start()
        with pytest.raises(HandshakeFailed, match="before the handshake"):
            await ours.start_tls(anybody, "peer.test")
        assert ours.stream.is_lost
        assert not ours.may_carry_another
    assert peer.octets == b"EHLO house.test\r\nSTARTTLS\r\n"


@pytest.mark.conformance("S5")
@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ((*OFFERED[:2], Send("250-x", "250 AUTH PLAIN")), TlsNotOffered),
        ((*OFFERED[:2], Send("250-x", "250-AUTH PLAIN", "250 STARTTLSX")), TlsNotOffered),
        ((*ASKED, Send("454 4.7.0 later")), TlsRefused),
        ((*ASKED, Send("502 what")), TlsRefused),
        ((*ASKED, Send("599 odd")), TlsRefused),
    ],
)
async def test_stripped_of_tls_there_is_no_login(
    steps: tuple[Step, ...], error: type[ConnectionFailed], anybody: ssl.SSLContext
) -> None:
    """The connection is as it was; what to do in clear is the caller's to say, but no password goes over it."""
    after = (Expect("MAIL"), Send("550 no"), Hang())
    async with connected(*steps, *after) as (ours, peer):
        await ours.start()
        with pytest.raises(error) as raised:
            await ours.start_tls(anybody, "peer.test")
        assert (raised.value.reply is not None) == (error is TlsRefused)
        with pytest.raises(LoginImpossible, match="in clear"):
            await ours.login("ada", "tell-nobody")
        assert ours.tls is None
        assert ours.may_carry_another
        assert (await ours.deliver(MAIL, content())).mail.code == 550
    peer.check()
    assert b"AUTH" not in peer.octets


@pytest.mark.conformance("S5")
@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ((*ASKED, Send("354 go"), Hang()), "broke the protocol"),
        ((*ASKED, Close()), "closed the connection"),
        ((*ASKED, Reset()), "closed the connection"),
        ((*ASKED, Send("421 bye"), Close()), ""),
        ((*AGREED, TakeOctets(50), Send("250-AUTH PLAIN", "250 what"), Hang()), "its answer is not TLS"),
        ((*AGREED, TakeOctets(50), Reset()), "reset the connection"),
        ((*AGREED, TakeOctets(50), Close()), "connection|handshake"),
        ((*AGREED, Hang()), "in time"),
        ((*AGREED, TakeOctets(50), Raw(b"\x15\x03\x03\x00\x02\x02\x28"), Close()), "no cipher suite"),
        ((*AGREED, TakeOctets(50), Raw(b"\x15\x03\x03\x00\x02\x02\x46"), Close()), "no version of TLS"),
    ],
)
async def test_handshakes_that_fail(steps: tuple[Step, ...], text: str, anybody: ssl.SSLContext) -> None:
    timeouts = SmtpTimeouts(handshake_s=0.3)
    async with connected(*steps, timeouts=timeouts) as (ours, peer):
        await ours.start()
        error = TlsRefused if not text else HandshakeFailed
        with pytest.raises(error, match=text or None):
            await ours.start_tls(anybody, "peer.test")
        assert not ours.may_carry_another
        if text:
            assert ours.stream.is_lost
            assert any(line.startswith("C: (TLS failed: ") for line in ours.transcript)
        with pytest.raises(LoginImpossible):
            await ours.login("ada", "tell-nobody")
    assert b"AUTH" not in peer.octets


async def test_a_server_that_leaves_after_the_handshake(server_tls: ssl.SSLContext, anybody: ssl.SSLContext) -> None:
    """With TLS 1.3 that is how it says that it did not like ours."""
    async with connected(*AGREED, StartTls(server_tls), Close()) as (ours, _peer):
        await ours.start()
        with pytest.raises(HandshakeFailed, match="after the handshake"):
            await ours.start_tls(anybody, "peer.test")


async def test_a_server_that_refuses_ehlo_after_the_handshake(
    server_tls: ssl.SSLContext, anybody: ssl.SSLContext
) -> None:
    async with connected(*AGREED, StartTls(server_tls), Expect("EHLO"), Send("521 no"), Hang()) as (ours, _peer):
        await ours.start()
        with pytest.raises(ConnectionFailed) as raised:
            await ours.start_tls(anybody, "peer.test")
        assert not isinstance(raised.value, HandshakeFailed)
        assert raised.value.reply is not None


@pytest.mark.parametrize("name", ["a" * 64 + ".test", "", ".", "a..b"])
async def test_a_name_that_no_certificate_can_have(
    name: str, server_tls: ssl.SSLContext, strict: ssl.SSLContext
) -> None:
    async with connected(*AGREED, StartTls(server_tls), Hang()) as (ours, _peer):
        await ours.start()
        with pytest.raises(HandshakeFailed):
            await ours.start_tls(strict, name)


@pytest.mark.conformance("C145")
@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (("mx.peer.test",), "mx.peer.test"),
        (("mx.peer.test",), "MX.Peer.Test."),
        (("other.test", "mx.peer.test"), "mx.peer.test"),
        (("*.peer.test",), "mx.peer.test"),
        (("127.0.0.1",), "127.0.0.1"),
        (("127.0.0.1",), "[127.0.0.1]"),
        (("2001:db8::1",), "[IPv6:2001:db8::1]"),
    ],
)
async def test_servers_that_are_who_they_should_be(
    names: tuple[str, ...], asked: str, authority: Authority, strict: ssl.SSLContext
) -> None:
    context = authority.server(*names)
    async with connected(*AGREED, StartTls(context), *HELLO_INSIDE, Hang()) as (ours, _peer):
        await ours.start()
        await ours.start_tls(strict, asked)
        assert ours.tls is not None
        assert ours.tls.verified
        assert str(ours.tls).endswith("certificate checked")


BAD_SERVERS = [
    (("other.test",), {}, "mx.peer.test", "another name"),
    (("peer.test",), {}, "mx.peer.test", "another name"),
    (("*.peer.test",), {}, "a.mx.peer.test", "another name"),
    (("*.test",), {}, "peer.other", "another name"),
    (("m*.peer.test",), {}, "mx.peer.test", "another name"),
    # RFC 9525 §6.1: the common name is no name of a server.
    ((), {"common_name": "mx.peer.test"}, "mx.peer.test", "another name"),
    (("127.0.0.2",), {}, "127.0.0.1", "another address"),
    (("mx.peer.test",), {}, "127.0.0.1", "another address"),
    (("mx.peer.test",), {"begins_days": -20}, "mx.peer.test", "has expired"),
    (("mx.peer.test",), {"begins_days": 2}, "mx.peer.test", "not valid yet"),
    (("mx.peer.test",), {"for_servers": False}, "mx.peer.test", "not meant for servers"),
]


@pytest.mark.conformance("C145")
@pytest.mark.parametrize(("names", "changes", "asked", "text"), BAD_SERVERS)
async def test_servers_that_are_not(
    names: tuple[str, ...],
    changes: dict[str, object],
    asked: str,
    text: str,
    authority: Authority,
    strict: ssl.SSLContext,
) -> None:
    context = authority.server(*names, **changes)  # type: ignore[arg-type]
    async with connected(*AGREED, StartTls(context), Hang()) as (ours, peer):
        await ours.start()
        with pytest.raises(HandshakeFailed, match=text):
            await ours.start_tls(strict, asked)
        assert ours.stream.is_lost
    assert peer.octets == b"EHLO house.test\r\nSTARTTLS\r\n"


@pytest.mark.conformance("C145")
async def test_certificates_of_nobody_we_know(
    server_tls: ssl.SSLContext, authority: Authority, strict: ssl.SSLContext
) -> None:
    """Self-signed, or by an authority that is not in the file, and not among those of the system."""
    by_system = client_context(verified=True)
    tried = [
        (server_tls, strict, "house.test", "self-signed"),
        (server_tls, by_system, "house.test", "self-signed"),
        (authority.server("mx.peer.test"), by_system, "mx.peer.test", "do not know"),
    ]
    for context, ours_tls, name, text in tried:
        async with connected(*AGREED, StartTls(context), Hang()) as (ours, _peer):
            await ours.start()
            with pytest.raises(HandshakeFailed, match=text):
                await ours.start_tls(ours_tls, name)


async def test_without_checking_any_of_them_will_do(authority: Authority, anybody: ssl.SSLContext) -> None:
    for names, changes, asked, _text in BAD_SERVERS:
        context = authority.server(*names, **changes)  # type: ignore[arg-type]
        async with connected(*AGREED, StartTls(context), *HELLO_INSIDE, Hang()) as (ours, _peer):
            await ours.start()
            await ours.start_tls(anybody, asked)
            assert ours.tls is not None
            assert not ours.tls.verified


async def test_tls_from_the_first_octet(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    steps = (StartTls(server_tls), *OFFERED[:2], Send("250-peer.test", "250 CHUNKING"), Hang())
    async with connected(*steps) as (ours, _peer):
        await ours.handshake(client_tls, "house.test")
        await ours.start()
        assert ours.tls is not None
        assert ours.tls.verified
    assert ours.transcript[0].startswith("C: (TLS 1.3, ")


@pytest.mark.parametrize("first", [(Send("220 in clear"), Hang()), (TakeOctets(20), Send("500 what"), Hang())])
async def test_a_server_in_clear_where_tls_should_be(first: tuple[Step, ...], anybody: ssl.SSLContext) -> None:
    async with connected(*first) as (ours, _peer):
        with pytest.raises(HandshakeFailed, match=r"not TLS|before the handshake"):
            await ours.handshake(anybody, "peer.test")


@pytest.mark.conformance("S5")
async def test_a_server_that_lets_us_in_without_knowing_the_password(
    server_tls: ssl.SSLContext, anybody: ssl.SSLContext
) -> None:
    steps = (Expect("EHLO"), Send("250-x", "250 AUTH SCRAM-SHA-256"), Expect("AUTH"), Send("235 welcome"), Hang())
    async with connected(*AGREED, StartTls(server_tls), *steps) as (ours, _peer):
        await ours.start()
        await ours.start_tls(anybody, "peer.test")
        with pytest.raises(PeerUntrusted):
            await ours.login("ada", "tell-nobody")
        assert ours.stream.is_lost


async def test_content_goes_inside(server_tls: ssl.SSLContext, anybody: ssl.SSLContext) -> None:
    steps = (Expect("EHLO"), Send("250 x"), Expect("MAIL"), Send("250 ok"), Expect("RCPT"), Send("250 ok"))
    data = (Expect("DATA"), Send("354 go"), TakeContent(), Send("250 taken"), Hang())
    async with connected(*AGREED, StartTls(server_tls), *steps, *data) as (ours, peer):
        await ours.start()
        await ours.start_tls(anybody, "peer.test")
        ended = await ours.deliver(MAIL, content(b"x\r\n" * 100_000))
        assert ended.final is not None
    peer.check()


def test_authorities_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "garbage.pem").write_text("nothing")
    for name, text in (("missing.pem", "does not exist"), ("garbage.pem", "holds no certificates")):
        with pytest.raises(CertificateUnusable, match=text):
            client_context(verified=True, authorities=tmp_path / name)
