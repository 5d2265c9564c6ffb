"""Structure of messages: right ones, broken ones, bombs. Bombs end in time only if work grows with the length alone."""

from __future__ import annotations

import tracemalloc
from email.message import EmailMessage

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from posthouse.mail import mime
from posthouse.mail.mime import MAX_DEPTH, MAX_FIELDS, MAX_PARTS, Message, MimeReader


def parse(octets: bytes, chunk: int = 65536) -> Message:
    reader = MimeReader()
    for at in range(0, len(octets), chunk):
        reader.feed(octets[at : at + chunk])
    return reader.finish()


def shape(message: Message) -> list[tuple[int, str, bytes]]:
    return [(part.parent, part.media_type, part.beginning) for part in message.parts]


MULTIPART = b"""\
From: a@x.test\r
Content-Type: multipart/mixed; boundary="out"\r
\r
preamble\r
--out\r
Content-Type: multipart/alternative; boundary=in\r
\r
--in\r
\r
plain\r
text\r
--in\r
Content-Type: text/html\r
\r
<p>html\r
--in--\r
epilogue\r
--out  \r
Content-Type: application/pdf; name=a.pdf\r
Content-Transfer-Encoding: BASE64\r
\r
QUJD\r
--out--\r
more\r
"""


def test_a_message_comes_apart() -> None:
    message = parse(MULTIPART)
    assert shape(message) == [
        (0, "multipart/mixed", b""),
        (1, "multipart/alternative", b""),
        (2, "text/plain", b"plain\r\ntext"),
        (2, "text/html", b"<p>html"),
        (1, "application/pdf", b""),
    ]
    assert (message.parts[4].name, message.parts[4].encoding, message.parts[4].octets) == ("a.pdf", "base64", 4)
    assert not message.is_cut


@given(st.integers(1, 200), st.booleans())
def test_chunks_make_no_difference(chunk: int, bare: bool) -> None:
    octets = MULTIPART.replace(b"\r\n", b"\n") if bare else MULTIPART
    assert parse(octets, chunk) == parse(octets)


PIECES = st.sampled_from(
    [
        *(
            b"\r\n",
            b"\n",
            b"--x",
            b"--x--",
            b"--y",
            b"\r\n--x\r\n",
            b"\r\n--y--\r\n",
            b"\r",
            b"-",
            b"x",
            b" ",
            b"a: b\r\n",
        ),
        *(b"Content-Type: multipart/mixed; boundary=x\r\n", b"Content-Type: multipart/mixed; boundary=y\r\n\r\n"),
        *(b"Content-Type: text/html; charset=\xff\r\n", b"\0", b"=?utf-8?q?=3F?=", b"From me\r\n"),
    ]
)


@given(st.lists(PIECES | st.binary(max_size=20), max_size=30).map(b"".join), st.integers(1, 50))
@example(b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x", 1)
@example(b"Content-Type: multipart/mixed; boundary=x\r\n\r\n\r\n--x\r\n--x--", 3)
def test_anything_comes_apart_the_same_in_any_chunks(octets: bytes, chunk: int) -> None:
    whole = parse(octets)
    assert parse(octets, chunk) == whole
    assert whole.parts[0].number == 1
    assert all(part.parent < part.number for part in whole.parts)
    assert sum(part.octets for part in whole.parts) <= len(octets)


@given(st.lists(st.binary(max_size=60).filter(lambda octets: b"--b" not in octets), max_size=5))
def test_bodies_are_kept_octet_by_octet(bodies: list[bytes]) -> None:
    octets = b"Content-Type: multipart/mixed; boundary=bound\r\n\r\n"
    octets += b"".join(b"--bound\r\n\r\n%b\r\n" % body for body in bodies) + b"--bound--\r\n"
    assert [part.beginning for part in parse(octets, 7).parts[1:]] == bodies


def test_what_the_library_makes_comes_apart() -> None:
    message = EmailMessage()
    message["Subject"] = "Grüße " * 30
    message.set_content("Hällo\n" * 200)
    message.add_alternative("<b>x</b>", subtype="html")
    message.add_attachment(b"\0\1" * 5000, maintype="image", subtype="png", filename="ä" * 100 + ".png")
    found = parse(message.as_bytes())
    assert found.text("subject") == ("Grüße " * 30).strip()
    assert [part.media_type for part in found.parts][2:] == ["text/plain", "text/html", "image/png"]
    assert found.parts[4].name == "ä" * 100 + ".png"


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"", b""),
        (b"no header at all\r\nbut words\r\n", b"no header at all\r\nbut words\r\n"),
        (b"Subject: x\r\nbroken line\r\n\r\nbody\r\n", b"broken line\r\n\r\nbody\r\n"),
        (b"Subject: only a header", b""),
        (b"From bob Mon Jan 1\r\nSubject: mbox\r\n\r\nbody", b"body"),
        (b"Content-Type: multipart/mixed\r\n\r\n--x\r\n\r\nno boundary", b"--x\r\n\r\nno boundary"),
        (b"Content-Type: multipart/mixed; boundary=x\r\n\r\nnever there", b"never there"),
        (b"Content-Type: nonsense\r\n\r\nbody", b""),
        (b"Content-Type: \xff\xfe/\0\r\n\r\nbody", b""),
    ],
)
def test_what_is_broken_is_text(octets: bytes, text: bytes) -> None:
    assert parse(octets).parts[0].beginning == text


