"""The server half of POP3: states, numbers, marks, limits (RFC 1939, RFC 2449)."""

from __future__ import annotations

import pytest

from posthouse.mail.ids import Uid, Uidl
from posthouse.mail.maildrop import Listing
from posthouse.protocol.errors import LocalProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA
from posthouse.protocol.pop3_events import (
    Login,
    OutgoingFull,
    QuitReceived,
    Rejected,
    Retrieve,
    Update,
)
from posthouse.protocol.pop3_options import Pop3Options
from posthouse.protocol.pop3_server import OUTGOING_FULL_OCTETS, Pop3Server, State
from tests.protocol.pop3_house import CONTENTS, OPTIONS, House, data, logged_in

COMMANDS = (
    *("USER alice", "PASS secret", "STAT", "LIST", "LIST 1", "UIDL", "UIDL 1", "RETR 1", "TOP 1 0"),
    *("DELE 1", "RSET", "NOOP", "CAPA", "QUIT", "APOP alice 00", "AUTH", "STLS", "UTF8", "LANG", "XYZZY"),
)
ALLOWED = {
    "authorization": {"USER alice", "CAPA", "QUIT", "UTF8", "LANG"},
    "user given": {"USER alice", "PASS secret", "CAPA", "QUIT", "UTF8", "LANG"},
    "transaction": {*COMMANDS[2:14], "LANG"},
}
LEADING = {
    "authorization": (),
    "user given": ("USER alice",),
    "transaction": ("USER alice", "PASS secret"),
}
BAD_NUMBERS = (
    *("", " ", "0", "-1", "4", str(2**31), str(2**64), "9" * 400, "1 2", "1a", "０", "²", "+1", " 1", "1_0", "1\t"),
    *("0x1", "1.0", "a", "\x00"),
)


@pytest.mark.conformance("C237")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("state", ALLOWED)
def test_every_command_in_every_state(state: str, command: str) -> None:
    house = House()
    for line in LEADING[state]:
        house.say(line)
    house.received()
    answer = house.say(command)
    assert answer.startswith(b"+OK" if command in ALLOWED[state] else b"-ERR")
    assert house.ended() == (command == "QUIT")


@pytest.mark.conformance("C237")
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_is_answered_after_quit(command: str) -> None:
    house = logged_in()
    house.say("QUIT")
    assert house.say(command) == b""
    assert house.ended()


@pytest.mark.conformance("C245")
@pytest.mark.parametrize(
    ("verb", "number"),
    [
        (verb, number)
        for verb in ("LIST", "RETR", "DELE", "TOP", "UIDL")
        for number in BAD_NUMBERS
        # Without a number they list all.
        if number.strip(" ") or verb not in ("LIST", "UIDL")
    ],
)
def test_bad_numbers_are_refused_and_the_session_goes_on(verb: str, number: str) -> None:
    house = logged_in()
    answer = house.say(f"{verb} {number} 0" if verb == "TOP" else f"{verb} {number}")
    assert answer.startswith(b"-ERR ")
    assert answer.count(b"\r\n") == 1
    assert house.say("NOOP") == b"+OK\r\n"
    assert house.say("STAT") == b"+OK 3 72\r\n"


@pytest.mark.conformance("C245")
@pytest.mark.parametrize("verb", ["LIST", "RETR", "DELE", "TOP", "UIDL"])
def test_a_marked_message_is_refused_everywhere(verb: str) -> None:
    house = logged_in()
    house.say("DELE 2")
    assert house.say(f"{verb} 2 0" if verb == "TOP" else f"{verb} 2").startswith(b"-ERR ")


def test_leading_zeros_and_trailing_spaces_are_forgiven() -> None:
    house = logged_in()
    assert house.say("LIST 01 ") == b"+OK 1 34\r\n"
    assert house.say("STAT ") == b"+OK 3 72\r\n"


@pytest.mark.conformance("C239")
def test_the_password_is_the_rest_of_the_line() -> None:
    house = House()
    house.say("USER alice ")
    house.say("PASS  a b ")
    assert house.events == [Login("alice", " a b ")]


