"""The client half of POP3: order, answers, and servers that are wrong or hostile."""

from __future__ import annotations

import pytest

from posthouse.protocol import pop3_client
from posthouse.protocol.errors import LocalProtocolError, RemoteProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA, Signal
from posthouse.protocol.pop3_client import (
    Answered,
    Capabilities,
    Event,
    Greeted,
    MessageBegin,
    MessageChunk,
    MessageEnd,
    Pop3Client,
    Request,
    Sizes,
    Totals,
    Uidls,
)


def greeted() -> Pop3Client:
    client = Pop3Client()
    client.receive(b"+OK\r\n")
    assert client.next_event() == Greeted(True, "")
    return client


def hear(client: Pop3Client, octets: bytes) -> list[Event]:
    """Every event that these octets cause; the client wants more, or the session is over."""
    client.receive(octets)
    events = []
    while not isinstance(event := client.next_event(), Signal):
        events.append(event)
    return events


def test_nothing_is_sent_before_the_greeting() -> None:
    client = Pop3Client()
    client.stat()
    assert client.next_event() is NEED_DATA
    assert client.outgoing() == b""
    assert hear(client, b"+OK hello <1@x>\r\n") == [Greeted(True, "hello <1@x>")]
    assert client.outgoing() == b"STAT\r\n"


def test_one_command_at_a_time_without_pipelining() -> None:
    client = greeted()
    client.noop()
    client.delete(7)
    assert client.outgoing() == b"NOOP\r\n"
    assert hear(client, b"+OK\r\n") == [Answered(Request("NOOP"), True, None, "")]
    assert client.outgoing() == b"DELE 7\r\n"


def test_pipelining_has_a_depth() -> None:
    client = greeted()
    client.pipelining = True
    for _ in range(1000):
        client.noop()
    assert client.outgoing().count(b"\r\n") == pop3_client.PIPELINE_DEPTH
    hear(client, b"+OK\r\n" * 10)
    assert client.outgoing().count(b"\r\n") == 10


def test_a_capa_without_pipelining_ends_it() -> None:
    client = greeted()
    client.pipelining = True
    client.capa()
    assert hear(client, b"+OK\r\nTOP\r\nSASL PLAIN LOGIN\r\n.\r\n") == [Capabilities(("TOP", "SASL PLAIN LOGIN"))]
    assert not client.pipelining


def test_a_stuffed_dot_in_a_list_is_taken_off() -> None:
    client = greeted()
    client.capa()
    assert hear(client, b"+OK\r\n..odd\r\n.\r\n") == [Capabilities((".odd",))]


def test_capabilities_are_found_in_any_case() -> None:
    capabilities = Capabilities(("sasl PLAIN", "Top"))
    assert capabilities.has("TOP")
    assert not capabilities.has("UIDL")
    assert capabilities.parameters("SASL") == ("PLAIN",)


@pytest.mark.parametrize("pipelining", [False, True])
def test_a_refused_user_is_one_answer(pipelining: bool) -> None:
    client = greeted()
    client.pipelining = pipelining
    client.login("alice", "secret")
    client.noop()
    assert client.outgoing() == (b"USER alice\r\nPASS secret\r\nNOOP\r\n" if pipelining else b"USER alice\r\n")
    answers = b"-ERR [sys/temp] no\r\n" + (b"-ERR no USER\r\n" if pipelining else b"") + b"+OK\r\n"
    events = []
    for line in answers.splitlines(keepends=True):
        events += hear(client, line)
        client.outgoing()
    assert events == [
        Answered(Request("LOGIN"), False, "SYS/TEMP", "no"),
        Answered(Request("NOOP"), True, None, ""),
    ]


def test_a_refused_password_is_one_answer_with_its_code() -> None:
    client = greeted()
    client.login("alice", " a b ")
    assert hear(client, b"+OK\r\n") == []
    assert client.outgoing() == b"USER alice\r\nPASS  a b \r\n"
    assert hear(client, b"-ERR [AUTH] wrong\r\n") == [Answered(Request("LOGIN"), False, "AUTH", "wrong")]


def test_typed_answers() -> None:
    client = greeted()
    client.stat()
    assert hear(client, b"+OK 2 320 and more\r\n") == [Totals(2, 320)]
    client.list()
    assert hear(client, b"+OK\r\n1 120\r\n3 200 extra\r\n.\r\n") == [Sizes({1: 120, 3: 200})]
    client.uidl()
    assert hear(client, b"+OK\r\n1 " + b"x" * 90 + b"\r\n2 a\r\n3 a\r\n.\r\n") == [Uidls({1: "x" * 90, 2: "a", 3: "a"})]
    client.uidl()
    assert hear(client, b"-ERR never heard of it\r\n") == [
        Answered(Request("UIDL"), False, None, "never heard of it"),
    ]


