"""TLS at the SMTP doors: what is slipped in around STARTTLS, what is no mail at all, and mail without TLS."""

from __future__ import annotations

import poplib
import smtplib
import ssl
import time
from collections.abc import Callable, Iterator

import pytest

from posthouse.doors import SELF_SIGNED
from posthouse.net.tls import make_self_signed
from tests.house.wire import Wire
from tests.net.test_client_hello import hello
from tests.running_house import PASSWORD, RunningHouse

DOORS = ("smtp", "submission", "submissions", "pop3", "pop3s")
CLEAR, PROTECTED = ("smtp", "submission", "pop3"), ("submissions", "pop3s")
LETTER = b"Subject: hi\r\n\r\nhello\r\n"
INJECTED = b"EHLO injected.test\r\n"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    folder = tmp_path_factory.mktemp("house")
    make_self_signed("mx.here.test", folder / SELF_SIGNED[0], folder / SELF_SIGNED[1], time.time())
    with RunningHouse(
        folder, auth={"allow_cleartext": False}, listen={door: ["127.0.0.1:0", "[::1]:0"] for door in DOORS}
    ) as house:
        yield house


@pytest.fixture
def tls(house: RunningHouse) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=house.config.data_dir / SELF_SIGNED[0])


def still_open(house: RunningHouse) -> None:
    """Whatever happened, the next client is served."""
    with Wire(house.ports["smtp"]).greet() as wire:
        wire.deliver(LETTER, "bob@here.test")


def in_one_segment(wire: Wire) -> None:
    wire.send(b"STARTTLS\r\n" + INJECTED)


def with_the_hello_in_one_segment(wire: Wire) -> None:
    wire.send(b"STARTTLS\r\n" + hello())


def before_the_hello(wire: Wire) -> None:
    assert wire.say("STARTTLS").startswith(b"220 ")
    wire.send(INJECTED + hello())


def behind_the_hello(wire: Wire) -> None:
    assert wire.say("STARTTLS").startswith(b"220 ")
    wire.send(hello() + INJECTED)


def inside_the_hello(wire: Wire) -> None:
    assert wire.say("STARTTLS").startswith(b"220 ")
    octets = hello()
    wire.send(octets[:60] + INJECTED + octets[60:])


def a_beginning_of_a_line(wire: Wire) -> None:
    wire.send(b"STARTTLS\r\nMAI")


@pytest.mark.conformance("C140", "C280", "C311", "S3")
@pytest.mark.parametrize("door", ["smtp", "submission"])
@pytest.mark.parametrize(
    "inject",
    [
        in_one_segment,
        with_the_hello_in_one_segment,
        before_the_hello,
        behind_the_hello,
        inside_the_hello,
        a_beginning_of_a_line,
    ],
)
def test_what_is_slipped_in_ends_the_session(house: RunningHouse, door: str, inject: Callable[[Wire], None]) -> None:
    with Wire(house.ports[door]).greet() as wire:
        inject(wire)
        rest = wire.rest()
    # In clear there may be a refusal, and TLS may begin; no command is ever answered.
    assert b"injected" not in rest
    assert b"250" not in rest
    still_open(house)


@pytest.mark.conformance("C280", "C311", "S3")
def test_lines_that_come_one_by_one_are_not_kept_over_the_handshake(house: RunningHouse, tls: ssl.SSLContext) -> None:
    """The whole of STARTTLS in two writes, octets of the next line before our 220 is read: refused or never seen."""
    with Wire(house.ports["smtp"]).greet() as wire:
        wire.send(b"START")
        wire.send(b"TLS\r\n")
        assert wire.reply().startswith(b"220 ")
        wire.start_tls(tls)
        # The first reply is the one to NOOP: nothing else was answered.
        assert wire.say("NOOP") == b"250 2.0.0 OK"
        assert wire.say("MAIL FROM:<a@far.test>").startswith(b"503 ")
        assert wire.say("EHLO client.test").startswith(b"250 ")


@pytest.mark.conformance("C142")
def test_mail_for_us_needs_no_tls(house: RunningHouse) -> None:
    with Wire(house.ports["smtp"]) as wire:
        assert wire.reply().startswith(b"220 ")
        assert wire.say("HELO client.test").startswith(b"250 ")
        wire.deliver(LETTER, "bob@here.test")


