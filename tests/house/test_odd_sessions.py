"""Sessions that break off, lie or make no sense: each command has a reply or the connection an end, for everybody."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.test_addresses import emptied
from tests.house.test_forwarding import until_served
from tests.house.wire import Wire, stored, stuffed
from tests.running_house import RunningHouse

BOB = "bob@here.test"
LETTER = b"Subject: hi\r\n\r\nhello\r\n"
PATIENCE_S = 10.0


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    reception = {"sessions_per_address": 500, "errors": 100_000, "unknown_recipients": 100_000}
    with RunningHouse(tmp_path_factory.mktemp("house"), reception=reception) as house:
        yield house


@pytest.mark.conformance("C19")
@pytest.mark.parametrize("ending", [Wire.drop, Wire.end], ids=["reset", "end"])
@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA", "half", "end of content without its last octet"])
def test_a_connection_that_is_lost_keeps_what_was_done(house: RunningHouse, ending: object, at: str) -> None:
    wire = Wire(house.ports["smtp"]).greet()
    done = wire.deliver(LETTER, BOB)
    said = {
        "MAIL": b"MAIL FROM:<x@far.test>\r\n",
        "RCPT": b"MAIL FROM:<x@far.test>\r\nRCPT TO:<bob@here.test>\r\n",
        "DATA": b"MAIL FROM:<x@far.test>\r\nRCPT TO:<bob@here.test>\r\nDATA\r\n",
    }
    wire.send(said.get(at, said["DATA"]))
    if at not in said:
        for _ in range(3):
            wire.reply()
        wire.send(LETTER if at == "half" else stuffed(LETTER)[:-1])
    ending(wire)  # type: ignore[operator]
    if ending is Wire.end:
        wire.rest()
    with Wire(house.ports["smtp"]).greet() as other:
        later = other.deliver(LETTER, BOB)
    found = emptied(house, BOB)
    assert [queue_id for queue_id in (done, later) if sum(queue_id.encode() in m for m in found) == 1] == [done, later]
    assert len(found) == 2


def _word(chance: random.Random) -> bytes:
    words = [
        b"EHLO x",
        b"HELO x",
        b"MAIL FROM:<>",
        b"MAIL FROM:<a@far.test> SIZE=1 BODY=8BITMIME",
        b"RCPT TO:<bob@here.test>",
        b"RCPT TO:<nobody@here.test>",
        b"RCPT TO:<u@far.test>",
        b"DATA",
        b"RSET",
        b"NOOP x",
        b"HELP",
        b"VRFY bob",
        b"EXPN x",
        b"AUTH PLAIN",
        b"AUTH PLAIN =",
        b"*",
        b"AUTH LOGIN",
        b"AUTH X",
        b"STARTTLS",
        b"BDAT 0",
        b"BDAT 0 LAST",
        b"LHLO x",
        b"MAIL FROM:<\xc3>",
        b"MAIL FROM:<\xc3\xbc@\xc3\xbc.test> SMTPUTF8",
        b"RCPT TO:<\xed\xa0\x80@here.test>",
        b"",
        b" ",
        b"5.7.2",
        b"250 OK",
        b".",
        b"..",
        b"X" * 3000,
        b"RCPT TO:<" + b"(" * 300 + b">",
        b"__class__",
        b"\0\0",
        b"DATA x",
    ]
    line = bytearray(chance.choice(words))
    # A BDAT is left as it is: with another number, what follows would be content.
    if line and not line.startswith(b"BDAT") and chance.random() < 0.3:
        for _ in range(chance.randint(1, 4)):
            line[chance.randrange(len(line))] = chance.choice(b'\0\t :<>@"\\\x80\xff=+,[]()aA0\x7f')
    return bytes(line).replace(b"\r", b"").replace(b"\n", b"")


@pytest.mark.conformance("C312", "S20")
@pytest.mark.parametrize("seed", range(12))
def test_every_line_has_a_reply_or_the_session_an_end(house: RunningHouse, seed: int) -> None:
    chance = random.Random(seed)
    wire = Wire(house.ports[chance.choice(("smtp", "submission"))], timeout_s=PATIENCE_S)
    assert wire.reply().startswith(b"220 ")
    for _ in range(150):
        line = _word(chance)
        try:
            wire.send(line + b"\r\n")
            code = wire.reply()[:3]
            if code == b"354":
                wire.send(chance.choice([b"\r\n.\r\n", b"x\r\n.\r\n", b"\xff\0: \r\n\r\n.\r\n", b"\rx\r\n.\r\n"]))
                assert wire.reply()[:1] in b"245"
        except TimeoutError:
            pytest.fail(f"no reply to {line!r}")
        except (AssertionError, OSError):
            wire.socket.close()
            wire = Wire(house.ports["smtp"], timeout_s=PATIENCE_S).greet()
    wire.socket.close()
    with Wire(house.ports["smtp"]).greet() as other:
        other.deliver(LETTER, BOB)
    assert '"event": "session failed"' not in house.log.getvalue(), "a bug ended a session"
    emptied(house, BOB)


ODD_HEADERS = [
    b"__proto__: x\r\n",
    b"__class__: x\r\n",
    b": x\r\n",
    b"X" * 200_000 + b": y\r\n",
    b"\xff\xfe: x\r\n",
    b"\xc3: \xc3\r\n",
    b"From: =?utf-8?b?" + b"/" * 1000 + b"?=\r\n",
    b"Content-Type: " + b"a*0=b;" * 10_000 + b"\r\n",
    b"To: " + b"a:" * 10_000 + b"\r\n",
    b"To: " + b"(" * 100_000 + b"\r\n",
    b"To: " + b"x@y.test, " * 10_000 + b"\r\n",
    b"X-Many: y\r\n" * 20_000,
    b"Received: x\r\n" * 99,
    b"Subject:\r\n" + b" \r\n" * 10_000,
    b"X:" + b"\r\n y" * 50_000 + b"\r\n",
    b"\x1b]0;x\x07: y\r\n",
]


@pytest.mark.conformance("C288", "S14", "S20")
@pytest.mark.parametrize("header", ODD_HEADERS, ids=lambda header: repr(header[:12]))
def test_odd_headers_are_stored_as_they_came(house: RunningHouse, header: bytes) -> None:
    with Wire(house.ports["smtp"], timeout_s=PATIENCE_S).greet() as wire:
        wire.deliver(header + b"\r\nbody\r\n", BOB)
    (message,) = emptied(house, BOB)
    assert message.endswith(b"\r\n" + header + b"\r\nbody\r\n")


@pytest.mark.conformance("C59")
def test_the_last_dot_is_answered_while_others_send_much(house: RunningHouse) -> None:
    """Nothing that grows stands between the end of content and its reply: twenty sessions, one with all the octets."""
    stop = threading.Event()

    def send_much() -> None:
        with Wire(house.ports["smtp"]).greet() as wire:
            wire.envelope(BOB)
            assert wire.say("DATA").startswith(b"354 ")
            # No more than the house takes: beyond that it would close the session.
            for _ in range(45_000):
                if stop.is_set():
                    return
                wire.send(b"x" * 998 + b"\r\n")
            stop.wait()

    sender = threading.Thread(target=send_much)
    sender.start()
    try:
        wires = [Wire(house.ports["smtp"], timeout_s=PATIENCE_S).greet() for _ in range(20)]
        for wire in wires:
            wire.envelope(BOB)
            assert wire.say("DATA").startswith(b"354 ")
        for wire in wires:
            wire.send(stuffed(LETTER))
        for wire in wires:
            stored(wire.reply())
            wire.socket.close()
    finally:
        stop.set()
        sender.join()
    assert len(emptied(house, BOB)) == 20


@pytest.mark.conformance("C72", "C75", "C279", "S2")
def test_one_message_leaves_whatever_we_put_above_it(tmp_path: Path) -> None:
    """A long name, a long local part, content that begins with dots or has no header, by way of a second house."""
    folders = [tmp_path / "far", tmp_path / "near"]
    for folder in folders:
        folder.mkdir()
    local_part = "l" * 64
    reader = f"{local_part}@far.test"
    contents = [
        b".\r\nbody\r\n",
        b"\r\n.\r\n.\r\nMAIL FROM:<x@far.test>\r\n",
        b"..\r\n",
        b"no field\r\n.hidden\r\n",
        b"X: " + b"y" * 900 + b"\r\n" + b" z" * 400 + b"\r\n.\r\n",
        b"Received: one\r\nReceived: (two\r\n\tby\r\nDKIM-Signature: v=1\r\nX : y \r\n\r\n" + b"x" * 998 + b"\r\n",
    ]
    hello = ".".join(["h" * 60] * 4)
    with RunningHouse(folders[0], (reader,), hostname="mx.far.test", postmaster=reader) as far:
        route = {"routes": {"*": f"127.0.0.1:{far.ports['smtp']}"}}
        near = RunningHouse(folders[1], forwarding=route, reception={"trusted_networks": ["127.0.0.0/8"]})
        with near:
            for content in contents:
                with Wire(near.ports["smtp"]).greet(hello) as wire:
                    wire.deliver(content, reader, sender="x@far.test")
                until_served(near)
                (message,) = emptied(far, reader)
                assert message.endswith(content)
                assert message.count(b"\r\nReceived: from ") == 2
                above = message[: -len(content)].split(b"\r\n")
                assert above[-1] == b""
                assert all(line[:1] in b"RD\t" for line in above[:-1]), above
