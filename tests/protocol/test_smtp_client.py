"""The client half where a written dialogue is not enough: parameters, lost peers, hostile peers."""

from __future__ import annotations

import pytest

from posthouse.mail.acceptance import Notify, Ret
from posthouse.mail.address import Address, parse_address
from posthouse.protocol.errors import LocalProtocolError, RemoteProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA
from posthouse.protocol.smtp_client import (
    AuthReplied,
    Challenged,
    ClientRecipient,
    ClientTransaction,
    ContentWanted,
    Greeting,
    HelloRefused,
    QuitReplied,
    Ready,
    SmtpClient,
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


@pytest.mark.conformance("C315")
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


@pytest.mark.parametrize(
    "octets",
    [b"220 a\n", b"220-" + b"x" * 4096 + b"\r\n", b"x" * 200_000, b"220 a\rb\r\n", b"220-a\r\n" * 300, b"354 go\r\n"],
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
