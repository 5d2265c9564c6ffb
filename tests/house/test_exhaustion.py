"""What costs a server memory or time: endless lines, floods, heaps of fields, nested MIME, sessions that dribble.

The house is a process of its own, whose memory is measured; beside each attack another client is served.
"""

from __future__ import annotations

import base64
import contextlib
import resource
import socket
import ssl
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from posthouse.doors import SELF_SIGNED
from posthouse.net.tls import make_self_signed
from tests.house.served import ServedHouse
from tests.house.wire import Wire, stored, stuffed
from tests.running_house import DOORS, PASSWORD

pytestmark = pytest.mark.long

ADA, BOB, CAROL = "ada@here.test", "bob@here.test", "carol@here.test"
GROWTH_KIB = 4 * 1024
ENDLESS_OCTETS = 100_000_000
BLOCK = b"x" * 65_536
LETTER = b"Subject: hi\r\n\r\nhello\r\n"
WITHIN_S = 1.0
SETTINGS = "[reception]\nsessions_per_address = 2000\n[retrieval]\nsessions_per_address = 2000\n"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedHouse]:
    """One for all attacks: none of them leaves anything behind."""
    yield from _open(tmp_path_factory.mktemp("house"), DOORS)


def _open(folder: Path, doors: tuple[str, ...]) -> Iterator[ServedHouse]:
    with ServedHouse(folder, (ADA, BOB, CAROL), SETTINGS, doors) as served:
        served.start()
        _work_once(served)
        yield served
        served.stop()


def _work_once(house: ServedHouse) -> None:
    """What is loaded at the first login or message is no growth of an attack."""
    with Wire(house.ports["smtp"]) as wire:
        wire.greet().deliver(LETTER, ADA)
    _read_all(house, ADA)


def _read_all(house: ServedHouse, person: str) -> list[bytes]:
    """Take everything out of a maildrop."""
    with Wire(house.ports["pop3"]) as wire:
        assert wire.login(person).startswith(b"+OK")
        messages = []
        for number in range(1, len(wire.uidls()) + 1):
            messages.append(wire.retrieve(number))
            assert wire.pop3(f"DELE {number}").startswith(b"+OK")
        assert wire.pop3("QUIT").startswith(b"+OK")
    return messages


@contextlib.contextmanager
def bounded(house: ServedHouse, growth_kib: int = GROWTH_KIB) -> Iterator[None]:
    """The memory of the house, at its highest, grows by less than this."""
    house.forget_peak()
    before = house.memory_kib("VmRSS")
    yield
    grown = house.memory_kib("VmHWM") - before
    assert grown < growth_kib, f"{before} KiB grew by {grown} KiB"


def answered_within_a_second(house: ServedHouse) -> None:
    """A client who does nothing wrong is served beside all of it: a delivery and a login, the median of three."""
    took = []
    for _ in range(3):
        begun = time.monotonic()
        with Wire(house.ports["smtp"]) as wire:
            wire.greet().deliver(LETTER, ADA)
        with Wire(house.ports["pop3"]) as wire:
            assert wire.login(ADA).startswith(b"+OK")
            assert wire.pop3("QUIT").startswith(b"+OK")
        took.append(time.monotonic() - begun)
    assert statistics.median(took) < WITHIN_S, took


# Endless lines.


def _as_client(wire: Wire, *lines: str) -> None:
    wire.greet()
    for line in lines:
        assert wire.say(line)[:1] in b"23", line


def _logged_in(wire: Wire) -> None:
    assert wire.login(BOB).startswith(b"+OK")


