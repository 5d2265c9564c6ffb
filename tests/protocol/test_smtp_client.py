"""The client half where a written dialogue is not enough: parameters, lost peers, hostile peers."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.acceptance import Notify, Ret
from posthouse.mail.address import Address, parse_address
from posthouse.protocol.errors import LocalProtocolError, RemoteProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA, Signal
from posthouse.protocol.smtp_client import (
    AuthReplied,
    Challenged,
    ClientEvent,
    ClientRecipient,
    ClientTransaction,
    ContentWanted,
    Greeting,
    HelloRefused,
    Limits,
    QuitReplied,
    Ready,
    SmtpClient,
    TlsReplied,
    TransactionEnded,
)

FROM, TO = parse_address("a@b.test"), parse_address("c@d.test")


def ready(*keywords: str) -> SmtpClient:
    client = SmtpClient("c.test")
    client.receive(b"220 mx.test\r\n")
    assert isinstance(client.next_event(), Greeting)
    assert client.outgoing() == b"EHLO c.test\r\n"
    lines = ["mx.test", *keywords]
    client.receive("".join(f"250-{line}\r\n" for line in lines[:-1]).encode() + f"250 {lines[-1]}\r\n".encode())
    assert isinstance(client.next_event(), Ready)
    return client


def transaction(**changes: object) -> ClientTransaction:
    asked: dict[str, object] = {"reverse_path": FROM, "recipients": (ClientRecipient(TO),), "size_octets": 5}
    return ClientTransaction(**{**asked, **changes})  # type: ignore[arg-type]


def test_extensions_of_the_peer() -> None:
    client = ready("size 1000", "8bitmime", "AUTH PLAIN LOGIN", "SIZE 2000")
    assert client.extensions == {"SIZE": "1000", "8BITMIME": "", "AUTH": "PLAIN LOGIN"}


@pytest.mark.conformance("C181", "C182", "C185")
def test_parameters_go_only_where_they_are_offered() -> None:
    asked = transaction(
        reverse_path=parse_address("jürgen@b.test"),
        recipients=(ClientRecipient(TO, frozenset({Notify.DELAY, Notify.SUCCESS}), "rfc822;C+x@d.test"),),
        body="8BITMIME",
        smtputf8=True,
        ret=Ret.HDRS,
        envelope_id="a=b",
    )
    client = ready("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN")
    client.begin(asked)
    assert client.outgoing().decode().split("\r\n") == [
        "MAIL FROM:<jürgen@b.test> SIZE=5 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+3Db",
        "RCPT TO:<c@d.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;C+2Bx@d.test",
        "DATA",
        "",
    ]
    plain = transaction(recipients=asked.recipients, body="8BITMIME", ret=Ret.FULL, envelope_id="x")
    client = ready("PIPELINING")
    client.begin(plain)
    assert client.outgoing() == b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n"
    with pytest.raises(LocalProtocolError):
        ready("8BITMIME").begin(asked)


def test_an_original_recipient_that_is_too_long_in_ascii_stays_here() -> None:
    client = ready("DSN")
    client.begin(transaction(recipients=(ClientRecipient(TO, None, "utf-8;" + "ö" * 83),)))
    client.outgoing()
    client.receive(b"250 ok\r\n")
    client.next_event()
    assert client.outgoing() == b"RCPT TO:<c@d.test>\r\n"


@pytest.mark.conformance("S18", "C315")
@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\0b"])
def test_arguments_cannot_carry_line_ends(text: str) -> None:
    evil = Address(text, "b.test")
    for bad in (
        transaction(reverse_path=evil),
        transaction(recipients=(ClientRecipient(evil),)),
        transaction(envelope_id=text),
        transaction(recipients=(ClientRecipient(TO, None, f"rfc822;{text}"),)),
        transaction(recipients=(ClientRecipient(TO, None, f"{text};x"),)),
    ):
        client = ready("PIPELINING", "DSN")
        with pytest.raises(LocalProtocolError):
            client.begin(bad)
        assert client.outgoing() == b""
    with pytest.raises(LocalProtocolError):
        SmtpClient(text)


@pytest.mark.conformance("C101")
def test_every_reply_of_a_transaction_is_told() -> None:
    client = ready("PIPELINING", "ENHANCEDSTATUSCODES")
    client.begin(transaction(recipients=(ClientRecipient(TO),) * 3))
    client.receive(b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n550 5.1.1 no\r\n450 4.2.0 later\r\n354 go\r\n")
    wanted = client.next_event()
    assert isinstance(wanted, ContentWanted)
    assert [reply.code for reply in wanted.recipients] == [250, 550, 450]
    client.content(b"hi")
    client.end_content()
    client.receive(b"250 2.6.0 taken\r\n")
    ended = client.next_event()
    assert isinstance(ended, TransactionEnded)
    assert (ended.mail.code, ended.data and ended.data.code, ended.final and ended.final.code) == (250, 354, 250)


@pytest.mark.parametrize("offered", [(), ("PIPELINING",)])
def test_a_refused_sender_says_nothing_about_recipients(offered: tuple[str, ...]) -> None:
    client = ready(*offered)
    client.begin(transaction())
    client.receive(b"550 5.1.8 no\r\n" + (b"503 a\r\n503 b\r\n" if offered else b""))
    ended = client.next_event()
    assert isinstance(ended, TransactionEnded)
    assert (ended.mail.code, ended.recipients, ended.data, ended.final) == (550, (None,), None, None)


@pytest.mark.conformance("C94")
@pytest.mark.parametrize("answer", [b"250 ok", b"334 go", b"355 go"])
def test_content_is_never_sent_without_354(answer: bytes) -> None:
    client = ready("PIPELINING")
    client.begin(transaction())
    client.receive(b"250 ok\r\n250 ok\r\n" + answer + b"\r\n")
    with pytest.raises(RemoteProtocolError):
        client.next_event()
    assert client.next_event() is CLOSED


@pytest.mark.parametrize("replies", [b"421 bye", b"250 ok\r\n421 bye", b"250 ok\r\n250 ok\r\n421 bye"])
def test_421_ends_transaction_and_session(replies: bytes) -> None:
    client = ready("PIPELINING")
    client.begin(transaction())
    client.receive(replies + b"\r\n")
    ended = client.next_event()
    assert isinstance(ended, TransactionEnded)
    assert ended.final is None
    assert client.is_closed
    client.quit()
    assert client.next_event() is CLOSED


def test_a_lost_peer_is_only_closed() -> None:
    client = ready("PIPELINING")
    client.begin(transaction())
    client.receive(b"250 ok\r\n250 o")
    assert client.next_event() is NEED_DATA
    client.receive(b"")
    assert client.next_event() is CLOSED


def test_a_peer_that_refuses_while_content_is_sent() -> None:
    client = ready("PIPELINING")
    client.begin(transaction())
    client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    client.next_event()
    client.content(b"half")
    client.receive(b"452 4.3.1 full\r\n")
    ended = client.next_event()
    assert isinstance(ended, TransactionEnded)
    assert ended.final is not None
    assert ended.final.code == 452
    assert client.next_event() is CLOSED


def test_content_cannot_be_accepted_before_its_end() -> None:
    client = ready("PIPELINING")
    client.begin(transaction())
    client.receive(b"250 ok\r\n250 ok\r\n354 go\r\n250 thanks\r\n")
    assert isinstance(client.next_event(), ContentWanted)
    with pytest.raises(RemoteProtocolError):
        client.next_event()


@pytest.mark.conformance("C159")
def test_quit_never_becomes_content() -> None:
    client = ready("PIPELINING")
    client.begin(transaction())
    with pytest.raises(LocalProtocolError):
        client.quit()
    with pytest.raises(LocalProtocolError):
        client.content(b"early")


@pytest.mark.conformance("C91")
def test_a_peer_that_wants_nobody() -> None:
    client = SmtpClient("c.test")
    client.receive(b"554 no\r\n")
    assert isinstance(client.next_event(), Greeting)
    client.quit()
    assert client.outgoing() == b"QUIT\r\n"
    client.receive(b"221 bye\r\n")
    assert isinstance(client.next_event(), QuitReplied)
    client = SmtpClient("c.test")
    client.receive(b"220 hi\r\n451 later\r\n")
    client.next_event()
    assert isinstance(client.next_event(), HelloRefused)


def test_a_long_password_waits_for_the_challenge() -> None:
    client = ready("AUTH PLAIN")
    client.login("l" * 200, "x" * 255, "nonce")
    assert client.outgoing() == b"AUTH PLAIN\r\n"
    client.receive(b"334 \r\n")
    assert isinstance(client.next_event(), Challenged)
    client.answer_challenge()
    assert len(client.outgoing()) > 600
    client.receive(b"235 2.7.0 ok\r\n")
    assert isinstance(client.next_event(), AuthReplied)
    with pytest.raises(LocalProtocolError):
        ready("AUTH CRAM-MD5").login("alice", "secret", "nonce")


@pytest.mark.conformance("S22")
@pytest.mark.parametrize(
    "octets",
    [
        b"220 a\n",
        b"220-" + b"x" * 4096 + b"\r\n",
        b"x" * 200_000,
        b"220 a\rb\r\n",
        b"220-a\r\n" * 300,
        b"220-" * 999 + b"\r\n",
        b"354 go\r\n",
    ],
)
def test_hostile_replies(octets: bytes) -> None:
    client = SmtpClient("c.test")
    client.receive(octets)
    client.receive(b"\r\n")
    with pytest.raises(RemoteProtocolError):
        client.next_event()


def test_what_was_not_asked_is_not_answered() -> None:
    client = ready("PIPELINING")
    client.receive(b"250 early\r\n")
    with pytest.raises(RemoteProtocolError):
        client.next_event()


@pytest.mark.conformance("C91")
@pytest.mark.parametrize("code", [500, 501, 502, 503, 504, 550, 554, 599])
def test_a_peer_without_ehlo_is_greeted_with_helo(code: int) -> None:
    client = SmtpClient("c.test")
    client.receive(f"220 old\r\n{code} what\r\n250 old\r\n".encode())
    client.next_event()
    event = client.next_event()
    assert isinstance(event, Ready)
    assert not event.extended
    assert client.outgoing() == b"EHLO c.test\r\nHELO c.test\r\n"


@pytest.mark.conformance("C91")
@pytest.mark.parametrize("code", [421, 450, 521])
def test_a_peer_that_refuses_ehlo_for_a_reason_is_believed(code: int) -> None:
    client = SmtpClient("c.test")
    client.receive(f"220 old\r\n{code} no\r\n".encode())
    client.next_event()
    assert isinstance(client.next_event(), HelloRefused)
    assert client.outgoing() == b"EHLO c.test\r\n"


@pytest.mark.conformance("C91")
def test_helo_may_be_said_at_once() -> None:
    client = SmtpClient("c.test", extended=False)
    client.receive(b"220 old\r\n500 no\r\n")
    client.next_event()
    assert client.outgoing() == b"HELO c.test\r\n"
    assert isinstance(client.next_event(), HelloRefused)


@pytest.mark.conformance("C92")
@pytest.mark.parametrize(
    "name", ["mx.house.test", "[192.0.2.1]", "[IPv6:2001:db8::1]", "a.b-c.test", "xn--bcher-kva.test"]
)
def test_names_that_ehlo_may_say(name: str) -> None:
    client = SmtpClient(name)
    client.receive(b"220 hi\r\n")
    client.next_event()
    assert client.outgoing() == f"EHLO {name}\r\n".encode()


@pytest.mark.conformance("C92", "S18")
@pytest.mark.parametrize(
    "name",
    [
        "",
        "localhost",
        "LOCALHOST",
        "laptop",
        "a.localhost",
        "localhost.localdomain",
        "192.0.2.1",
        "[192.0.2.256]",
        "[::1]",
        "a b.test",
        "a..test",
        "a.test\r\nMAIL FROM:<x@y.test>",
        "a.test\n",
        "a.test\0",
        "[IPv6:::1%\r\n]",
    ],
)
def test_names_that_ehlo_may_not_say(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        SmtpClient(name)


@pytest.mark.conformance("C141", "S4")
@pytest.mark.parametrize(
    "injected",
    [
        b"250-AUTH PLAIN\r\n",
        b"250-SIZE",
        b"2",
        b"\r\n",
        b"\n",
        b"250 x\r\n",
        b"\x16\x03\x03",
        b"250-x\r\n250 AUTH PLAIN\r\n",
    ],
)
@pytest.mark.parametrize("later", [False, True])
def test_what_is_said_before_the_handshake_ends_the_session(injected: bytes, later: bool) -> None:
    """CVE-2021-38371; also a line without its end, and also in another segment."""
    client = ready("STARTTLS", "AUTH PLAIN")
    client.start_tls()
    assert client.outgoing() == b"STARTTLS\r\n"
    client.receive(b"220 go\r\n")
    if later:
        assert isinstance(client.next_event(), TlsReplied)
    client.receive(injected)
    with pytest.raises(RemoteProtocolError, match="before the handshake"):
        client.next_event()
    assert client.next_event() is CLOSED
    assert client.outgoing() == b""


@pytest.mark.conformance("C141", "C176", "S4", "S5")
def test_behind_the_handshake_nothing_said_before_counts() -> None:
    client = ready("STARTTLS", "AUTH PLAIN", "LIMITS MAILMAX=1", "SIZE 9")
    client.start_tls()
    client.receive(b"220 go\r\n")
    assert isinstance(client.next_event(), TlsReplied)
    with pytest.raises(LocalProtocolError):
        client.login("ada", "secret", "nonce")
    client.outgoing()
    client.tls_started()
    assert (client.extensions, client.limits) == ({}, Limits())
    assert client.outgoing() == b"EHLO c.test\r\n"
    client.receive(b"250-mx\r\n250 LIMITS RCPTMAX=2\r\n")
    assert isinstance(client.next_event(), Ready)
    assert client.limits == Limits(None, 2, None)
    with pytest.raises(LocalProtocolError):
        client.login("ada", "secret", "nonce")
    with pytest.raises(LocalProtocolError):
        client.tls_started()


@pytest.mark.conformance("S5")
@pytest.mark.parametrize(
    ("answer", "code"), [("454 4.7.0 later", 454), ("502 no", 502), ("421 bye", 421), ("501 x", 501)]
)
def test_a_refused_starttls_is_told(answer: str, code: int) -> None:
    client = ready("STARTTLS")
    client.start_tls()
    client.receive(f"{answer}\r\n".encode())
    event = client.next_event()
    assert isinstance(event, TlsReplied)
    assert event.reply.code == code
    assert client.is_closed == (code == 421)
    with pytest.raises(LocalProtocolError):
        client.tls_started()


def test_starttls_is_said_only_where_it_is_offered() -> None:
    with pytest.raises(LocalProtocolError):
        ready("PIPELINING").start_tls()


def test_354_to_starttls_ends_the_session() -> None:
    client = ready("STARTTLS")
    client.start_tls()
    client.receive(b"354 go\r\n")
    with pytest.raises(RemoteProtocolError):
        client.next_event()


@pytest.mark.conformance("C176")
@pytest.mark.parametrize(
    ("said", "limits"),
    [
        ("LIMITS", Limits()),
        ("LIMITS RCPTMAX=2 MAILMAX=1 RCPTDOMAINMAX=3", Limits(1, 2, 3)),
        ("limits rcptmax=999999", Limits(None, 999999, None)),
        ("LIMITS RCPTMAX=0 MAILMAX=1000000 RCPTDOMAINMAX", Limits()),
        ("LIMITS RCPTMAX=-1 MAILMAX=1x RCPTDOMAINMAX=٣", Limits()),
        ("LIMITS =5 X=9 MAILMAX=7 MAILMAX=8", Limits(7, None, None)),
    ],
)
def test_limits_of_the_peer(said: str, limits: Limits) -> None:
    assert ready(said).limits == limits


@pytest.mark.conformance("C176")
def test_mailmax_counts_what_is_refused() -> None:
    client = ready("LIMITS MAILMAX=2")
    for has_room in (True, False):
        client.begin(transaction())
        client.receive(b"550 no\r\n")
        assert isinstance(client.next_event(), TransactionEnded)
        assert client.has_room is client.may_begin(transaction()) is has_room
    client.outgoing()
    with pytest.raises(LocalProtocolError):
        client.begin(transaction())
    assert client.outgoing() == b""


@pytest.mark.conformance("C195")
@pytest.mark.parametrize("offered", [(), ("PIPELINING", "8BITMIME", "DSN")])
def test_no_utf8_leaves_for_a_peer_that_does_not_offer_it(offered: tuple[str, ...]) -> None:
    foreign = parse_address("jürgen@b.test")
    # The last one: only its header section is not ASCII.
    for changes in ({"reverse_path": foreign}, {"recipients": (ClientRecipient(TO), ClientRecipient(foreign))}, {}):
        client = ready(*offered)
        with pytest.raises(LocalProtocolError):
            client.begin(transaction(**changes, smtputf8=True))
        assert client.outgoing() == b""
    # A name in another script needs no extension: A-labels stand for it.
    client = ready(*offered)
    client.begin(transaction(recipients=(ClientRecipient(parse_address("c@bücher.test")),)))
    octets = client.outgoing()
    client.receive(b"250 ok\r\n")
    client.next_event()
    assert b"RCPT TO:<c@xn--bcher-kva.test>\r\n" in octets + client.outgoing()


@pytest.mark.conformance("C196")
def test_smtputf8_is_not_asked_for_where_nothing_needs_it() -> None:
    client = ready("SMTPUTF8", "PIPELINING")
    client.begin(transaction(recipients=(ClientRecipient(parse_address("c@bücher.test")),)))
    assert b"SMTPUTF8" not in client.outgoing()


ALONE_AT_THE_END = ("EHLO", "HELO", "STARTTLS", "AUTH", "DATA", "QUIT", "NOOP", "VRFY", ".")


class Watched:
    """Writes down each group of commands that leaves together."""

    def __init__(self, client: SmtpClient) -> None:
        self.client = client
        self.groups: list[list[str]] = []

    def play(self, replies: str) -> ClientEvent | None:
        """Give the client one reply a time; the last event."""
        event = None
        for line in replies.split("|"):
            self.take()
            self.client.receive(line.encode() + b"\r\n")
            while not isinstance(found := self.client.next_event(), Signal):
                event = found
        self.take()
        return event

    def take(self) -> None:
        if octets := self.client.outgoing():
            self.groups.append([line.split(" ")[0] for line in octets.decode().split("\r\n")[:-1]])


@pytest.mark.conformance("C144", "C159")
@pytest.mark.parametrize("pipelining", [False, True])
@given(
    extensions=st.sets(st.sampled_from(["CHUNKING", "STARTTLS", "AUTH PLAIN", "SIZE"])),
    answers=st.lists(st.sampled_from(["250 ok", "550 no", "354 go", "220 go", "235 ok", "451 no"]), max_size=24),
    actions=st.lists(st.sampled_from(["begin", "tls", "login", "reset", "quit"]), max_size=4),
)
def test_groups(pipelining: bool, extensions: set[str], answers: list[str], actions: list[str]) -> None:
    """Only with PIPELINING does anything leave together, and what may not stand inside a group stands at its end."""
    watched = Watched(ready(*extensions, *(("PIPELINING",) if pipelining else ())))
    client = watched.client
    todo, waiting = iter(answers), list(actions)
    with suppress(RemoteProtocolError, StopIteration):
        while not client.is_closed:
            with suppress(LocalProtocolError):
                _act(client, waiting.pop(0) if waiting else "quit")
            while client.awaiting is not None:
                event = watched.play(next(todo))
                if isinstance(event, TlsReplied) and event.reply.is_positive:
                    client.tls_started()
                elif isinstance(event, ContentWanted):
                    client.content(b"hi\r\n")
                    watched.take()
                    client.end_content()
    watched.take()
    for group in watched.groups:
        assert not any(word in ALONE_AT_THE_END for word in group[:-1]), group
        assert pipelining or group[-1] == "." or len(group) == 1 or group[0] == "BDAT", group


def _act(client: SmtpClient, action: str) -> None:
    match action:
        case "begin":
            client.begin(transaction(recipients=(ClientRecipient(TO),) * 3))
        case "tls":
            client.start_tls()
        case "login":
            client.login("ada", "secret", "nonce")
        case "reset":
            client.reset()
        case _:
            client.quit()


@pytest.mark.parametrize("offered", [("PIPELINING",), ("PIPELINING", "CHUNKING"), ()])
@pytest.mark.parametrize("replies", [b"550 no\r\n", b"250 ok\r\n550 no\r\n"])
def test_a_peer_that_refuses_and_hangs_up_has_refused(offered: tuple[str, ...], replies: bytes) -> None:
    client = ready(*offered)
    client.begin(transaction())
    client.receive(replies)
    client.receive(b"")
    ended = client.next_event()
    assert isinstance(ended, TransactionEnded)
    assert ended.final is None
    assert (ended.recipients[0] or ended.mail).code == 550


def test_a_peer_that_hangs_up_before_it_has_answered_all_has_not() -> None:
    client = ready("PIPELINING")
    client.begin(transaction(recipients=(ClientRecipient(TO),) * 2))
    client.receive(b"250 ok\r\n550 no\r\n")
    client.receive(b"")
    assert client.next_event() is CLOSED
    assert [reply and reply.code for reply in client.recipient_replies] == [550, None]
