"""The server half where a written dialogue is not enough: smuggling, limits, STARTTLS, endings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from posthouse.mail.reply import reply
from posthouse.protocol.errors import LocalProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA
from posthouse.protocol.smtp import BeginContent, EndOfContent, Hello, Mail
from posthouse.protocol.smtp_server import (
    EXTENSIONS,
    ContentChunk,
    ContentRefused,
    QuitReceived,
    Rejected,
    ServerOptions,
    SmtpServer,
    TransactionDropped,
)
from tests.protocol.smtp_reception import OPTIONS, Reception
from tests.transcripts.player import pieces

ENVELOPE = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n"
NOT_TERMINATORS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r.\n",
    b"\n.\r",
    b"\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n\r.\r\n",
]


def reception(options: ServerOptions = OPTIONS) -> Reception:
    begun = Reception(options)
    begun.say(b"EHLO c.test\r\n")
    begun.events.clear()
    return begun


def codes(octets: bytes) -> list[int]:
    return [int(line[:3]) for line in octets.split(b"\r\n")[:-1] if line[3:4] == b" "]


@pytest.mark.conformance("C46", "C48", "C55", "C153", "S1")
@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize("terminator", NOT_TERMINATORS, ids=repr)
def test_only_crlf_dot_crlf_ends_content(terminator: bytes, piece: int) -> None:
    session = reception()
    smuggled = b"MAIL FROM:<evil@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nevil"
    for part in pieces(ENVELOPE + b"good" + terminator + smuggled + b"\r\n.\r\n", piece):
        session.send(part)
    answers = codes(session.received())
    assert answers[:3] == [250, 250, 354]
    assert len(answers) == 4, "one reply at the true end, and nothing was taken for a command"
    has_bare_line_end = b"\0" not in terminator
    assert answers[3] == (550 if has_bare_line_end else 250)
    assert len(session.deliveries) == (0 if has_bare_line_end else 1)
    assert all(b"evil" in delivery.content for delivery in session.deliveries)
    assert codes(session.say(b"DATA\r\n")) == [503]


@pytest.mark.conformance("C49")
def test_dots_are_taken_off() -> None:
    session = reception()
    session.say(ENVELOPE + b"..\r\n...\r\n..x\r\n.y\r\na.\r\n.\r\n")
    assert session.deliveries[0].content == b".\r\n..\r\n.x\r\ny\r\na.\r\n"


@pytest.mark.conformance("C56", "C150", "C153")
@pytest.mark.parametrize(("excess", "code"), [(-1, 250), (0, 250), (1, 552), (50_000, 552)])
def test_size_of_content(excess: int, code: int) -> None:
    session = reception()
    size = OPTIONS.message_size_octets + excess
    content = b"y" * (size - 2) + b"\r\n"
    answers = codes(session.say(ENVELOPE + content + b".\r\nRCPT TO:<c@d.test>\r\n"))
    assert answers == [250, 250, 354, code, 503]
    refused = [event for event in session.events if isinstance(event, ContentRefused | TransactionDropped)]
    assert len(refused) == (0 if code == 250 else 2)


@pytest.mark.conformance("C52")
@pytest.mark.parametrize("length", [998, 999, 1000, 1001, 65_536, 10_000_000])
def test_long_lines_are_kept_whole(length: int) -> None:
    """Also where a line that is cut at 1000 octets would begin with the dot, and be the end."""
    session = reception(replace(OPTIONS, message_size_octets=20_000_000))
    content = b"x" * min(length - 1, 1000) + b"." * (length - min(length - 1, 1000)) + b"\r\n.x\r\n"
    session.say(ENVELOPE)
    for part in pieces(content.replace(b"\r\n.", b"\r\n..") + b".\r\n", 1000 if length < 70_000 else 65_536):
        session.send(part)
    assert codes(session.received()) == [250]
    assert session.deliveries[0].content == content


@pytest.mark.conformance("C150")
def test_stuffing_does_not_count() -> None:
    session = reception(replace(OPTIONS, message_size_octets=300))
    assert codes(session.say(ENVELOPE + b"..\r\n" * 100 + b".\r\n"))[-1] == 250


@pytest.mark.conformance("C148", "C149")
@pytest.mark.parametrize(("declared", "code"), [(10_000, 250), (10_001, 552), (10**20 - 1, 552)])
def test_declared_size(declared: int, code: int) -> None:
    assert codes(reception().say(b"MAIL FROM:<> SIZE=%d\r\n" % declared)) == [code]


@pytest.mark.conformance("C39", "C40")
def test_too_many_recipients_leave_the_earlier_ones_valid() -> None:
    session = reception(replace(OPTIONS, max_recipients=100))
    answers = codes(session.say(b"MAIL FROM:<>\r\n" + b"RCPT TO:<c@d.test>\r\n" * 101 + b"DATA\r\nhi\r\n.\r\n"))
    assert answers == [250] + [250] * 100 + [452, 354, 250]
    assert len(session.deliveries[0].recipients) == 100


@pytest.mark.conformance("C38")
def test_long_lines_are_answered_once() -> None:
    session = reception()
    assert codes(session.say(b"NOOP " + b"A" * 600 + b"\r\n")) == [500]
    assert codes(session.say(b"MAIL FROM:<" + b"A" * 5000 + b">\r\nRSET\r\n")) == [500, 250]
    assert codes(session.say(b"A" * 40_000 + b"\r\nRSET\r\n")) == [500, 250]


@pytest.mark.conformance("C38")
@pytest.mark.parametrize(("octets", "answer"), [(512, 250), (513, 500)])
def test_the_limit_of_a_command_line_counts_its_crlf(octets: int, answer: int) -> None:
    assert codes(reception().say(b"NOOP ".ljust(octets - 2, b"a") + b"\r\n")) == [answer]


@pytest.mark.conformance("C38")
@pytest.mark.parametrize("cut", range(12_996, 13_005))
def test_the_rest_of_a_long_line_is_no_command(cut: int) -> None:
    """However it is cut on its way, and though its last piece would be one."""
    session = reception()
    line = b"A" * 13_000 + b"RSET"
    session.send(line[:cut])
    assert session.received() == b""
    assert codes(session.say(line[cut:] + b"\r\nNOOP\r\n")) == [500, 250]


@pytest.mark.conformance("C38")
def test_an_endless_line_ends_the_session() -> None:
    session = reception()
    session.say(ENVELOPE[:22])
    for _ in range(100):
        session.send(b"A" * 10_000)
    assert codes(session.received()) == [500]
    assert session.ended()
    assert session.events[-1] == TransactionDropped()


@pytest.mark.conformance("C122")
def test_a_long_line_ends_the_exchange_only() -> None:
    session = reception(replace(OPTIONS, auth_mechanisms=("PLAIN",)))
    assert session.say(b"AUTH PLAIN\r\n" + b"A" * 13_000 + b"\r\n").endswith(b"500 5.5.6 Line too long\r\n")
    assert codes(session.say(b"AUTH PLAIN AGFsaWNlAHJpZ2h0\r\n")) == [235]
    assert session.server.authenticated


@pytest.mark.conformance("C154")
def test_many_commands_in_one_write() -> None:
    session = reception()
    group = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<nobody@d.test>\r\nFOO\r\nRSET\r\nNOOP\r\n"
    assert codes(session.say(group * 100)) == [250, 550, 500, 250, 250] * 100


@pytest.mark.conformance("C6", "C7", "C8", "C9")
def test_offers_are_what_the_options_say() -> None:
    options = replace(OPTIONS, starttls=True, auth_mechanisms=("PLAIN",), extensions=frozenset({"DSN", "BINARYMIME"}))
    assert Reception(options).say(b"EHLO c.test\r\n").split(b"\r\n")[2:-1] == [
        b"250-DSN",
        b"250-AUTH PLAIN",
        b"250 STARTTLS",
    ]
    assert len(Reception(options).say(b"HELO c.test\r\n").split(b"\r\n")) == 3


@pytest.mark.conformance("C139")
def test_starttls_forgets_everything() -> None:
    session = reception(replace(OPTIONS, starttls=True, auth_mechanisms=("PLAIN",)))
    session.say(b"AUTH PLAIN AGFsaWNlAHJpZ2h0\r\nMAIL FROM:<a@b.test>\r\n")
    assert codes(session.say(b"STARTTLS\r\n")) == [220]
    assert session.events[-1] == TransactionDropped()
    with pytest.raises(LocalProtocolError):
        session.server.receive(b"\x16\x03\x01")
    session.server.tls_started(OPTIONS)
    assert not session.server.authenticated
    assert codes(session.say(b"RCPT TO:<c@d.test>\r\n")) == [503]
    assert b"STARTTLS" not in session.say(b"EHLO c.test\r\n")
    assert codes(session.say(b"STARTTLS\r\n")) == [502]


@pytest.mark.conformance("C140", "C280", "S3")
@pytest.mark.parametrize("injected", [b"EHLO inj\r\n", b"x"])
def test_nothing_may_follow_starttls(injected: bytes) -> None:
    session = reception(replace(OPTIONS, starttls=True))
    assert codes(session.say(b"STARTTLS\r\n" + injected)) == [554]
    assert session.ended()


@pytest.mark.conformance("C140")
def test_nothing_may_come_before_the_handshake_is_agreed() -> None:
    server = SmtpServer(replace(OPTIONS, starttls=True))
    server.greet()
    server.receive(b"EHLO c.test\r\n")
    server.next_event()
    server.reply(reply(250, None, ""))
    server.receive(b"STARTTLS\r\n")
    server.next_event()
    server.outgoing()
    server.receive(b"EHLO inj\r\n")
    server.reply(reply(220, "2.0.0", "Go"))
    assert codes(server.outgoing()) == [554]
    assert isinstance(server.next_event(), Rejected)
    assert server.next_event() is CLOSED


@pytest.mark.conformance("C17", "C19")
@pytest.mark.parametrize(
    ("octets", "wanted"),
    [
        (b"", []),
        (b"MAIL FROM:<a@b.test>\r\n", [TransactionDropped()]),
        (ENVELOPE + b"half", [TransactionDropped()]),
        (b"MAIL FROM:<a@b.test>\r\nQUIT\r\n", [TransactionDropped(), QuitReceived()]),
    ],
)
def test_an_open_transaction_ends_with_the_session(octets: bytes, wanted: list[object]) -> None:
    session = reception()
    if octets:
        session.send(octets)
    session.send(b"")
    assert session.ended()
    assert [event for event in session.events if isinstance(event, TransactionDropped | QuitReceived)] == wanted


@pytest.mark.conformance("C18")
@pytest.mark.parametrize("begun", [b"", b"MAIL FROM:<a@b.test>\r\n", ENVELOPE + b"half"])
def test_closing_with_a_farewell(begun: bytes) -> None:
    session = reception()
    session.say(begun or b"NOOP\r\n")
    session.server.close(reply(421, "4.3.2", "Shutting down"))
    assert codes(session.received()) == [421]
    session.pump()
    assert session.ended()
    assert (TransactionDropped() in session.events) == bool(begun)
    assert session.say(b"NOOP\r\n") == b""


def test_421_in_answer_to_a_command_ends_the_session() -> None:
    server = SmtpServer(OPTIONS)
    server.greet()
    server.receive(b"EHLO c.test\r\nNOOP\r\n")
    assert server.next_event() == Hello("c.test", True)
    server.reply(reply(421, "4.3.2", "Not now"))
    assert server.next_event() is CLOSED
    assert codes(server.outgoing()) == [220, 421]


def test_each_command_waits_for_one_reply() -> None:
    server = SmtpServer(OPTIONS)
    server.greet()
    assert server.next_event() is NEED_DATA
    with pytest.raises(LocalProtocolError):
        server.reply(reply(250, None, ""))
    server.receive(b"EHLO c.test\r\n")
    server.next_event()
    with pytest.raises(LocalProtocolError):
        server.next_event()
    with pytest.raises(LocalProtocolError):
        server.greet()


@pytest.mark.conformance("C45", "C156")
def test_a_refused_data_ends_the_transaction() -> None:
    server = SmtpServer(OPTIONS)
    server.greet()
    server.receive(b"EHLO c.test\r\n" + ENVELOPE + b"DATA\r\n")
    for answer in (250, 250, 250):
        server.next_event()
        server.reply(reply(answer, None, ""))
    assert server.next_event() == BeginContent()
    server.reply(reply(451, "4.3.1", "No room"))
    assert server.next_event() == TransactionDropped()
    assert isinstance(server.next_event(), Rejected)


@pytest.mark.conformance("C299")
def test_rejections_hold_no_secrets_and_no_controls() -> None:
    session = reception(replace(OPTIONS, auth_mechanisms=("PLAIN",)))
    session.say(
        b"AUTH PLAIN AGFsaWNlAHdyb25\r\nAUTH PLAIN\r\nc2VjcmV0c2VjcmV0!\r\n\x1b[31mEVIL\0" + b"x" * 99 + b"\r\n"
    )
    verbs = [event.line_verb for event in session.events if isinstance(event, Rejected)]
    assert verbs == ["AUTH", "AUTH", "?"]
    assert "alice" not in repr(session.events)


def test_empty_content() -> None:
    session = reception()
    assert codes(session.say(ENVELOPE + b".\r\n"))[-1] == 250
    assert not any(isinstance(event, ContentChunk) for event in session.events)
    assert EndOfContent(0) in session.events
    assert isinstance(session.deliveries[0].mail, Mail)


@pytest.mark.conformance("C160")
def test_octets_before_the_greeting_are_not_answered() -> None:
    """Whoever talks early may be sent away; its octets wait, and are no commands then."""
    server = SmtpServer(OPTIONS)
    server.receive(b"EHLO c.test\r\nMAIL FROM:<>\r\n")
    assert server.next_event() is NEED_DATA
    assert server.outgoing() == b""
    server.close(reply(554, "5.5.1", "You talk before you are greeted"))
    assert server.next_event() is CLOSED
    assert server.outgoing() == b"554 5.5.1 You talk before you are greeted\r\n"


@pytest.mark.conformance("C2")
def test_a_session_that_is_not_served_waits_for_quit() -> None:
    session = Reception(refusal=reply(554, "5.7.1", "Not for you"))
    assert codes(session.received()) == [554]
    assert codes(session.say(b"EHLO c.test\r\nNOOP\r\nBDAT 6 LAST\r\nQUIT\r\nFOO\r\n")) == [503] * 4
    assert codes(session.say(b"QUIT\r\n")) == [221]
    assert session.ended()


@pytest.mark.conformance("C68", "C296")
@pytest.mark.parametrize("method", [b"GET", b"POST", b"get", b"CONNECT", b"OPTIONS"])
def test_http_ends_the_session(method: bytes) -> None:
    for session in (reception(), Reception(), Reception(refusal=reply(554, "5.7.1", "Not for you"))):
        session.received()
        assert codes(session.say(method + b" / HTTP/1.1\r\nHost: mx.test\r\n\r\nMAIL FROM:<>\r\n")) == [421]
        assert session.ended()


@pytest.mark.conformance("C153", "S12")
def test_content_without_end_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.protocol.smtp_server.DISCARDED_CONTENT_OCTETS", 100_000)
    session = reception()
    session.say(ENVELOPE)
    for _ in range(10):
        session.send(b"a\n" * 5_000)
    assert session.received() == b""
    assert not session.ended()
    session.send(b"x" * 20_000)
    assert codes(session.received()) == [552]
    assert session.ended()
    assert session.mail is None


@pytest.mark.conformance("C286", "C310", "S12")
@pytest.mark.parametrize(
    "begun",
    [
        *(b"", b"MAIL FROM:<", b"AUTH PLAIN ", b"AUTH LOGIN\r\n", b"BDAT ", b"BDAT 9999999 LAST\r\n"),
        *(ENVELOPE, ENVELOPE + b"Subject: ", ENVELOPE + b"\r\n", ENVELOPE[:-6] + b"BDAT 9999999\r\n"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("octet", [b"A", b"\r", b"\n", b".", b"\0"])
def test_what_is_held_of_endless_input_is_bounded(begun: bytes, octet: bytes) -> None:
    """1 MiB of one octet: the core holds a line's limit at most, says one thing at most, and then the session ends."""
    server = Reception(replace(OPTIONS, auth_mechanisms=("PLAIN", "LOGIN")))
    server.say(b"EHLO c.test\r\n" + begun)
    held = 0
    for _ in range(64):
        server.send(octet * 16_384)
        server.draft.clear()
        held = max(held, len(server.server._input))
    assert held <= 12_288 + 16_384
    assert len(codes(server.received())) <= 1