def test_a_password_is_not_shown() -> None:
    assert "hunter2" not in repr(Login("alice", "hunter2"))


def test_a_password_that_comes_a_line_too_late_is_not_shown() -> None:
    house = House()
    house.say("hunter2")
    assert house.events == [Rejected("", "Unknown command")]


@pytest.mark.conformance("C242", "C243", "C249")
def test_marks_are_left_out_and_numbers_do_not_shift() -> None:
    house = logged_in()
    house.say("DELE 2")
    assert house.say("STAT") == b"+OK 2 50\r\n"
    assert data(house.say("LIST")) == [b"1 34", b"3 16"]
    assert data(house.say("UIDL")) == [b"1 uidl-1", b"3 uidl-3"]
    assert house.say("UIDL 3") == b"+OK 3 uidl-3\r\n"
    house.say("RSET")
    assert house.say("STAT") == b"+OK 3 72\r\n"


@pytest.mark.conformance("C246")
def test_rset_takes_all_marks_back() -> None:
    house = logged_in()
    house.send(b"DELE 3\r\nDELE 1\r\nRSET\r\nDELE 2\r\nQUIT\r\n")
    assert house.updates == [(2,)]


@pytest.mark.conformance("C247")
def test_quit_updates_what_is_marked_once() -> None:
    house = logged_in()
    house.send(b"DELE 3\r\nDELE 1\r\nQUIT\r\nQUIT\r\n")
    assert house.updates == [(1, 3)]
    assert house.received().endswith(b"+OK Goodbye\r\n")


@pytest.mark.conformance("C247")
def test_a_failed_update_ends_the_session_with_err() -> None:
    house = logged_in(update_fails=True)
    house.say("DELE 1")
    assert house.say("QUIT") == b"-ERR [SYS/TEMP] Nothing was deleted\r\n"
    assert house.ended()


@pytest.mark.conformance("C247")
@pytest.mark.parametrize("how", [b"", b"QUIT", b"QUIT\r"])
def test_a_dropped_connection_updates_nothing(how: bytes) -> None:
    house = logged_in()
    house.send(b"DELE 1\r\n" + how)
    house.send(b"")
    assert house.updates == []
    assert house.ended()


@pytest.mark.conformance("C247")
def test_quit_before_a_login_updates_nothing() -> None:
    house = House()
    house.received()
    assert house.say("QUIT") == b"+OK Goodbye\r\n"
    assert house.events == [QuitReceived()]
    assert house.updates == []


@pytest.mark.conformance("C244")
def test_content_without_a_last_line_end_gets_one_and_dots_are_stuffed() -> None:
    house = logged_in((b".a\r\n..\r\nb\rc.", b".", b""))
    assert house.say("RETR 1") == b"+OK 12 octets\r\n..a\r\n...\r\nb\rc.\r\n.\r\n"
    assert house.say("RETR 2") == b"+OK 1 octets\r\n..\r\n.\r\n"
    assert house.say("RETR 3") == b"+OK 0 octets\r\n.\r\n"


@pytest.mark.conformance("C243", "C254")
@pytest.mark.parametrize("content", [b"", b"Subject: header only\r\n", b"\r\n", b".\r\n" * 10_000, b"\r\n." * 10_000])
@pytest.mark.parametrize("chunk_octets", [1, 7, 1 << 20])
def test_odd_messages_are_sent_whole_and_as_long_as_list_says(content: bytes, chunk_octets: int) -> None:
    house = logged_in((content,), chunk_octets=chunk_octets)
    assert house.say("LIST 1") == b"+OK 1 %d\r\n" % len(content)
    lines = data(house.say("RETR 1"))
    got = b"".join(line + b"\r\n" for line in lines)
    assert got == content + (b"" if not content or content.endswith(b"\r\n") else b"\r\n")