ENDLESS: dict[str, tuple[str, Callable[[Wire], None], bytes]] = {
    "command at once": ("smtp", lambda wire: None, b""),
    "command": ("smtp", lambda wire: _as_client(wire), b"NOOP "),
    "nested parentheses": ("smtp", lambda wire: _as_client(wire), b"NOOP ((((((("),
    "path": ("smtp", lambda wire: _as_client(wire), b"MAIL FROM:<"),
    "parameter": ("smtp", lambda wire: _as_client(wire), b"MAIL FROM:<a@far.test> SIZE=1"),
    "size of a chunk": ("smtp", lambda wire: _as_client(wire, "MAIL FROM:<>", f"RCPT TO:<{BOB}>"), b"BDAT 1"),
    "header": ("smtp", lambda wire: _as_client(wire, "MAIL FROM:<>", f"RCPT TO:<{BOB}>", "DATA"), b"Subject: "),
    "body": ("smtp", lambda wire: _as_client(wire, "MAIL FROM:<>", f"RCPT TO:<{BOB}>", "DATA"), b"\r\n"),
    "initial response": ("submission", lambda wire: _as_client(wire), b"AUTH PLAIN "),
    "response of a login": ("submission", lambda wire: _as_client(wire, "AUTH PLAIN"), b""),
    "POP3 command at once": ("pop3", lambda wire: None, b""),
    "POP3 user": ("pop3", lambda wire: None, b"USER "),
    "POP3 password": ("pop3", lambda wire: wire.send(b"USER x\r\n"), b"PASS "),
    "POP3 number": ("pop3", lambda wire: _logged_in(wire), b"RETR 1"),
}