@pytest.mark.conformance("C310")
def test_a_line_of_64_kib_and_then_a_command() -> None:
    session = reception()
    assert codes(session.say(b"A" * 65_534 + b"\r\nNOOP\r\n")) == [500, 250]


# Limits that are told (RFC 9422).


@pytest.mark.conformance("C175")
def test_the_limits_that_are_told_hold() -> None:
    options = replace(OPTIONS, max_recipients=100, max_messages=2)
    session = Reception(options)
    assert b"\r\n250 LIMITS RCPTMAX=100 MAILMAX=2\r\n" in session.say(b"EHLO c.test\r\n")
    assert codes(session.say(b"MAIL FROM:<>\r\n" + b"RCPT TO:<c@d.test>\r\n" * 101)) == [250] * 101 + [452]
    # A new EHLO begins no new count, and a MAIL that is refused for its order is none.
    assert b"MAILMAX=2" in session.say(b"MAIL FROM:<>\r\nEHLO c.test\r\n")
    assert codes(session.say(ENVELOPE + b"hi\r\n.\r\n")) == [250, 250, 354, 250]
    assert codes(session.say(b"MAIL FROM:<>\r\nNOOP\r\n")) == [421]
    assert session.ended()
    assert len(session.deliveries) == 1


@pytest.mark.conformance("C175")
def test_limits_are_told_anew_after_tls() -> None:
    session = reception(replace(OPTIONS, starttls=True, max_messages=1))
    assert codes(session.say(b"MAIL FROM:<>\r\nSTARTTLS\r\n")) == [250, 220]
    session.server.tls_started(replace(OPTIONS, max_messages=5, max_recipients=7))
    assert b"LIMITS RCPTMAX=7 MAILMAX=5\r\n" in session.say(b"EHLO c.test\r\n")
    for _ in range(5):
        assert codes(session.say(b"MAIL FROM:<>\r\nRSET\r\n")) == [250, 250]
    assert codes(session.say(b"MAIL FROM:<>\r\n")) == [421]