@pytest.mark.conformance("C296")
@pytest.mark.parametrize("door", CLEAR)
@pytest.mark.parametrize(
    "octets",
    [b"GET / HTTP/1.1\r\nHost: mx.here.test\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", hello(), hello(protocols=("h2",))],
    ids=["HTTP", "SSH", "TLS", "TLS with h2"],
)
def test_other_protocols_at_a_clear_door(house: RunningHouse, door: str, octets: bytes) -> None:
    with Wire(house.ports[door]) as wire:
        wire.line()
        wire.send(octets)
        wire.end()
        answers = wire.rest().split(b"\r\n")[:-1]
    # A ClientHello may hold no line at all.
    assert answers or octets[:1] == b"\x16"
    assert all(line.startswith((b"5", b"421 ", b"-ERR")) for line in answers), answers
    still_open(house)


@pytest.mark.conformance("C296")
@pytest.mark.parametrize("door", PROTECTED)
@pytest.mark.parametrize(
    "octets", [b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", b"EHLO x\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 30_000]
)
def test_other_protocols_at_a_door_with_tls(house: RunningHouse, door: str, octets: bytes) -> None:
    with Wire(house.ports[door]) as wire:
        wire.send(octets)
        # An alert at most.
        assert wire.rest()[:1] in (b"", b"\x15")
    still_open(house)


@pytest.mark.conformance("C296", "S31")
@pytest.mark.parametrize("door", ["submissions", "pop3s", "smtp", "submission"])
def test_a_browser_is_refused_by_its_protocols(house: RunningHouse, tls: ssl.SSLContext, door: str) -> None:
    tls.set_alpn_protocols(["h2", "http/1.1"])
    with Wire(house.ports[door]) as wire:
        if door in CLEAR:
            wire.greet()
            assert wire.say("STARTTLS").startswith(b"220 ")
        with pytest.raises(ssl.SSLError, match=r"(?i)no application protocol"):
            wire.start_tls(tls)
    still_open(house)


@pytest.mark.conformance("S31", "C297")
def test_a_session_of_one_door_is_not_resumed_at_another(house: RunningHouse, tls: ssl.SSLContext) -> None:
    with Wire(house.ports["submissions"], tls=tls) as wire:
        assert wire.reply().startswith(b"220 ")
        assert isinstance(wire.socket, ssl.SSLSocket)
        session = wire.socket.session
    assert session is not None
    for door, resumed in (("submissions", True), ("pop3s", False)):
        with Wire(house.ports[door]) as other:
            protected = tls.wrap_socket(other.socket, server_hostname="mx.here.test", session=session)
            with protected:
                assert protected.recv(4) in (b"220 ", b"+OK ")
                assert protected.session_reused is resumed
    with Wire(house.ports["smtp"]).greet() as other:
        assert other.say("STARTTLS").startswith(b"220 ")
        with tls.wrap_socket(other.socket, server_hostname="mx.here.test", session=session) as protected:
            assert not protected.session_reused


def port6(house: RunningHouse, door: str) -> int:
    """A door's port on ::1."""
    (endpoint,) = (end for end in house.house.endpoints[door] if end.host == "::1")
    assert str(endpoint) == f"[::1]:{endpoint.port}"
    return endpoint.port


def test_every_door_over_ipv6(house: RunningHouse, tls: ssl.SSLContext) -> None:
    tls.check_hostname = False
    with smtplib.SMTP("::1", port6(house, "smtp"), timeout=30) as client:
        client.starttls(context=tls)
        assert client.sendmail("a@[IPv6:2001:db8::1]", ["ada@here.test"], LETTER) == {}
    with smtplib.SMTP("::1", port6(house, "submission"), timeout=30) as client:
        assert client.ehlo("[IPv6:::1]")[0] == 250
    with smtplib.SMTP_SSL("::1", port6(house, "submissions"), timeout=30, context=tls) as client:
        client.login("ada@here.test", PASSWORD)
    clear = poplib.POP3("::1", port6(house, "pop3"), timeout=30)
    assert clear.getwelcome().startswith(b"+OK")
    clear.close()
    reader = poplib.POP3_SSL("::1", port6(house, "pop3s"), timeout=30, context=tls)
    reader.user("ada@here.test")
    reader.pass_(PASSWORD)
    assert b"([IPv6:::1])" in b"".join(reader.retr(1)[1])
    reader.close()
    assert '"peer": "::1"' in house.log.getvalue()