@pytest.mark.conformance("C250")
@pytest.mark.parametrize("chunk_octets", [1, 2, 3, 4, 5, 100])
@pytest.mark.parametrize(
    ("lines", "body"),
    [
        ("0", b""),
        ("1", b"a\r\n"),
        ("2", b"a\r\n..\r\n"),
        ("3", b"a\r\n..\r\n\r\n"),
        ("999999999", b"a\r\n..\r\n\r\nb\r\n"),
    ],
)
def test_top_counts_lines_of_the_body_only(lines: str, body: bytes, chunk_octets: int) -> None:
    house = logged_in((b"A: 1\r\nB: 2\r\n\r\na\r\n.\r\n\r\nb",), chunk_octets=chunk_octets)
    assert house.say(f"TOP 1 {lines}") == b"+OK\r\nA: 1\r\nB: 2\r\n\r\n" + body + b".\r\n"


@pytest.mark.conformance("C250")
@pytest.mark.parametrize("chunk_octets", [1, 2, 100])
@pytest.mark.parametrize("content", [b"A: 1\r\n", b"A: 1\r\n\r\n", b"\r\n", b""])
def test_top_of_a_message_without_body(content: bytes, chunk_octets: int) -> None:
    house = logged_in((content,), chunk_octets=chunk_octets)
    assert house.say("TOP 1 0") == house.say("TOP 1 7") == b"+OK\r\n" + content + b".\r\n"


@pytest.mark.conformance("C250")
def test_top_of_a_message_without_header() -> None:
    house = logged_in((b"\r\na\r\nb\r\n",))
    assert house.say("TOP 1 1") == b"+OK\r\n\r\na\r\n.\r\n"


@pytest.mark.conformance("C250")
@pytest.mark.parametrize("arguments", ["1", "1 ", "1 -1", "1 a", "1  1", "1 1 1", ""])
def test_top_wants_two_numbers(arguments: str) -> None:
    assert logged_in().say(f"TOP {arguments}").startswith(b"-ERR ")


def test_top_stops_the_driver_and_does_not_count_as_retrieved() -> None:
    house = logged_in((b"A: 1\r\n\r\n" + b"x\r\n" * 1000,))
    house.say("TOP 1 1")
    assert house.server.retrieved == frozenset()
    house.say("RETR 1")
    assert house.server.retrieved == frozenset({1})


@pytest.mark.conformance("C253")
def test_an_empty_maildrop() -> None:
    house = logged_in(())
    assert house.say("STAT") == b"+OK 0 0\r\n"
    assert data(house.say("LIST")) == data(house.say("UIDL")) == []


@pytest.mark.conformance("C255", "C257")
@pytest.mark.parametrize(("octets", "accepted"), [(247, True), (505, True), (506, False), (10**4, False)])
def test_the_limit_of_a_command_line(octets: int, accepted: bool) -> None:
    house = House()
    house.received()
    answer = house.say(b"USER " + b"a" * octets)
    assert answer == (b"+OK Send PASS\r\n" if accepted else b"-ERR Line too long\r\n")
    assert house.say("CAPA").startswith(b"+OK")


@pytest.mark.conformance("C255")
def test_a_line_without_end_closes() -> None:
    house = House()
    house.received()
    for _ in range(20):
        house.send(b"A" * 4096)
    assert house.received() == b"-ERR Line without end\r\n"
    assert house.ended()


def test_nothing_is_kept_after_the_end() -> None:
    house = logged_in()
    house.say("QUIT")
    house.send(b"A" * 10_000)
    assert len(vars(house.server)["_lines"]) == 0


@pytest.mark.conformance("C236")
def test_no_response_line_is_too_long_or_holds_what_is_not_printable() -> None:
    server = Pop3Server(OPTIONS)
    server.greet()
    server.receive(b"USER a\r\nPASS b\r\n")
    server.next_event()
    server.outgoing()
    server.refuse("SYS/TEMP", "\r\n+OK é" + "x" * 1000)
    answer = server.outgoing()
    assert answer.startswith(b"-ERR [SYS/TEMP] ??+OK ?xxx")
    assert answer.endswith(b"\r\n")
    assert len(answer) == 512


@pytest.mark.conformance("C263")
def test_only_a_code_begins_with_a_bracket() -> None:
    server = Pop3Server(Pop3Options(hostname="[192.0.2.1]"))
    server.greet()
    assert server.outgoing() == b"+OK  [192.0.2.1] POP3 ready\r\n"