def test_a_limit_that_cannot_be_told_is_not() -> None:
    assert b"LIMITS" not in Reception(replace(OPTIONS, max_recipients=1_000_000)).say(b"EHLO c.test\r\n")


# What nobody but us may say.


@pytest.mark.conformance("C9")
def test_every_keyword_is_registered() -> None:
    # https://www.iana.org/assignments/mail-parameters, SMTP service extensions, as of 2025.
    registered = {
        *("8BITMIME", "ATRN", "AUTH", "BINARYMIME", "BURL", "CHECKPOINT", "CHUNKING", "CONNEG", "CONPERM", "DELIVERBY"),
        *("DSN", "ENHANCEDSTATUSCODES", "ETRN", "EXPN", "FUTURERELEASE", "HELP", "LIMITS", "MT-PRIORITY", "MTRK"),
        *("NO-SOLICITING", "PIPELINING", "REQUIRETLS", "RRVS", "SAML", "SEND", "SIZE", "SMTPUTF8", "SOML", "STARTTLS"),
        *("SUBMITTER", "TURN", "UTF8SMTP", "VERB"),
    }
    assert registered >= EXTENSIONS.keys()
    assert {"BINARYMIME", "EXPN", "ETRN"}.isdisjoint(EXTENSIONS)


@pytest.mark.conformance("C8", "C192")
def test_what_is_offered_works() -> None:
    options = replace(OPTIONS, starttls=True, auth_mechanisms=("PLAIN", "LOGIN", "SCRAM-SHA-256"))
    session = Reception(options)
    offered = [line[4:] for line in session.say(b"EHLO c.test\r\n").split(b"\r\n")[2:-1]]
    assert [line.partition(b" ")[0].decode() for line in offered] == list(EXTENSIONS)
    assert {b"SMTPUTF8", b"8BITMIME", b"CHUNKING", b"DSN", b"PIPELINING", b"STARTTLS"} <= set(offered)
    used = {
        b"MAIL FROM:<> SIZE=1 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x AUTH=<>\r\n": 250,
        b"RCPT TO:<c@d.test> NOTIFY=NEVER ORCPT=rfc822;c@d.test\r\n": 250,
        b"BDAT 2 LAST\r\n\r\n": 250,
        b"AUTH PLAIN\r\n": 334,
        b"*\r\n": 501,
        b"AUTH LOGIN\r\n": 334,
        b"*\r\n ": 501,
        b"AUTH SCRAM-SHA-256\r\n": 334,
        b"*\r\n  ": 501,
        b"EXPN staff\r\n": 502,
        b"STARTTLS\r\n": 220,
    }
    for line, code in used.items():
        assert codes(session.say(line.rstrip(b" "))) == [code], line
