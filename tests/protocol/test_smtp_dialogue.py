"""The order of commands and what single commands do, one line of RFC 5321 at a time."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from posthouse.mail.reply import Reply, reply
from posthouse.protocol.events import Command
from posthouse.protocol.smtp import StartTls
from tests.protocol.smtp_reception import OPTIONS, Reception

ENVELOPE = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
BREAKS = [
    b"\v",
    b"\f",
    b"\x1c",
    b"\x1d",
    b"\x1e",
    b"\x85",
    b"\xc2\x85",
    b"\xe2\x80\xa8",
    b"\xe2\x80\xa9",
    b"\0",
    b"\x1a",
]
"""What str.splitlines(), or some other reader of text, takes for the end of a line."""


def reception() -> Reception:
    begun = Reception()
    begun.say(b"EHLO c.test\r\n")
    return begun


def codes(octets: bytes) -> list[int]:
    return [int(line[:3]) for line in octets.split(b"\r\n")[:-1] if line[3:4] == b" "]


@pytest.mark.conformance("C1", "C21")
def test_the_greeting() -> None:
    session = Reception()
    assert session.received() == b"220 mx.test Posthouse\r\n"
    assert session.received() == b""


@pytest.mark.conformance("C6", "C7", "C31")
def test_helo_and_ehlo() -> None:
    session = Reception()
    session.received()
    assert session.say(b"HELO c.test\r\n") == b"250 mx.test at your service\r\n"
    assert codes(session.say(b"MAIL FROM:<> SIZE=1\r\nMAIL FROM:<> BODY=8BITMIME\r\nMAIL FROM:<>\r\n")) == [
        555,
        555,
        250,
    ]
    first, *lines, end = session.say(b"EHLO c.test\r\n").split(b"\r\n")
    assert end == b""
    assert first.startswith(b"250-mx.test ")
    assert all(re.fullmatch(rb"250[- ][A-Z0-9][A-Z0-9-]*( [!-~]+)*", line) for line in lines)


@pytest.mark.conformance("C10", "C11")
def test_a_second_ehlo_is_a_reset_and_a_bad_one_is_nothing() -> None:
    for hello in (b"EHLO again.test\r\n", b"HELO again.test\r\n"):
        session = reception()
        assert codes(session.say(ENVELOPE + hello + b"DATA\r\nRCPT TO:<c@d.test>\r\n")) == [250, 250, 250, 503, 503]
        assert session.mail is None
    for bad in (b"EHLO\r\n", b"EHLO \r\n", b"EHLO a b\r\n", b"HELO [999.1.1.1]\r\n", b"EHLO refused.test\r\n"):
        session = reception()
        answers = codes(session.say(b"MAIL FROM:<a@b.test>\r\n" + bad + b"RCPT TO:<c@d.test>\r\nDATA\r\n.\r\n"))
        assert answers in ([250, 501, 250, 354, 250], [250, 550, 250, 354, 250])


@pytest.mark.conformance("C15", "C16")
def test_what_works_before_ehlo() -> None:
    session = Reception()
    session.received()
    assert codes(session.say(b"NOOP\r\nHELP\r\nEXPN x\r\nVRFY x\r\nRSET\r\n")) == [250, 214, 502, 252, 250]
    assert codes(session.say(b"MAIL FROM:<>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n")) == [503, 503, 503]
    assert codes(session.say(b"QUIT\r\n")) == [221]
    assert session.ended()


@pytest.mark.conformance("C14", "C29")
@pytest.mark.parametrize("spell", [str.upper, str.lower, str.swapcase, str.title])
def test_case_and_white_space_at_the_end(spell: object) -> None:
    assert callable(spell)
    session = Reception()
    session.received()
    lines = ("ehlo c.test", "mail from:<> body=8bitmime size=5 ret=full", "rcpt to:<c@d.test> notify=never", "data")
    for line, code in zip(lines, (250, 250, 250, 354), strict=True):
        assert codes(session.say(spell(line).encode() + b" \t \r\n")) == [code]
    assert codes(session.say(b".\r\n" + spell("rset").encode() + b"  \r\n" + spell("quit").encode() + b" \r\n")) == [
        *(250, 250, 221),
    ]


@pytest.mark.conformance("C30", "C34")
def test_a_refused_mail_begins_nothing() -> None:
    for line, code in ((b"FOO=1", 555), (b"SIZE=x", 501), (b"SIZE=99999", 552), (b"SMTPUTF8=1", 501)):
        session = reception()
        answers = codes(session.say(b"MAIL FROM:<a@b.test> " + line + b"\r\nRCPT TO:<c@d.test>\r\nDATA\r\n"))
        assert answers == [code, 503, 503]
        assert codes(session.say(ENVELOPE.replace(b"<c", b"<nobody") + b"DATA\r\n")) == [250, 550, 554]


@pytest.mark.conformance("C33")
def test_a_nested_mail_leaves_the_first_alone() -> None:
    session = reception()
    dialogue = b"MAIL FROM:<a@b.test>\r\nMAIL FROM:<evil@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n.\r\n"
    assert codes(session.say(dialogue)) == [250, 503, 250, 354, 250]
    assert str(session.deliveries[0].mail.reverse_path) == "a@b.test"


@pytest.mark.conformance("C62", "C63", "C61")
def test_rset_noop_and_arguments() -> None:
    session = reception()
    assert codes(session.say(ENVELOPE + b"NOOP hello\r\nRSET x\r\nDATA foo\r\nQUIT now\r\nDATA\r\n.\r\n"))[2:] == [
        *(250, 501, 501, 501, 354, 250),
    ]
    assert codes(session.say(ENVELOPE + b"RSET\r\nRCPT TO:<c@d.test>\r\nMAIL FROM:<>\r\n")) == [250, 250, 250, 503, 250]
    assert not session.ended()


@pytest.mark.conformance("C64", "C65", "C66", "C67", "C199", "S7")
def test_commands_that_tell_nothing() -> None:
    session = reception()
    session.say(ENVELOPE)
    for line, code in {
        b"HELP": 214,
        b"HELP MAIL": 214,
        b"HELP XYZ": 214,
        b"EXPN staff": 502,
        b"EXPN \xce\xb4": 502,
        **dict.fromkeys((b"SEND FROM:<>", b"SOML FROM:<>", b"SAML FROM:<>", b"TURN", b"ETRN x", b"etrn"), 502),
        **dict.fromkeys((b"FOO", b"XCLIENT ADDR=1", b"XFORWARD", b"BURL", b"\x80", b"", b" NOOP", b"MAILX"), 500),
        b"VRFY c": 252,
        b"VRFY nobody": 252,
        b"VRFY <c@d.test>": 252,
        b"VRFY \xce\xb4\xce\xbf\xce\xba": 252,
        b"VRFY \xff\xfe garbage \x01": 252,
        b"VRFY": 501,
        b"VRFY c SMTPUTF8": 252,
        b"VRFY c smtputf8=1": 501,
    }.items():
        assert codes(session.say(line + b"\r\n")) == [code], line
    assert codes(session.say(b"DATA\r\n.\r\n")) == [354, 250], "the transaction was left alone"
    assert len({session.say(b"VRFY " + name + b"\r\n") for name in (b"c", b"nobody", b"x y", b"\xce\xb4")}) == 1


@pytest.mark.conformance("C46", "C277", "C305")
@pytest.mark.parametrize("octets", BREAKS, ids=repr)
def test_what_other_readers_take_for_line_ends_is_none(octets: bytes) -> None:
    session = reception()
    for line in (
        b"MAIL FROM:<a%b@b.test>",
        b"MAIL FROM:<%>",
        b"NOOP%RSET",
        b"VRFY a%MAIL FROM:<>",
        b"FOO%QUIT",
        b"EHLO x%y",
    ):
        assert len(codes(session.say(line.replace(b"%", octets) + b"\r\n"))) == 1
    assert session.mail is None
    content = b"Subject: a" + octets + b"X-Injected: b\r\n\r\n" + octets + b"." + octets + b"\r\n"
    assert codes(session.say(ENVELOPE + b"DATA\r\n" + content + b".\r\n")) == [250, 250, 354, 250]
    assert session.deliveries[0].content == content


@pytest.mark.conformance("C148", "C149", "C151", "C306", "S33")
@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        *(("0", 250), ("1", 250), ("10000", 250), ("00000000000000010000", 250), ("10001", 552), ("9" * 20, 552)),
        *(("abc", 501), ("", 501), ("-1", 501), ("+1", 501), ("1e3", 501), ("１２", 501), ("1_0", 501), ("0x1", 501)),
        *((" 1", 501), ("9" * 21, 501), ("9" * 400, 501), ("²", 501), ("1.0", 501), ("9" * 5000, 500)),
    ],
)
def test_declared_sizes(size: str, wanted: int) -> None:
    session = reception()
    assert codes(session.say(f"MAIL FROM:<> SIZE={size}\r\nNOOP\r\n".encode())) == [wanted, 250]


@pytest.mark.conformance("C149")
@pytest.mark.parametrize("declared", [b"0", b"1", b"10000"])
def test_a_declared_size_is_not_trusted(declared: bytes) -> None:
    session = reception()
    mail = ENVELOPE.replace(b">\r\nRCPT", b"> SIZE=" + declared + b"\r\nRCPT") + b"DATA\r\n"
    assert codes(session.say(mail + b"short\r\n.\r\n")) == [250, 250, 354, 250]
    assert codes(session.say(mail + b"x" * 9_998 + b"\r\n.\r\n"))[-1] == 250
    assert codes(session.say(mail + b"x" * 9_999 + b"\r\n.\r\n"))[-1] == 552


@pytest.mark.conformance("C155", "C160")
def test_content_in_the_segment_of_data() -> None:
    session = reception()
    assert codes(session.say(ENVELOPE + b"DATA\r\nglued\r\n.\r\n" + ENVELOPE + b"DATA\r\n")) == [
        *(250, 250, 354, 250, 250, 250, 354),
    ]
    assert codes(session.say(b"apart\r\n.\r\n")) == [250]
    assert [delivery.content for delivery in session.deliveries] == [b"glued\r\n", b"apart\r\n"]


@pytest.mark.conformance("C156", "C45")
def test_a_group_whose_recipients_are_all_refused() -> None:
    session = reception()
    group = ENVELOPE.replace(b"<c@", b"<nobody@") + b"DATA\r\n.\r\n"
    assert codes(session.say(group)) == [250, 550, 554, 500]
    assert session.deliveries == []


@pytest.mark.conformance("C138")
def test_starttls_takes_no_argument_and_may_not_be_possible_now() -> None:
    class Later(Reception):
        def decide(self, command: Command) -> Reply:
            return reply(454, "4.7.0", "Not now") if command == StartTls() else super().decide(command)

    session = Later(replace(OPTIONS, starttls=True))
    session.say(b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n")
    assert codes(session.say(b"STARTTLS x\r\nSTARTTLS\r\nRCPT TO:<c@d.test>\r\n")) == [501, 554]
    session = Later(replace(OPTIONS, starttls=True))
    session.say(b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n")
    assert codes(session.say(b"STARTTLS\r\n")) == [454]
    assert codes(session.say(b"RCPT TO:<c@d.test>\r\n")) == [250]
    assert codes(Reception(replace(OPTIONS, starttls=True)).say(b"STARTTLS\r\n")) == [220, 503]


@pytest.mark.conformance("C307")
def test_patterns_match_to_the_end_and_in_linear_time() -> None:
    session = reception()
    for line in (
        b"MAIL FROM:<a@b.test\n>",
        b"MAIL FROM:<a@b.test>\n",
        b"MAIL FROM:<a\n@b.test>",
        b"EHLO x\n",
        b"BDAT 1\n",
    ):
        assert codes(session.say(line + b"\r\n")) == [500]
    for path in ("a." * 900 + "@b.test", "a" * 1900 + "@", '"' + "\\" * 1800, "a@" + "b." * 900, "@" + "a," * 900):
        assert codes(session.say(f"MAIL FROM:<{path}>\r\n".encode())) == [501]
