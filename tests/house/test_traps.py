"""What Python's own tools would get wrong on the wire, and who speaks another protocol: each told, or hung up on."""

from __future__ import annotations

import base64
import contextlib
import random
import re
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.doors import SELF_SIGNED
from posthouse.net.tls import make_self_signed
from tests.house.wire import Wire
from tests.running_house import PASSWORD, RunningHouse

ADA, BOB = "ada@here.test", "bob@here.test"
LETTER = b"Subject: hi\r\n\r\nhello\r\n"
DOORS = ("smtp", "submission", "submissions", "pop3", "pop3s")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    """One for all that guess no passwords."""
    yield from _open(tmp_path_factory.mktemp("house"))


@pytest.fixture
def house_of_its_own(tmp_path: Path) -> Iterator[RunningHouse]:
    yield from _open(tmp_path)


def _open(folder: Path) -> Iterator[RunningHouse]:
    """With every door, and with logins in clear."""
    make_self_signed("mx.here.test", folder / SELF_SIGNED[0], folder / SELF_SIGNED[1], time.time())
    listen = {door: ["127.0.0.1:0"] for door in DOORS}
    with RunningHouse(folder, listen=listen, reception={"sessions_per_address": 500, "errors": 1000}) as running:
        yield running
    # Whatever was said at its doors, no session failed in a way that nobody had thought of.
    assert '"level": "error"' not in running.log.getvalue()


def fetched(house: RunningHouse, person: str = BOB) -> list[bytes]:
    """All of a maildrop, which is empty after."""
    with _reader(house, person) as wire:
        messages = [wire.retrieve(number + 1) for number in range(len(wire.uidls()))]
        for number in range(len(messages)):
            assert wire.pop3(f"DELE {number + 1}").startswith(b"+OK")
        assert wire.pop3("QUIT").startswith(b"+OK")
    return messages


def _reader(house: RunningHouse, person: str) -> Wire:
    """Logged in, as soon as the house has noticed that the last reader has gone."""
    for _ in range(1000):
        wire = Wire(house.ports["pop3"])
        if (answer := wire.login(person)).startswith(b"+OK"):
            return wire
        assert b"[IN-USE]" in answer
        wire.socket.close()
    raise AssertionError("the maildrop stays locked")


# What `str.splitlines` and text mode take for the end of a line.

LINE_BREAKS = {
    "VT": b"\x0b",
    "FF": b"\x0c",
    "FS": b"\x1c",
    "GS": b"\x1d",
    "RS": b"\x1e",
    "US": b"\x1f",
    "NUL": b"\0",
    "SUB": b"\x1a",
    "NEL of Latin-1": b"\x85",
    "NEL": "\x85".encode(),
    "U+2028": "\u2028".encode(),
    "U+2029": "\u2029".encode(),
    "part of U+2028": "\u2028".encode()[:2],
}


@pytest.mark.conformance("C277", "C305")
@pytest.mark.parametrize("name", LINE_BREAKS)
def test_in_content_it_is_an_octet_like_any_other(house: RunningHouse, name: str) -> None:
    octets = LINE_BREAKS[name]
    dot = octets + b"." + octets
    smuggled = dot + b"MAIL FROM:<x@y.test>" + octets
    content = b"Subject: a" + octets + b"X-Grown: b\r\n\r\nc" + dot + b"\r\n" + dot + b"\r\n" + smuggled + b"\r\n"
    with Wire(house.ports["smtp"]).greet() as wire:
        wire.deliver(content, BOB)
        assert wire.say("RCPT TO:<bob@here.test>").startswith(b"503 ")
    (message,) = fetched(house)
    assert message.endswith(b"\r\n" + content)


@pytest.mark.conformance("C305")
@pytest.mark.parametrize("name", LINE_BREAKS)
def test_in_a_command_it_begins_no_other(house: RunningHouse, name: str) -> None:
    octets = LINE_BREAKS[name]
    with Wire(house.ports["smtp"]).greet() as wire:
        for start in (b"NOOP ", b"EHLO client.test", b"VRFY a", b"MAIL FROM:<a", b"MAIL FROM:<a@far.test> SIZE=1"):
            wire.send(start + octets + b"MAIL FROM:<> x@far.test>\r\nRCPT TO:<bob@here.test>\r\nHELO one.test\r\n")
            wire.reply()
            assert wire.reply()[:4] in (b"503 ", b"501 "), start  # no transaction was begun
            assert wire.reply().startswith(b"250 ")
    with Wire(house.ports["pop3"]) as wire:
        wire.line()
        wire.send(b"USER a" + octets + b"PASS b" + octets + b"\r\nSTAT" + octets + b"\r\nNOOP x\r\nQUIT\r\n")
        answers = wire.rest().split(b"\r\n")
        assert [answer[:3] for answer in answers] in (
            [b"+OK", b"-ER", b"-ER", b"+OK", b""],
            [b"-ER", b"-ER", b"-ER", b"+OK", b""],
        )


