"""Odd messages go in by SMTP and come out by POP3 octet for octet, under our own fields."""

from __future__ import annotations

import email.message
import email.policy
import poplib
import random
import re
import smtplib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.house.wire import Wire, stuffed
from tests.running_house import PASSWORD, RunningHouse

BOB = "bob@here.test"
HEAD = b"Subject: odd\r\n\r\n"
OUR_FIELDS = re.compile(
    rb"Return-Path: <carol@far\.test>\r\nDelivered-To: bob@here\.test\r\n"
    rb"Received: from client\.test \(\[127\.0\.0\.1\]\)\r\n\tby mx\.here\.test with ESMTPS? id ([0-9A-Z]{26})\r\n"
    rb"\tfor <bob@here\.test>;\r\n\t[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000\r\n"
)
KIB = 1024


def odd_messages() -> Iterator[tuple[str, bytes]]:
    """Name and content. DATA cannot carry content that lacks a final CRLF, nor CR or LF alone."""
    text = {
        "empty": b"",
        "only an empty line": b"\r\n",
        "two empty lines": b"\r\n\r\n",
        "a hundred empty lines": b"\r\n" * 100,
        "header only": b"Subject: no body\r\n",
        "header and empty line": HEAD,
        "body only": b"\r\nno header\r\n",
        "no header, no empty line": b"just text\r\nand more\r\n",
        "body line like our fields": b"\r\nReturn-Path: <x@y.test>\r\nReceived: from nowhere\r\n",
        "own return-path": b"Return-Path: <a@b.test>\r\nReturn-Path: <>\r\nDelivered-To: x\r\n" + HEAD,
        "folded received": b"Received: a\r\n\tb\r\n c\r\nreceived : d\r\n" + HEAD + b"x\r\n",
        "broken header": b": x\r\nSub ject: y\r\n \r\nZ\r\n" + HEAD,
        "header with 8 bits": "Subject: grüße\r\n\r\nx\r\n".encode(),
        "folded to white space": b"Subject:\r\n \r\n\t\r\n x\r\n\r\nbody\r\n",
        "trailing white space": HEAD + b"a \r\nb\t\r\n \r\n",
        "from line": HEAD + b"From here\r\n>From there\r\n",
        "pop3 and smtp words": HEAD + b"+OK\r\n-ERR\r\nQUIT\r\n250 OK\r\nRSET\r\nDATA\r\n",
        "all octets": HEAD + bytes(o for o in range(256) if o not in b"\r\n") + b"\r\n",
        "all octets on lines": HEAD + b"".join(bytes([o]) * 3 + b"\r\n" for o in range(256) if o not in b"\r\n"),
        "nul": HEAD + b"before\0after\r\n\0\r\n.\0\r\n\0.\r\n",
        "other line ends": HEAD + "a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2028h\u2029i".encode() + b"\x85\r\n",
        "utf-8": HEAD + "ÄÖÜ 漢字 🐎\r\n".encode(),
        "latin-1": HEAD + bytes(range(0xA0, 0x100)) + b"\r\n",
        "broken utf-8": HEAD + b"\xc3\r\n\xff\xfe\r\n\xed\xa0\x80\r\n",
        "uuencoded dots": HEAD + b"begin 644 x\r\n.....\r\n`\r\nend\r\n",
        "ten thousand dots": HEAD + b"." * 10_000 + b"\r\n",
        "ten thousand lines of a dot": HEAD + b".\r\n" * 10_000,
        "header of 255 KiB": b"X-Big: " + (b"y" * 70 + b"\r\n ") * (255 * KIB // 73) + b"z\r\n" + HEAD,
        "header of 255 KiB in fields": (b"X-Many: " + b"y" * 62 + b"\r\n") * (255 * KIB // 72) + HEAD,
        "99 received fields": b"Received: from a by b; c\r\n" * 99 + HEAD,
        "body of 500 received lines": HEAD + b"Received: from a by b; c\r\n" * 500,
    }
    yield from text.items()
    for line in (b".", b"..", b"...", b".x", b"..x", b". ", b"x.", b". .", b".\0", b".\xff"):
        yield f"first line {line!r}", line + b"\r\n"
        yield f"first line of the body {line!r}", b"\r\n" + line + b"\r\n"
        yield f"last line {line!r}", HEAD + b"x\r\n" + line + b"\r\n"
        yield f"line {line!r} three times", HEAD + (line + b"\r\n") * 3 + b"x\r\n"
    for length in (998, 999, 1000, 1001, 2048, 65_535, 65_536, 65_537):
        yield f"line of {length}", HEAD + b"l" * length + b"\r\n"
    for border in (4095, 4096, 4097, 65_535, 65_536, 65_537):
        for end in (b".\r\n", b"..x\r\n"):
            filler = (b"f" * 62 + b"\r\n") * (border // 64 + 1)
            start = (
                HEAD + filler[: border - len(HEAD) - 2].rstrip(b"\r\n").ljust(border - len(HEAD) - 2, b"g") + b"\r\n"
            )
            assert len(start) == border
            yield f"{end[:-2]!r} at {border}", start + end + b"tail\r\n"
    for size in (128 * KIB - 1, 128 * KIB, 128 * KIB + 1):
        yield f"content of {size}", HEAD + random.Random(size).randbytes(size).hex().encode()[: size - 18] + b"\r\n"


ODD = dict(odd_messages())


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    with RunningHouse(tmp_path_factory.mktemp("house"), reception={"sessions_per_address": 500}) as house:
        yield house


@pytest.fixture(autouse=True)
def _long_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poplib, "_MAXLINE", 1_000_000)


def fetch_only(house: RunningHouse, content: bytes, queue_id: str | None = None) -> None:
    """The one message of the maildrop is `content` with our fields; it is taken out with `poplib`."""
    reader = poplib.POP3("127.0.0.1", house.ports["pop3"], timeout=30)
    reader.user(BOB)
    reader.pass_(PASSWORD)
    count, total = reader.stat()
    assert count == 1
    (line,) = reader.list()[1]
    size = int(line.split()[1])
    (uidl,) = reader.uidl()[1]
    status, lines, _ = reader.retr(1)
    octets = b"".join(each + b"\r\n" for each in lines)
    assert len(octets) == size == total == int(status.split()[1])
    fields = OUR_FIELDS.match(octets)
    assert fields is not None, octets[:400]
    assert octets[fields.end() :] == content
    assert uidl == b"1 " + fields[1]
    assert queue_id is None or queue_id.encode() == fields[1]
    reader.dele(1)
    reader.quit()


def test_there_are_enough() -> None:
    assert len(ODD) >= 90


@pytest.mark.conformance("C49", "C52", "C53", "C54", "C55", "C60", "C69", "C74", "C242", "C243", "C244", "C254", "C309")
@pytest.mark.parametrize("name", ODD)
def test_sockets_carry(house: RunningHouse, name: str) -> None:
    with Wire(house.ports["smtp"]).greet() as wire:
        queue_id = wire.deliver(ODD[name], BOB)
    fetch_only(house, ODD[name], queue_id)


@pytest.mark.parametrize("name", [name for name, content in ODD.items() if len(content) < 10_000])
def test_smtplib_carries(house: RunningHouse, name: str) -> None:
    with smtplib.SMTP("127.0.0.1", house.ports["smtp"], "client.test", timeout=30) as client:
        assert client.sendmail("carol@far.test", [BOB], ODD[name]) == {}
    # smtplib adds a CRLF to content that has none at its end: to the empty one.
    fetch_only(house, ODD[name] or b"\r\n")


@pytest.mark.conformance("C157")
@pytest.mark.parametrize("piece", [1, 2, 3, 7])
def test_content_in_pieces(house: RunningHouse, piece: int) -> None:
    content = HEAD + b".\r\n..\r\n.x\r\n\r\n.\r\n" * 20
    with Wire(house.ports["smtp"]).greet().envelope(BOB) as wire:
        assert wire.say("DATA").startswith(b"354 ")
        wire.send_in_pieces(stuffed(content), piece)
        assert wire.reply().startswith(b"250 ")
    fetch_only(house, content)


_LINES = st.lists(st.binary(max_size=300).map(lambda line: re.sub(rb"[\r\n]", b".", line)), max_size=30)


@pytest.mark.conformance("C49", "C309")
@given(_LINES)
def test_any_lines(house: RunningHouse, lines: list[bytes]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)[-4096:].lstrip(b"\n")
    with Wire(house.ports["smtp"]).greet() as wire:
        queue_id = wire.deliver(content, BOB)
    fetch_only(house, content, queue_id)


def test_a_mime_message_of_the_standard_library(house: RunningHouse) -> None:
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    message["Subject"] = "Grüße"
    message.set_content("Text.\n.\n..\n")
    message.add_attachment(bytes(range(256)) * 40, maintype="application", subtype="octet-stream")
    content = message.as_bytes()
    with smtplib.SMTP("127.0.0.1", house.ports["smtp"], "client.test", timeout=30) as client:
        client.sendmail("carol@far.test", [BOB], content)
    fetch_only(house, content)


@pytest.mark.conformance("C76", "C288")
@pytest.mark.parametrize(
    ("content", "refusal"),
    [
        (b"X: " + b"y" * 256 * KIB + b"\r\n" + HEAD, b"554 5.6.0 "),
        ((b"X-Many: " + b"y" * 62 + b"\r\n") * 3700, b"554 5.6.0 "),
        (b"Received: from a by b; c\r\n" * 100 + HEAD, b"554 5.4.6 "),
        (b"Received: from a by b; c\r\n" * 101 + HEAD, b"554 5.4.6 "),
    ],
    ids=["one large field", "header without end", "100 received fields", "101 received fields"],
)
def test_refused_once_and_the_session_goes_on(house: RunningHouse, content: bytes, refusal: bytes) -> None:
    with Wire(house.ports["smtp"]).greet() as wire:
        assert wire.envelope(BOB).content(content).startswith(refusal)
        assert wire.say("RCPT TO:<bob@here.test>").startswith(b"503 ")
        wire.deliver(HEAD, BOB)
    fetch_only(house, HEAD)


@pytest.mark.conformance("C53")
@pytest.mark.long
def test_twenty_megabytes(house: RunningHouse) -> None:
    content = HEAD + (b"." + random.Random(20).randbytes(30).hex().encode() + b"\r\n") * 320_000
    with Wire(house.ports["smtp"]).greet() as wire:
        queue_id = wire.deliver(content, BOB)
    fetch_only(house, content, queue_id)