def test_a_message() -> None:
    client = greeted()
    client.retrieve(2)
    events = hear(client, b"+OK 9999999 octets\r\na\r\n..b\r\n.\r\n")
    assert events == [MessageBegin(2), MessageChunk(b"a\r\n.b\r\n"), MessageEnd(2, True)]
    client.top(2, 0)
    assert hear(client, b"+OK\r\na\nb\r\n.\r\n") == [MessageBegin(2), MessageChunk(b"a\nb\r\n"), MessageEnd(2, False)]
    client.retrieve(3)
    assert hear(client, b"-ERR gone\r\n") == [Answered(Request("RETR", 3), False, None, "gone")]


def test_quit_closes_and_what_follows_is_ignored() -> None:
    client = greeted()
    client.quit()
    with pytest.raises(LocalProtocolError):
        client.noop()
    assert hear(client, b"+OK bye\r\nmore\r\n") == [Answered(Request("QUIT"), True, None, "bye")]
    assert client.next_event() is CLOSED
    client.receive(b"and more")
    assert client.next_event() is CLOSED


def test_an_idle_server_may_close() -> None:
    client = greeted()
    assert hear(client, b"") == []
    assert client.next_event() is CLOSED


@pytest.mark.conformance("C270")
def test_a_peers_text_is_made_printable() -> None:
    client = greeted()
    client.noop()
    assert hear(client, b"-ERR \x1b[31m\xff\x00\r\n") == [Answered(Request("NOOP"), False, None, "?[31m�?")]


@pytest.mark.conformance("S19")
@pytest.mark.parametrize("bad", ["a\r\nDELE 1", "a\rb", "a\nb", "a\0b", "", "\udc80"])
def test_no_argument_can_bring_a_second_command(bad: str) -> None:
    client = greeted()
    with pytest.raises(LocalProtocolError):
        client.login(bad, "secret")
    with pytest.raises(LocalProtocolError) as caught:
        client.login("alice", bad)
    assert client.outgoing() == b""
    assert not bad or bad not in str(caught.value)


@pytest.mark.parametrize("number", [0, -1, 10**18])
def test_numbers_out_of_range_are_bugs(number: int) -> None:
    client = greeted()
    for ask in (client.retrieve, client.delete, lambda n: client.top(n, 0)):
        with pytest.raises(LocalProtocolError):
            ask(number)
    with pytest.raises(LocalProtocolError):
        client.top(1, -1)
    assert client.outgoing() == b""


@pytest.mark.conformance("C270")
@pytest.mark.parametrize(
    "octets",
    [
        *(b"220 smtp.test ESMTP\r\n", b"\r\n", b"+ok\r\n", b"+OKAY\r\n", b"-ERROR\r\n", b"+OK\n+OK\r\n", b"+OK\r\r\n"),
        *(b"+OK " + b"A" * 4096 + b"\r\n", b"A" * 100_000, b"", b"+OK"),
    ],
)
def test_a_greeting_that_is_none(octets: bytes) -> None:
    client = Pop3Client()
    client.receive(octets)
    if octets == b"+OK":
        client.receive(b"")
    with pytest.raises(RemoteProtocolError):
        client.next_event()
    # It stays so.
    with pytest.raises(RemoteProtocolError):
        client.next_event()


@pytest.mark.conformance("C270")
def test_a_second_line_in_the_greeting_answers_nothing() -> None:
    client = Pop3Client()
    client.login("alice", "secret")
    client.receive(b"+OK hello\r\n+OK injected\r\n")
    assert client.next_event() == Greeted(True, "hello")
    with pytest.raises(RemoteProtocolError):
        client.next_event()
    assert client.outgoing() == b""


@pytest.mark.conformance("C270")
def test_unsolicited_octets_end_the_session() -> None:
    client = greeted()
    client.receive(b"+OK\r\n")
    client.noop()
    assert client.outgoing() == b""
    with pytest.raises(RemoteProtocolError):
        client.next_event()


def test_a_line_too_many_after_an_answer_is_found_before_the_next_command_leaves() -> None:
    client = greeted()
    client.delete(1)
    client.quit()
    client.outgoing()
    client.receive(b"+OK\r\n+OK\r\n")
    assert client.next_event() == Answered(Request("DELE", 1), True, None, "")
    assert client.outgoing() == b""
    with pytest.raises(RemoteProtocolError):
        client.next_event()