# What `int` takes for a number.

NO_NUMBERS = ("+1", "-1", "1_000", "1e3", "0x10", "１２", "١", "1.0", "", "9" * 25, "9" * 5000, "1,0", "¹")


@pytest.mark.conformance("C151", "C306", "S33")
@pytest.mark.parametrize("number", NO_NUMBERS, ids=lambda number: ascii(number[:12]))
def test_no_number_of_the_protocols(house: RunningHouse, number: str) -> None:
    with Wire(house.ports["smtp"]).greet() as wire:
        answer = wire.say(f"MAIL FROM:<a@far.test> SIZE={number}".encode())
        assert answer[:4] in (b"500 ", b"501 ", b"552 ", b"555 "), answer
        assert wire.say("RCPT TO:<bob@here.test>").startswith(b"503 ")
        assert wire.say("NOOP").startswith(b"250 ")
    with Wire(house.ports["smtp"]).greet().envelope(BOB) as wire:
        # How many octets follow is not known, so it may hang up.
        assert wire.say(f"BDAT {number}".encode())[:1] == b"5"
        wire.send(b"QUIT\r\n")
        assert re.fullmatch(rb"(421 [^\r\n]*\r\n|221 [^\r\n]*\r\n)?", wire.rest())
    with Wire(house.ports["smtp"]) as wire:
        wire.greet().deliver(LETTER, BOB)
    with Wire(house.ports["pop3"]) as wire:
        assert wire.login(BOB).startswith(b"+OK")
        for command in ("RETR {}", "DELE {}", "TOP {} 0", "TOP 1 {}", "LIST {}", "UIDL {}", "TOP {0} {0}"):
            if number or command.startswith(("RETR", "DELE", "TOP 1")):
                if "1 {}" in command and number in ("9" * 25, "9" * 5000):
                    continue  # more lines than there are: all of them, or a command too long
                assert wire.pop3(command.format(number).encode()).startswith(b"-ERR"), command
        assert wire.pop3("NOOP").startswith(b"+OK")
        assert wire.retrieve(1).endswith(LETTER)
        assert wire.pop3("QUIT").startswith(b"+OK")
    assert len(fetched(house)) == 1