@pytest.mark.conformance("C259")
def test_two_thousand_pipelined_commands_are_answered_in_order() -> None:
    house = logged_in()
    house.send(b"".join(b"LIST %d\r\nNOOP\r\n" % (n % 3 + 1) for n in range(1000)))
    sizes = [len(content) for content in CONTENTS]
    assert house.received() == b"".join(b"+OK %d %d\r\n+OK\r\n" % (n % 3 + 1, sizes[n % 3]) for n in range(1000))


@pytest.mark.conformance("C259")
def test_pipelined_lists_ask_for_a_write_in_between() -> None:
    server = in_transaction(10_000)
    server.receive(b"LIST\r\n" * 5 + b"QUIT\r\n")
    events, most = [], 0
    while not isinstance(event := server.next_event(), Update):
        events.append(event)
        most = max(most, len(server.outgoing()))
    assert events == [OutgoingFull()] * 5
    assert OUTGOING_FULL_OCTETS < most < 3 * OUTGOING_FULL_OCTETS


def test_a_driver_that_does_not_write_is_asked_only_once() -> None:
    server = in_transaction(10_000)
    server.receive(b"LIST\r\nLIST\r\n")
    assert server.next_event() == OutgoingFull()
    assert server.next_event() is NEED_DATA


def in_transaction(count: int) -> Pop3Server:
    server = Pop3Server(OPTIONS)
    server.greet()
    server.receive(b"USER a\r\nPASS b\r\n")
    server.next_event()
    uids, uidls = tuple(map(Uid, range(count))), tuple(Uidl(f"u{n}") for n in range(count))
    server.open_maildrop(Listing(uids=uids, uidls=uidls, sizes_octets=(1000,) * count))
    server.outgoing()
    return server


@pytest.mark.conformance("C238")
def test_close_without_text_says_nothing() -> None:
    server = in_transaction(1)
    server.receive(b"DELE 1\r\n")
    assert server.next_event() is NEED_DATA
    server.outgoing()
    server.close()
    assert server.next_event() is CLOSED
    assert server.outgoing() == b""


def test_close_with_text_before_the_greeting() -> None:
    server = Pop3Server(OPTIONS)
    server.close("Too many sessions are open")
    assert server.outgoing() == b"-ERR [SYS/TEMP] Too many sessions are open\r\n"
    assert server.next_event() is CLOSED


def test_close_inside_a_message_does_not_make_it_look_whole() -> None:
    server = in_transaction(1)
    server.receive(b"RETR 1\r\n")
    assert server.next_event() == Retrieve(1)
    server.begin_message(1000)
    server.content(b"half")
    server.close("The message cannot be read")
    assert server.outgoing() == b"+OK 1000 octets\r\nhalf"
    assert server.next_event() is CLOSED
    assert server.retrieved == frozenset()


def test_a_refused_message_is_not_retrieved_and_the_session_goes_on() -> None:
    server = in_transaction(1)
    server.receive(b"RETR 1\r\nNOOP\r\n")
    server.next_event()
    server.refuse("SYS/TEMP", "The message cannot be read now")
    assert server.next_event() is NEED_DATA
    assert server.outgoing() == b"-ERR [SYS/TEMP] The message cannot be read now\r\n+OK\r\n"
    assert server.retrieved == frozenset()


def test_answers_out_of_turn_are_bugs() -> None:
    server = Pop3Server(OPTIONS)
    with pytest.raises(LocalProtocolError):
        server.next_event()
    server.greet()
    for wrong in (
        server.greet,
        server.updated,
        server.end_message,
        lambda: server.content(b""),
        lambda: server.begin_message(1),
        lambda: server.refuse(None, ""),
        lambda: server.open_maildrop(Listing()),
    ):
        with pytest.raises(LocalProtocolError):
            wrong()
    server.receive(b"USER a\r\nPASS b\r\n")
    assert isinstance(server.next_event(), Login)
    with pytest.raises(LocalProtocolError):
        server.next_event()
    with pytest.raises(LocalProtocolError):
        server.updated()
    server.open_maildrop(Listing())
    assert server.state is State.TRANSACTION