def test_a_delimiter_ends_all_multiparts_inside_and_a_header_too() -> None:
    octets = (
        b"Content-Type: multipart/mixed; boundary=out\r\n\r\n"
        b"--out\r\nContent-Type: multipart/mixed; boundary=in\r\n\r\n"
        b"--in\r\n\r\none\r\n--out\r\nContent-Type: text/html\r\n--out\r\n\r\nthree\r\n--in\r\nstays\r\n"
    )
    assert shape(parse(octets)) == [
        (0, "multipart/mixed", b""),
        (1, "multipart/mixed", b""),
        (2, "text/plain", b"one"),
        (1, "text/html", b""),
        (1, "text/plain", b"three\r\n--in\r\nstays\r\n"),
    ]


OPEN = b"Content-Type: multipart/mixed; boundary=x\r\n\r\n"
MIB = 1024 * 1024
BOMBS = {
    "nested": b"".join(b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (i, i) for i in range(20_000)),
    "parts": OPEN + b"--x\r\n\r\na\r\n" * 100_000,
    "almost delimiters": OPEN + b"--xy\r\n--y\r\n" * 200_000,
    "dashes": OPEN + b"\n--" * 500_000,
    "delimiter without end": OPEN + b"\n--x" + b" " * 2 * MIB,
    "fields": b"a: b\r\n" * 300_000 + b"\r\nbody",
    "folds": b"Subject: x\r\n" + b" =?utf-8?q?a?=\r\n" * 200_000,
    "one line": OPEN + b"--x\r\n" + b"A" * 2 * MIB,
    "one field": b"Subject: " + b"A" * 2 * MIB,
    "parameters": b"Content-Type: text/plain" + b'; a="\\' * 300_000,
    "comments": b"Content-Type: text/plain" + b"(" * 2 * MIB,
    "part headers": OPEN + (b"--x\r\n" + b"Content-Type: text/plain;\r\n" + b" a=b;\r\n" * 2000 + b"\r\n\r\n") * 100,
}


@pytest.mark.conformance("C276")
@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_bounded(bomb: str) -> None:
    message = parse(BOMBS[bomb])
    assert len(message.parts) <= MAX_PARTS
    assert len(message.fields) <= MAX_FIELDS
    depths = {0: 0}
    for part in message.parts:
        depths[part.number] = depths[part.parent] + 1
    assert max(depths.values()) <= MAX_DEPTH + 1


def test_a_header_that_is_too_long_ends_all_the_same() -> None:
    message = parse(BOMBS["fields"], 1000)
    assert message.is_cut
    assert message.parts[0].beginning == b"body"


def test_memory_is_bounded_whatever_is_attached() -> None:
    line = b"A" * 76 + b"\r\n"
    chunk = line * 800
    reader = MimeReader()
    reader.feed(OPEN + b"--x\r\nContent-Type: application/pdf\r\n\r\n")
    tracemalloc.start()
    for _ in range(200):
        reader.feed(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * len(chunk)
    assert reader.finish().parts[1].octets == 200 * len(chunk)


def test_texts_are_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mime, "KEPT_OCTETS", 10)
    monkeypatch.setattr(mime, "ALL_KEPT_OCTETS", 15)
    message = parse(OPEN + b"--x\r\n\r\n0123456789ab\r\n--x\r\n\r\n0123456789\r\n--x--")
    assert [part.beginning for part in message.parts[1:]] == [b"0123456789", b"01234"]
    assert not any(part.is_whole for part in message.parts[1:])


def test_one_part_is_tapped() -> None:
    got: list[bytes] = []
    reader = MimeReader(tapped=5, tap=got.append)
    for at in range(len(MULTIPART)):
        reader.feed(MULTIPART[at : at + 1])
    reader.finish()
    assert b"".join(got) == b"QUJD"