@pytest.mark.conformance("C38", "C310")
@pytest.mark.parametrize("length", [2_000, 13_000, 60_000, 65_535, 65_536, 65_537, 100_000])
def test_a_line_too_long_is_told_once_or_ends_the_session(house: RunningHouse, length: int) -> None:
    """What `StreamReader.readline` leaves in its buffer would be taken for commands."""
    for door in ("smtp", "pop3"):
        with Wire(house.ports[door]) as wire:
            wire.reply() if door == "smtp" else wire.line()
            wire.send_in_pieces(b"NOOP " + b"QUIT " * (length // 5 - 1) + b"\r\nQUIT\r\n", 0)
            said = wire.rest()
        assert re.fullmatch(rb"(500 [^\r\n]+\r\n221 [^\r\n]+\r\n|(500|421) [^\r\n]+\r\n)?", said) or re.fullmatch(
            rb"(-ERR[^\r\n]*\r\n\+OK[^\r\n]*\r\n|-ERR[^\r\n]*\r\n)?", said
        ), said


@pytest.mark.conformance("C307", "S40")
def test_addresses_that_a_pattern_would_chew_on(house: RunningHouse) -> None:
    begun = time.process_time()
    with Wire(house.ports["smtp"]).greet() as wire:
        for path in (
            "a." * 200 + "@b.test",
            "a@" + "b." * 200,
            '"' + '\\"' * 100,
            "a@b.test\x0b",
            "@" * 200,
            "<" * 200,
        ):
            assert wire.say(f"MAIL FROM:<{path}>")[:1] == b"5", path
        for path in (b"a@b.test\n", b"a@b.test\n>", b"a.a." * 12_500 + b"@b.test"):
            assert wire.say(b"MAIL FROM:<" + path + b">")[:1] == b"5"
            assert wire.say("RCPT TO:<bob@here.test>").startswith(b"503 ")
    assert time.process_time() - begun < 5  # the house's own time included: it runs in this process


# Every command is answered.

_WORDS = (
    b"MAIL FROM:<a@far.test>",
    b"RCPT TO:<bob@here.test>",
    b"RCPT TO:<nobody@here.test>",
    b"DATA",
    b"RSET",
    b"NOOP",
)
_WORDS += (
    b"EHLO client.test",
    b"HELO x.test",
    b"VRFY bob",
    b"EXPN all",
    b"HELP",
    b"AUTH PLAIN",
    b"AUTH LOGIN",
    b"ETRN x",
)
_WORDS += (
    b"AUTH PLAIN AGFkYUBoZXJlLnRlc3QAd3Jvbmc=",
    b"AUTH SCRAM-SHA-256 biwsbj1hLHI9YQ==",
    b"AUTH NONE",
    b"HELP MAIL",
)
_POP3_WORDS = (
    b"USER bob@here.test",
    b"USER",
    b"PASS wrong",
    b"STAT",
    b"LIST",
    b"LIST 1",
    b"UIDL",
    b"UIDL 2",
    b"RETR 1",
)
_POP3_WORDS += (b"TOP 1 1", b"TOP", b"DELE 1", b"RSET", b"NOOP", b"CAPA", b"AUTH", b"AUTH PLAIN", b"APOP a b", b"LANG")
_POP3_WORDS += (b"LANG en", b"UTF8", b"XYZ", b"RETR 99")
_MULTI_LINE = re.compile(rb"(CAPA|LIST|UIDL|LANG|AUTH)\s*\Z|RETR |TOP ", re.IGNORECASE)


def _spoilt(chance: random.Random, line: bytes) -> bytes:
    """The line, mostly; else with octets in it that were not meant."""
    match chance.randrange(8):
        case 0:
            at = chance.randrange(len(line) + 1)
            return line[:at] + bytes([chance.choice([o for o in range(256) if o not in b"\r\n"])]) + line[at:]
        case 1:
            return line[: chance.randrange(len(line) + 1)]
        case 2:
            return line + b" " + chance.randbytes(chance.randrange(40)).replace(b"\r", b"").replace(b"\n", b"")
        case 3:
            return line.swapcase()
        case _:
            return line


def _smtp_dialogue(wire: Wire, chance: random.Random) -> None:
    stranger = base64.b64encode(b"\0%x\0wrong" % chance.getrandbits(64))
    wire.reply()
    for _ in range(60):
        answer = wire.say(_spoilt(chance, chance.choice(_WORDS).replace(b"%s", stranger)))
        while answer[:3] in (b"334", b"354"):
            answer = wire.say(chance.choice([b"*", b"AGJvYg==", b"", b"!"]) if answer[:3] == b"334" else b"x\r\n.")
        assert re.match(rb"[2-5]\d\d( |\Z)", answer), answer
        if answer[:3] in (b"421", b"221"):
            break
    assert wire.say("QUIT")[:1] in (b"2", b"4") if answer[:3] not in (b"421", b"221") else wire.rest() == b""


def _pop3_dialogue(wire: Wire, chance: random.Random) -> None:
    wire.line()
    if chance.random() < 0.5:
        wire.send(b"USER bob@here.test\r\nPASS correct horse\r\n")
        assert wire.line().startswith(b"+OK")
        if not wire.line().startswith(b"+OK"):
            return
    for _ in range(60):
        line = _spoilt(chance, chance.choice(_POP3_WORDS).replace(b"%s", b"%x" % chance.getrandbits(64)))
        answer = wire.pop3(line)
        while answer.startswith(b"+ "):
            answer = wire.pop3(chance.choice([b"*", b"AGJvYg==", b"", b"!"]))
        assert answer.startswith((b"+OK", b"-ERR")), answer
        if answer.startswith(b"+OK") and _MULTI_LINE.match(line.lstrip()):
            wire.multi_line()


@pytest.mark.conformance("C3", "C237", "C312", "S20")
@pytest.mark.parametrize("door", ["smtp", "submission", "pop3"])
def test_every_command_gets_a_reply_or_an_end(house_of_its_own: RunningHouse, door: str, seed: int) -> None:
    """A task that dies would leave its peer to wait; ten seconds are the most that this one waits."""
    house = house_of_its_own
    chance = random.Random(f"{door} {seed}")
    with Wire(house.ports["smtp"]) as wire:
        wire.greet().deliver(LETTER, BOB)
    for number in range(40):
        # Who fails to log in is slowed down: each comes from elsewhere, and as somebody else.
        with Wire(house.ports[door], timeout_s=10, source=f"127.{number + 1}.5.5") as wire:
            ended = False
            try:
                (_pop3_dialogue if door == "pop3" else _smtp_dialogue)(wire, chance)
            except (ConnectionError, AssertionError) as exc:
                ended = isinstance(exc, ConnectionError) or "the server ended" in str(exc)
                if not ended:
                    raise
    with Wire(house.ports["smtp"]) as wire:
        wire.greet().deliver(LETTER, ADA)
    assert len(fetched(house, ADA)) == 1


# Who speaks another protocol.

DIALOGUE = b"HELO a.test\r\nMAIL FROM:<>\r\nRCPT TO:<bob@here.test>\r\nDATA\r\n\r\nx\r\n.\r\n"
STRANGERS = {
    "HTTP GET": b"GET / HTTP/1.1\r\nHost: here.test\r\n\r\n",
    "HTTP POST": b"POST / HTTP/1.1\r\nHost: here.test\r\n\r\n" + DIALOGUE,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "TLS": bytes.fromhex("160301002f0100002b0303") + bytes(32) + bytes.fromhex("000002002f0100") + b"\r\n",
    "PROXY": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n",
    "PROXY v2": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\1\xc0\0\2\2\0\1\0\x19",
    "IMAP": b"a1 LOGIN a b\r\n",
    "FTP": b"PORT 127,0,0,1,0,25\r\n",
    "RDP": b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\1\0\x08\0\3\0\0\0\r\n",
}


@pytest.mark.conformance("C296")
@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("door", DOORS)
def test_another_protocol_gets_nowhere(house: RunningHouse, door: str, name: str) -> None:
    with Wire(house.ports[door]) as wire:
        if door in ("smtp", "submission"):
            assert wire.reply().startswith(b"220 ")  # who speaks sooner is another matter
        with contextlib.suppress(OSError):
            wire.send(STRANGERS[name])
        wire.end()
        lines = wire.rest().split(b"\r\n")
    assert not any(line[:4] in (b"250 ", b"354 ", b"235 ") for line in lines), lines
    if name.startswith("HTTP ") and door in ("smtp", "submission"):
        assert [line[:3] for line in lines] == [b"421", b""]  # at once, whatever else it would say
    assert fetched(house) == []


@pytest.mark.conformance("C296", "S31")
@pytest.mark.parametrize("door", ["submissions", "pop3s"])
def test_a_web_client_agrees_on_nothing_in_tls(house: RunningHouse, door: str) -> None:
    """ALPACA: a browser led here by somebody between must not take us for its server."""
    context = ssl.create_default_context(cafile=house.config.data_dir / SELF_SIGNED[0])
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with Wire(house.ports[door], tls=context) as wire:
            assert isinstance(wire.socket, ssl.SSLSocket)
            assert wire.socket.selected_alpn_protocol() is None
            wire.send(STRANGERS["HTTP GET"])
            wire.end()
            assert b"HTTP" not in wire.rest()
    except ssl.SSLError as refused:
        if "alert" not in str(refused).lower():
            raise


@pytest.mark.conformance("C1")
@pytest.mark.parametrize("door", ["smtp", "submission"])
def test_one_greeting_and_then_silence(house: RunningHouse, door: str) -> None:
    with Wire(house.ports[door]) as wire:
        assert re.fullmatch(rb"220 mx\.here\.test( [ -~]*)?", wire.reply())
        wire.end()
        assert wire.rest() == b""


@pytest.mark.conformance("C13")
@pytest.mark.parametrize(
    "hello", ["mx.elsewhere.test", "[192.0.2.1]", "[IPv6:2001:db8::1]", "localhost", "HERE.test", "x"]
)
def test_a_name_that_is_not_the_peers_is_no_reason(house: RunningHouse, hello: str) -> None:
    with Wire(house.ports["smtp"]) as wire:
        wire.greet(hello).deliver(LETTER, BOB)
    (message,) = fetched(house)
    assert f"Received: from {hello} (".encode() in message


@pytest.mark.conformance("C126")
def test_starttls_forgets_a_login(house: RunningHouse) -> None:
    context = ssl.create_default_context(cafile=house.config.data_dir / SELF_SIGNED[0])
    with Wire(house.ports["submission"]).greet() as wire:
        token = base64.b64encode(f"\0{ADA}\0{PASSWORD}".encode()).decode()
        assert wire.say(f"AUTH PLAIN {token}").startswith(b"235 ")
        assert wire.say("STARTTLS").startswith(b"220 ")
        wire.start_tls(context)
        assert wire.say("EHLO client.test").startswith(b"250 ")
        assert wire.say(f"MAIL FROM:<{ADA}>").startswith(b"530 ")
        assert wire.say(f"AUTH PLAIN {token}").startswith(b"235 ")
        assert wire.say(f"MAIL FROM:<{ADA}>").startswith(b"250 ")


@pytest.mark.conformance("C142")
def test_who_cannot_encrypt_may_still_bring_mail(house: RunningHouse) -> None:
    with Wire(house.ports["smtp"]) as wire:
        assert wire.reply().startswith(b"220 ")
        wire.send(b"EHLO client.test\r\n")
        offered = []
        while not offered or offered[-1][3:4] == b"-":
            offered.append(wire.line())
        assert any(line[4:] == b"STARTTLS" for line in offered)
        wire.deliver(LETTER, BOB)
    assert len(fetched(house)) == 1