@pytest.mark.conformance("C269")
def test_a_message_that_breaks_off_never_ends() -> None:
    client = greeted()
    client.retrieve(1)
    assert hear(client, b"+OK\r\nabc\r\n") == [MessageBegin(1), MessageChunk(b"abc")]
    client.receive(b"")
    with pytest.raises(RemoteProtocolError):
        client.next_event()


@pytest.mark.conformance("C268", "C269")
@pytest.mark.parametrize(
    ("ask", "lines"),
    [
        *(("list", lines) for lines in (b"0 1", b"-1 1", b"a 1", b"1", b"1 ", b"1 x", b"1  2", b"1 " + b"9" * 19)),
        *(("list", lines) for lines in (b"1 1\r\n1 2", "１ 1".encode(), b" 1 1")),
        *(("uidl", lines) for lines in (b"1", b"1 ", b"1 a b", b"1 \xff", b"1 a\x07", b"1 a\r\n1 b", b"0 a")),
    ],
)
def test_lists_that_cannot_be_used(ask: str, lines: bytes) -> None:
    client = greeted()
    getattr(client, ask)()
    client.receive(b"+OK\r\n" + lines + b"\r\n.\r\n")
    with pytest.raises(RemoteProtocolError):
        client.next_event()


@pytest.mark.parametrize("text", [b"", b" 1", b" a b", b" -1 2", b" 1 2x", b" " + b"9" * 19 + b" 1"])
def test_a_stat_without_numbers(text: bytes) -> None:
    client = greeted()
    client.stat()
    client.receive(b"+OK" + text + b"\r\n")
    with pytest.raises(RemoteProtocolError):
        client.next_event()


def test_a_list_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pop3_client, "LIST_LIMIT_LINES", 10)
    client = greeted()
    client.list()
    assert hear(client, b"+OK\r\n" + b"".join(b"%d 1\r\n" % n for n in range(1, 11))) == []
    client.receive(b"11 1\r\n")
    with pytest.raises(RemoteProtocolError):
        client.next_event()


def test_a_password_is_not_shown() -> None:
    client = Pop3Client()
    client.login("alice", "hunter2")
    assert "hunter2" not in repr(vars(client))


def test_a_token_is_said_at_the_challenge_and_not_before() -> None:
    client = greeted()
    client.authenticate("XOAUTH2", [b"user=me", b""])
    assert client.outgoing() == b"AUTH XOAUTH2\r\n"
    assert hear(client, b"+ \r\n") == []
    assert client.outgoing() == b"dXNlcj1tZQ==\r\n"
    assert hear(client, b"+OK in\r\n") == [Answered(Request("LOGIN"), True, None, "in")]


@pytest.mark.parametrize("challenge", [b"+\r\n", b"+ eyJzdGF0dXMiOiI0MDAifQ==\r\n"])
def test_a_server_that_explains_its_refusal_gets_an_empty_line(challenge: bytes) -> None:
    client = greeted()
    client.authenticate("XOAUTH2", [b"user=me", b""])
    client.outgoing()
    hear(client, b"+ \r\n")
    client.outgoing()
    assert hear(client, challenge) == []
    assert client.outgoing() == b"\r\n"
    assert hear(client, challenge) == []
    assert client.outgoing() == b"*\r\n"
    assert hear(client, b"-ERR [AUTH] no\r\n") == [Answered(Request("LOGIN"), False, "AUTH", "no")]


def test_a_challenge_that_nobody_asked_for_ends_the_session() -> None:
    client = greeted()
    client.noop()
    with pytest.raises(RemoteProtocolError, match="neither"):
        hear(client, b"+ \r\n")
    client = greeted()
    client.authenticate("XOAUTH2", [b"secret"])
    with pytest.raises(RemoteProtocolError, match="unasked"):
        hear(client, b"+ \r\n+ \r\n")
    assert b"c2VjcmV0" not in client.outgoing()


def test_what_was_offered_before_tls_is_forgotten() -> None:
    client = greeted()
    client.capa()
    hear(client, b"+OK\r\nPIPELINING\r\nSTLS\r\n.\r\n")
    client.outgoing()
    client.start_tls()
    assert client.outgoing() == b"STLS\r\n"
    assert hear(client, b"+OK begin\r\n") == [Answered(Request("STLS"), True, None, "begin")]
    client.tls_started()
    assert not client.pipelining


def test_octets_behind_the_answer_to_stls_end_the_session() -> None:
    client = greeted()
    client.start_tls()
    with pytest.raises(RemoteProtocolError, match="unasked"):
        hear(client, b"+OK begin\r\n+OK injected\r\n")
