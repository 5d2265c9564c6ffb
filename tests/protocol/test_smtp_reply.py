"""Replies on the wire, ours and a peer's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.reply import EnhancedCode, Reply, reply
from posthouse.protocol.errors import LocalProtocolError, RemoteProtocolError
from posthouse.protocol.smtp_reply import (
    MAX_REPLY_LINES,
    MAX_REPLY_OCTETS,
    MAX_TEXT_CHARACTERS,
    ReplyReader,
    encode_reply,
)

CODES = st.integers(200, 299) | st.integers(400, 599)


def decode(*lines: bytes) -> Reply | None:
    reader = ReplyReader()
    found = None
    for line in lines:
        assert found is None
        found = reader.feed(line, enhanced=True)
    return found


@pytest.mark.conformance("C171")
def test_each_line_carries_the_enhanced_code() -> None:
    assert encode_reply(reply(550, "5.1.1", "No\nsuch user")) == b"550-5.1.1 No\r\n550 5.1.1 such user\r\n"
    assert encode_reply(Reply(451, None, "x")) == b"451 4.0.0 x\r\n"
    assert encode_reply(Reply(354, None, "Go")) == b"354 Go\r\n"


@pytest.mark.conformance("C4", "C172")
@pytest.mark.parametrize("bad", [Reply(199), Reply(600), Reply(42), Reply(250, EnhancedCode(5, 0, 0))])
def test_a_reply_that_none_can_be(bad: Reply) -> None:
    with pytest.raises(LocalProtocolError):
        encode_reply(bad)


@pytest.mark.conformance("C5")
@given(CODES, st.text(max_size=1500))
def test_lines_are_short_and_printable(code: int, text: str) -> None:
    encoded = encode_reply(Reply(code, None, text))
    lines = encoded.split(b"\r\n")
    assert lines.pop() == b""
    assert len(lines) == min(text.count("\n") + 1, MAX_REPLY_LINES)
    assert all(len(line) <= 510 and all(32 <= octet < 127 for octet in line) for line in lines)
    assert [line[3:4] for line in lines] == [b"-"] * (len(lines) - 1) + [b" "]


@pytest.mark.conformance("C5")
def test_every_long_line_is_cut() -> None:
    encoded = encode_reply(reply(550, "5.123.123", "a" * 600 + "\n" + "b" * 600))
    assert [len(line) for line in encoded.split(b"\r\n")] == [510, 510, 0]


@given(CODES, st.integers(0, 999), st.integers(0, 999), st.text(st.characters(codec="ascii", categories=["L", "N"])))
def test_round_trip(code: int, subject: int, detail: int, text: str) -> None:
    sent = Reply(code, EnhancedCode(code // 100, subject, detail), text)
    assert decode(*encode_reply(sent).split(b"\r\n")[:-1]) == sent


@pytest.mark.conformance("C93", "C174")
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b"250", Reply(250)),
        (b"250 ", Reply(250)),
        (b"299 odd", Reply(299, None, "odd")),
        (b"250 5.0.0 lie", Reply(250, None, "5.0.0 lie")),
        (b"550 5.1.99999999999.1 x", Reply(550, None, "5.1.99999999999.1 x")),
        (b"550 5.1.9999 x", Reply(550, None, "5.1.9999 x")),
        (b"550 5.01.1 x", Reply(550, None, "5.01.1 x")),
        (b"550 5.1.1", Reply(550, EnhancedCode(5, 1, 1))),
        (b"550 a\x1b[31m\xff\0", Reply(550, None, "a?[31m\ufffd?")),
    ],
)
def test_odd_replies_of_a_peer(line: bytes, wanted: Reply) -> None:
    assert decode(line) == wanted


def test_lines_of_a_peer_are_joined() -> None:
    assert decode(b"250-2.1.0 a", b"250-", b"250 2.1.0 b") == reply(250, "2.1.0", "a\n\nb")


@pytest.mark.conformance("C93", "S22")
@pytest.mark.parametrize(
    "lines",
    [
        [b""],
        [b"25"],
        [b"2500"],
        [b"250x"],
        [b"199 x"],
        [b"600 x"],
        [b"\xb2\xb2\xb2 x"],
        [b"hello"],
        [b"250-a", b"251 b"],
        [b"250-a"] * (MAX_REPLY_LINES + 1),
        [b"250-" + b"x" * 4000] * (MAX_REPLY_OCTETS // 4000 + 1),
    ],
)
def test_garbage_of_a_peer(lines: list[bytes]) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(*lines)


@pytest.mark.conformance("C174")
def test_little_of_a_peers_text_is_kept() -> None:
    found = decode(*[b"550-" + b"x" * 4000] * 100, b"550 x")
    assert found is not None
    assert len(found.text) < 10_000


@pytest.mark.conformance("C174", "S22")
@given(CODES, st.lists(st.binary(max_size=40).filter(lambda line: b"\r\n" not in line), min_size=1, max_size=6))
def test_a_peers_text_may_stand_anywhere(code: int, lines: list[bytes]) -> None:
    """Whatever it says: printable, on lines of its own, with no octet that could end one."""
    *first, last = lines
    found = decode(*(b"%d-%b" % (code, line) for line in first), b"%d %b" % (code, last))
    assert found is not None
    assert len(found.text) <= MAX_TEXT_CHARACTERS
    assert all(line.isprintable() for line in found.text.split("\n"))
    assert found.text.count("\n") == len(first)
    assert found.enhanced is None or found.enhanced.klass == code // 100


@pytest.mark.conformance("C174")
@pytest.mark.parametrize(
    "line", [b"550 " + b"5." * 450, b"550 5.1.1" + b"1" * 900, b"550 5.7.2", b"250 2", b"550 5.1.1.1 x"]
)
def test_a_strange_enhanced_code_is_text_or_none(line: bytes) -> None:
    found = decode(line)
    assert found is not None
    assert found.enhanced in (None, EnhancedCode(5, 7, 2))
    assert len(str(found)) <= len(line)