@pytest.mark.conformance("C286", "S12")
@pytest.mark.parametrize("stage", ENDLESS)
def test_an_endless_line_costs_no_memory_and_ends(house: ServedHouse, stage: str) -> None:
    door, begin, start = ENDLESS[stage]
    with bounded(house), Wire(house.ports[door]) as wire:
        begin(wire)
        with contextlib.suppress(ConnectionError):
            wire.send(start)
            for _ in range(ENDLESS_OCTETS // len(BLOCK)):
                wire.send(BLOCK)
            wire.send(b"\r\n.\r\n")
        wire.end()
        said = wire.rest()
        assert b"\r\n250 2.0.0 Stored" not in said
        # It was told, or the house has hung up on who is still sending.
        assert said == b"" or said.splitlines()[-1][:4] in (b"500 ", b"552 ", b"554 ", b"421 ", b"-ERR"), said[-200:]
    answered_within_a_second(house)


# Floods.

FLOOD = 10_000
FLOODS = {
    "NOOP": ("smtp", b"NOOP\r\n"),
    "RSET": ("smtp", b"RSET\r\n"),
    "EHLO": ("smtp", b"EHLO client.test\r\n"),
    "MAIL and RSET": ("smtp", b"MAIL FROM:<a@far.test>\r\nRSET\r\n"),
    "VRFY": ("smtp", b"VRFY carol\r\n"),
    "RCPT of one who is here": ("smtp", b"MAIL FROM:<>\r\n" + b"RCPT TO:<carol@here.test>\r\n" * 20),
    "RCPT of nobody": ("smtp", b"MAIL FROM:<>\r\nRCPT TO:<nobody@here.test>\r\n"),
    "commands that are none": ("smtp", b"FOO\r\n"),
    "chunks of one octet": ("smtp", b"BDAT 1\r\nx"),
    "empty messages": ("smtp", b"MAIL FROM:<>\r\nRCPT TO:<carol@here.test>\r\nDATA\r\n.\r\n"),
    "logins begun": ("submission", b"AUTH PLAIN\r\n*\r\n"),
    "POP3 NOOP": ("pop3", b"NOOP\r\n"),
    "POP3 CAPA": ("pop3", b"CAPA\r\n"),
    "POP3 commands that are none": ("pop3", b"FOO\r\n"),
}
MISCHIEF = {"RCPT of nobody": b"421 ", "commands that are none": b"421 ", "logins begun": b"421 "}
"""What gets the session closed, and with what."""


@pytest.mark.conformance("C287")
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_holds_up_nobody(house: ServedHouse, name: str) -> None:
    door, commands = FLOODS[name]
    said = bytearray()
    with bounded(house, 2 * GROWTH_KIB), Wire(house.ports[door]) as wire:
        if door == "pop3":
            wire.line()
        else:
            wire.greet()
        reader = threading.Thread(target=lambda: said.extend(_all_of(wire)))
        reader.start()
        sender = threading.Thread(target=_flood, args=(wire, commands))
        sender.start()
        answered_within_a_second(house)
        sender.join(60)
        wire.end()
        reader.join(60)
        assert not sender.is_alive()
        assert not reader.is_alive()
    last = bytes(said).splitlines()[-1]
    if name in MISCHIEF:
        assert last.startswith(MISCHIEF[name]), last
    answered_within_a_second(house)


def _flood(wire: Wire, commands: bytes) -> None:
    count = FLOOD // commands.count(b"\r\n")
    with contextlib.suppress(OSError):
        for _ in range(count // 50):
            wire.send(commands * 50)


def _all_of(wire: Wire) -> bytes:
    """All replies; the end of them, if there are many."""
    said = bytearray()
    with contextlib.suppress(OSError):
        while octets := wire.socket.recv(1 << 16):
            said += octets
            del said[:-4096]
    return bytes(said)


# Heaps.


def _nested(depth: int) -> bytes:
    """message/rfc822 within multipart within message/rfc822 …, never closed."""
    level = b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\nContent-Type: message/rfc822\r\n\r\n'
    return b"".join(level % (number, number) for number in range(depth)) + b"deep\r\n"


def _parts(count: int) -> bytes:
    return b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n' + b"--b\r\n\r\nx\r\n" * count + b"--b--\r\n"


def _overlapping(count: int) -> bytes:
    """Each boundary begins the next one."""
    heads = b"".join(
        b'--%s\r\nContent-Type: multipart/mixed; boundary="%s"\r\n\r\n' % (b"b" * n, b"b" * (n + 1))
        for n in range(1, count)
    )
    return b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n' + heads


def _encoded(octets: int) -> bytes:
    line = base64.b64encode(bytes(57)) + b"\r\n"
    return b"Content-Type: application/gzip\r\nContent-Transfer-Encoding: base64\r\n\r\n" + line * (octets // len(line))


HEADS: dict[str, Callable[[int], bytes]] = {
    "fields": lambda n: b"".join(b"X-%d: y\r\n" % number for number in range(n)),
    "empty fields": lambda n: b"X:\r\n" * n,
    "names of Python": lambda n: b"__proto__: x\r\n__class__: x\r\n__dict__: x\r\n" * (n // 3),
    "addresses": lambda n: b"To: " + b"\r\n ".join([b"a@b.test,"] * n) + b"\r\n",
    "one line of addresses": lambda n: b"To: " + b"a@b.test," * n + b"\r\n",
    "comments": lambda n: b"From: " + b"(" * n + b"\r\n",
    "groups": lambda n: b"To: " + b"g:" * n + b";" * n + b"\r\n",
    "quotes": lambda n: b"To: " + b'"\\"' * n + b"\r\n",
    "folds": lambda n: b"Subject: x" + b"\r\n " * n + b"y\r\n",
    "parameters": lambda n: (
        b"Content-Type: text/plain" + b"".join(b"; a*%d=b" % number for number in range(n)) + b"\r\n"
    ),
    "encoded words": lambda n: b"Subject: " + b"=?utf-8?q?=C3?=" * n + b"\r\n",
    "own fields": lambda n: b"Return-Path: <>\r\nBcc: x@y.test\r\n" * (n // 2),
    "Received": lambda n: b"Received: from a by b; c\r\n" * n,
}
BODIES: dict[str, Callable[[int], bytes]] = {
    "parts": _parts,
    "depth": _nested,
    "overlapping boundaries": lambda n: _overlapping(n // 100),
    "base64": lambda n: _encoded(n * 100),
    "quoted-printable": lambda n: b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + (b"=" * 70 + b"\r\n") * n,
    "lines": lambda n: b"\r\n" + b"\r\n" * n,
    "dots": lambda n: b"\r\n" + b".\r\n" * n,
}
REFUSABLE = (b"554 5.6.0 ", b"554 5.4.6 ", b"552 5.3.4 ")


def _deliver_measured(house: ServedHouse, content: bytes) -> tuple[bytes, float]:
    """The reply, and the seconds of the processor that the house used until it came."""
    with Wire(house.ports["smtp"]) as wire:
        wire.greet().envelope(BOB)
        assert wire.say("DATA").startswith(b"354 ")
        before = house.processor_s()
        with contextlib.suppress(ConnectionError):
            wire.send(stuffed(content))
        return wire.reply(), house.processor_s() - before


@pytest.mark.conformance("C288", "S14", "S40")
@pytest.mark.parametrize("name", HEADS)
def test_a_heap_in_the_header_costs_little(house: ServedHouse, name: str) -> None:
    """Up to 256 KiB of header it is stored as it came; above, refused; never parsed in more than linear time."""
    for count in (10_000, 100_000):
        content = HEADS[name](count) + b"\r\nbody\r\n"
        with bounded(house, 2 * GROWTH_KIB):
            reply, used_s = _deliver_measured(house, content)
            assert used_s < 2.0
            if reply.startswith(b"250 "):
                (message,) = _read_all(house, BOB)
                assert message.endswith(content)
            else:
                assert reply.startswith(REFUSABLE), reply
                assert _read_all(house, BOB) == []
        assert reply.startswith(b"250 ") or len(content) > 256 * 1024 or name == "Received"
    answered_within_a_second(house)


@pytest.mark.conformance("C289", "S14")
@pytest.mark.parametrize("name", BODIES)
def test_mime_is_stored_and_not_parsed(house: ServedHouse, name: str) -> None:
    """What a MIME parser would choke on comes out as it went in, at the price of its octets."""
    for count in (10_000, 100_000):
        content = BODIES[name](count)
        with bounded(house, 2 * GROWTH_KIB):
            reply, used_s = _deliver_measured(house, content)
            stored(reply)
            assert used_s < 2.0
            (message,) = _read_all(house, BOB)
        assert message.endswith(content)
    answered_within_a_second(house)


# Sessions that do nothing, or hardly anything.

IDLE, DRIBBLING, STALLED = 1000, 200, 20
DRIBBLE_S = 6.0
KIB_FOR_EACH = 24


@pytest.fixture
def house_with_tls(tmp_path: Path) -> Iterator[ServedHouse]:
    make_self_signed("mx.here.test", tmp_path / SELF_SIGNED[0], tmp_path / SELF_SIGNED[1], time.time())
    yield from _open(tmp_path, (*DOORS, "submissions"))


def _dribbling(house: ServedHouse) -> list[Wire]:
    """Sessions in the middle of something: a command, content, a login, a password, a TLS handshake."""
    wires = []
    for number in range(DRIBBLING):
        match number % 5:
            case 0:
                wire = Wire(house.ports["smtp"]).greet()
            case 1:
                wire = Wire(house.ports["smtp"]).greet().envelope(BOB)
                assert wire.say("DATA").startswith(b"354 ")
            case 2:
                wire = Wire(house.ports["submission"]).greet()
                assert wire.say("AUTH PLAIN").startswith(b"334 ")
            case 3:
                wire = Wire(house.ports["pop3"])
                assert wire.line().startswith(b"+OK")
                assert wire.pop3("USER x").startswith(b"+OK")
            case _:
                wire = Wire(house.ports["submissions"])
                wire.send(b"\x16\x03\x01\x02\0\x01")  # the beginning of a ClientHello
        wires.append(wire)
    return wires


def _stalled_reader(house: ServedHouse) -> Wire:
    """Asks for a large message, and never reads it."""
    wire = Wire(house.ports["pop3"])
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    if wire.login(BOB).startswith(b"+OK"):
        wire.send(b"RETR 1\r\n" * 50)
    return wire


@pytest.mark.conformance("C285", "S26")
def test_a_thousand_idle_sessions_and_two_hundred_that_dribble(house_with_tls: ServedHouse) -> None:
    house = house_with_tls
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    with Wire(house.ports["smtp"]) as wire:
        wire.greet().deliver(b"Subject: large\r\n\r\n" + (b"y" * 70 + b"\r\n") * 100_000, BOB)
    before = house.memory_kib("VmRSS")
    with contextlib.ExitStack() as open_wires:
        doors = ("smtp", "submission", "submissions", "pop3")
        for number in range(IDLE):
            open_wires.enter_context(Wire(house.ports[doors[number % len(doors)]]))
        dribbling = [open_wires.enter_context(wire) for wire in _dribbling(house)]
        stalled = [open_wires.enter_context(_stalled_reader(house)) for _ in range(STALLED)]
        ends = time.monotonic() + DRIBBLE_S
        while time.monotonic() < ends:
            for wire in dribbling:
                with contextlib.suppress(OSError):
                    wire.send(b"x")
            answered_within_a_second(house)
        sessions = IDLE + len(dribbling) + len(stalled)
        assert house.memory_kib("VmRSS") - before < KIB_FOR_EACH * sessions
    answered_within_a_second(house)


HALF_OPEN = 500


@pytest.mark.conformance("C147")
def test_handshakes_that_fail_leave_nothing_behind(house_with_tls: ServedHouse, tmp_path: Path) -> None:
    """Begun and left, broken off, or never TLS: the next client is served, and no socket stays open."""
    house = house_with_tls
    trust = ssl.create_default_context(cafile=tmp_path / SELF_SIGNED[0])
    before = house.sockets()
    with bounded(house, 2 * HALF_OPEN * KIB_FOR_EACH), contextlib.ExitStack() as open_wires:
        for number in range(HALF_OPEN):
            wire = open_wires.enter_context(Wire(house.ports["submissions"]))
            with contextlib.suppress(OSError):
                wire.send((b"\x16\x03\x01\x02\0\x01", b"EHLO client.test\r\n" * 30, b"")[number % 3])
                wire.drop() if number % 2 else wire.end()
        with Wire(house.ports["submissions"], tls=trust) as wire:
            wire.greet()
    answered_within_a_second(house)
    ends = time.monotonic() + 30
    while house.sockets() > before:
        assert time.monotonic() < ends, f"{house.sockets() - before} sockets are left"


# Logins of others.


def _fuzz_logins(port: int, source: str, ending: threading.Event) -> None:
    """Bad base64, answers taken back, huge and empty tokens, until told to end."""
    good = base64.b64encode(f"\0{ADA}\0wrong".encode())
    tokens = (b"====", b"AA=A", b"*", b"A" * 12_000, b"\xff\xfe", b"", b"=", b"AGFkYQ==", good[:7], b"AAAA" * 3000)
    number = 0
    while not ending.is_set():
        with contextlib.suppress(OSError, AssertionError), Wire(port, source=source) as wire:
            wire.greet()
            for _ in range(3):
                number += 1
                wire.send(b"AUTH " + (b"PLAIN", b"LOGIN", b"SCRAM-SHA-256", b"NO")[number % 4] + b"\r\n")
                wire.send(tokens[number % len(tokens)] + b"\r\n")
                wire.reply()
            wire.drop() if number % 2 else wire.end()


@pytest.mark.conformance("C293", "S13")
def test_good_logins_beside_fuzzers(house: ServedHouse) -> None:
    """Fifty logins succeed while others, who come from elsewhere, abuse the same door."""
    ending = threading.Event()
    port = house.ports["submission"]
    fuzzers = [
        threading.Thread(target=_fuzz_logins, args=(port, f"127.{number}.1.1", ending), daemon=True)
        for number in range(50, 100)
    ]
    for fuzzer in fuzzers:
        fuzzer.start()
    try:
        for number in range(50):
            token = base64.b64encode(f"\0{BOB}\0{PASSWORD}".encode()).decode()
            with Wire(house.ports["submission"]) as wire:
                assert wire.greet().say(f"AUTH PLAIN {token}").startswith(b"235 "), number
            with Wire(house.ports["pop3"]) as wire:
                assert wire.login(BOB).startswith(b"+OK"), number
                assert wire.pop3("QUIT").startswith(b"+OK")
    finally:
        ending.set()
        for fuzzer in fuzzers:
            fuzzer.join(60)
