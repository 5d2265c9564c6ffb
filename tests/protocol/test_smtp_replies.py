"""Replies: their grammar over all that the core says, and their codes (RFC 5321 §4.2, RFC 2034, RFC 3463, RFC 5248)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from posthouse.mail.reply import reply
from posthouse.protocol.smtp_reply import encode_reply
from tests.protocol.smtp_reception import OPTIONS, Reception, check_replies
from tests.protocol.test_smtp_model import walk

PACKAGE = Path(__file__).parents[2] / "src" / "posthouse"
LITERAL = re.compile(r"\breply\(\s*(\d+),\s*(?:\"([^\"]*)\"|(None))")


@pytest.mark.conformance("C3", "C4", "C5", "C171", "C172", "C199")
def test_random_dialogues_are_answered_in_the_grammar(seed: int) -> None:
    """`Reception.received` checks each reply, here and in all other tests of the core."""
    walk(3_000, seed)


@pytest.mark.parametrize(
    "octets",
    [
        b"250-2.0.0 a\r\n251 2.0.0 b\r\n",
        b"250-2.0.0 a\r\n",
        b"250 OK\r\n",
        b"250 5.0.0 OK\r\n",
        b"550 5.01.1 no\r\n",
        b"550 5.1.1000 no\r\n",
        b"550-5.1.1 no\r\n550 5.1.2 no\r\n",
        b"650 6.0.0 x\r\n",
        b"25 2.0.0 x\r\n",
        b"250 2.0.0 \xc3\xa9\r\n",
        b"250 2.0.0 " + b"x" * 501 + b"\r\n",
        b"250 2.0.0 OK\n",
        b"354 3.0.0 Go on\r\n",
    ],
)
def test_the_grammar_can_fail(octets: bytes) -> None:
    with pytest.raises(AssertionError):
        check_replies(octets, "mx.test")


@pytest.mark.conformance("C171", "C172", "C43")
def test_every_reply_that_is_written_down_is_well_formed() -> None:
    """Each with an enhanced code of its own class, but the greetings of houses; none is a 251 or 551."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for code, enhanced, none in LITERAL.findall(path.read_text("utf-8")):
            found.append(code)
            assert 200 <= int(code) < 600
            assert code not in ("251", "551")
            if none:
                assert code[0] in "23", f"{path.name}: {code} has no enhanced code"
            else:
                assert re.fullmatch(rf"{code[0]}\.(0|[1-9]\d{{0,2}})\.(0|[1-9]\d{{0,2}})", enhanced), (path.name, code)
    assert len(found) > 60


@pytest.mark.conformance("C5", "C199")
def test_long_and_foreign_text_is_cut_and_made_printable() -> None:
    octets = encode_reply(reply(550, "5.1.1", "é" * 600 + "\n" + "x\r" * 600 + "\n" + "ok"))
    check_replies(octets, "mx.test")
    assert octets.count(b"\r\n") == 3
    session = Reception(replace(OPTIONS, hostname="x" * 250 + ".test"))
    for line in (
        "EHLO " + "n" * 255,
        "HELO " + "n" * 255,
        "VRFY " + "δ" * 200,
        "MAIL FROM:<" + "a" * 400 + ">",
        "QUIT",
    ):
        octets = session.say(line.encode() + b"\r\n")
        assert octets.isascii()
        assert max(map(len, octets.split(b"\r\n"))) <= 510
        assert b"nnn" not in octets


@pytest.mark.conformance("C173")
@pytest.mark.parametrize(
    ("dialogue", "wanted"),
    [
        (b"MAIL FROM:<a..b@c.test>", "501 5.1.7"),
        (b"MAIL FROM:<a@b.test>\r\nRCPT TO:<a..b@c.test>", "501 5.1.3"),
        (b"MAIL FROM:<a@b.test>\r\nRCPT TO:<nobody@d.test>", "550 5.1.1"),
        (b"MAIL FROM:<x@bad.test>", "550 5.1.8"),
        (b"MAIL FROM:<> SIZE=10001", "552 5.3.4"),
        (b"MAIL FROM:<>\r\nRCPT TO:<c@d.test>\r\nBDAT 10001 LAST\r\n" + b"x" * 9_999, "552 5.3.4"),
        (b"RCPT TO:<c@d.test>", "503 5.5.1"),
        (b"FOO", "500 5.5.2"),
        (b"A" * 20_000, "500 5.5.6"),
        (b"MAIL FROM:<> SIZE=x", "501 5.5.4"),
        (b"MAIL FROM:<> FOO=1", "555 5.5.4"),
        (b"AUTH FOO", "504 5.5.4"),
        (b"MAIL FROM:<>\r\nRCPT TO:<c@d.test>\r\nDATA\r\na\nb\r\n.", "550 5.6.11"),
        (b"MAIL FROM:<\xc3\xa9@b.test>", "553 5.6.7"),
        (b"AUTH PLAIN AGEAYg==", "535 5.7.8"),
        (b"AUTH PLAIN\r\n*", "501 5.7.0"),
        (b"AUTH PLAIN !", "501 5.5.2"),
        (b"GET / HTTP/1.0", "421 4.7.0"),
    ],
)
def test_codes_are_specific(dialogue: bytes, wanted: str) -> None:
    session = Reception(replace(OPTIONS, auth_mechanisms=("PLAIN",)))
    answers = session.say(b"EHLO c.test\r\n" + dialogue + b"\r\n").split(b"\r\n")
    assert answers[-2].startswith(wanted.encode() + b" ")
