"""Before the login: CAPA, STLS (RFC 2595 §4), AUTH (RFC 5034), UTF8 and LANG (RFC 6856)."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from posthouse.mail.maildrop import Listing
from posthouse.protocol.errors import LocalProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA
from posthouse.protocol.pop3_events import Login, Rejected, ScramVerifierWanted, StartTls
from posthouse.protocol.pop3_options import Pop3Options
from posthouse.protocol.pop3_server import Pop3Server, State
from posthouse.protocol.sasl_scram import ScramClient
from tests.protocol.pop3_house import CLEAR_OPTIONS, NONCE, OPTIONS, SCRAM, House, data

EVERYTHING = Pop3Options(hostname="mx.test", mechanisms=("SCRAM-SHA-256", "PLAIN"), stls=True, login_delay_s=60)
PLAIN = base64.b64encode(b"\0alice\0secret").decode()


def silent(options: Pop3Options) -> House:
    """A house that has greeted."""
    house = House(options=options)
    house.received()
    return house


def capabilities(house: House) -> list[bytes]:
    house.received()
    return data(house.say("CAPA"))


# CAPA.


@pytest.mark.conformance("C256", "C260", "C261", "C263")
def test_capa_lists_the_same_in_both_states_but_stls() -> None:
    house = House(options=EVERYTHING)
    before = capabilities(house)
    assert before == [
        *(b"TOP", b"UIDL", b"USER", b"SASL SCRAM-SHA-256 PLAIN", b"STLS", b"RESP-CODES", b"AUTH-RESP-CODE"),
        *(b"PIPELINING", b"LOGIN-DELAY 60", b"EXPIRE NEVER", b"UTF8 USER", b"LANG", b"IMPLEMENTATION Posthouse"),
    ]
    house.send(b"USER alice\r\nPASS secret\r\n")
    assert capabilities(house) == [line for line in before if line != b"STLS"]


@pytest.mark.conformance("C256", "C258", "C264")
@pytest.mark.parametrize("options", [EVERYTHING, OPTIONS, CLEAR_OPTIONS], ids=["everything", "TLS", "clear"])
def test_every_capability_works_and_what_is_not_listed_does_not(options: Pop3Options) -> None:
    tags = {line.split(b" ")[0] for line in capabilities(House(options=options))}

    def answers(*lines: str) -> bytes:
        house = silent(options)
        for line in lines:
            answer = house.say(line)
        return answer

    assert answers("USER alice").startswith(b"+OK") == answers("USER alice", "PASS secret").startswith(b"+OK")
    assert answers("USER alice").startswith(b"+OK") == (b"USER" in tags)
    assert answers("AUTH PLAIN").startswith(b"+ ") == (b"SASL" in tags)
    assert answers(f"AUTH PLAIN {PLAIN}").startswith(b"+OK") == (b"SASL" in tags)
    assert answers("AUTH SCRAM-SHA-256").startswith(b"+ ") == ("SCRAM-SHA-256" in options.mechanisms)
    assert answers("STLS").startswith(b"+OK") == (b"STLS" in tags)
    assert answers("UTF8").startswith(b"+OK")
    assert answers("LANG").startswith(b"+OK")
    assert {b"TOP", b"UIDL", b"PIPELINING", b"RESP-CODES", b"AUTH-RESP-CODE", b"UTF8", b"LANG"} <= tags


@pytest.mark.conformance("C258", "C264")
@pytest.mark.parametrize(
    "command", ["USER alice", "PASS secret", f"AUTH PLAIN {PLAIN}", "AUTH PLAIN", "AUTH SCRAM-SHA-256"]
)
def test_no_password_is_taken_where_anybody_may_read_it(command: str) -> None:
    house = House(options=CLEAR_OPTIONS)
    assert not {b"USER", b"SASL"} & {line.split(b" ")[0] for line in capabilities(house)}
    assert house.say(command).startswith(b"-ERR ")
    assert not any(isinstance(event, Login | ScramVerifierWanted) for event in house.events)


@pytest.mark.conformance("C262")
@pytest.mark.parametrize("name", [None, ""])
def test_the_implementation_may_be_hidden(name: str | None) -> None:
    house = House(options=replace(OPTIONS, implementation=name))
    assert b"Posthouse" not in house.server.outgoing()
    assert not any(b"IMPLEMENTATION" in line or b"Posthouse" in line for line in capabilities(house))


@pytest.mark.conformance("C256")
def test_no_capability_is_longer_than_a_line_may_be() -> None:
    house = House(options=replace(OPTIONS, implementation="x" * 1000))
    assert max(map(len, capabilities(house))) == 510


@pytest.mark.conformance("C235", "C252")
def test_there_is_no_apop_and_the_greeting_holds_no_stamp() -> None:
    house = House(options=replace(OPTIONS, hostname="<mx>.test"))
    greeting = house.received()
    assert greeting.startswith(b"+OK ")
    assert b"<" not in greeting
    assert house.say("APOP alice c4c9334bac560ecc979e58001b3e22fb") == b"-ERR Unknown command\r\n"
    assert house.events == [Rejected("APOP", "Unknown command")]


# STLS.


@pytest.mark.conformance("C146")
def test_stls_forgets_all_that_was_said_before() -> None:
    house = House(options=replace(OPTIONS, stls=True))
    house.send(b"USER alice\r\nUTF8\r\n")
    assert house.server.utf8
    assert b"STLS" in capabilities(house)
    assert house.say("STLS") == b"+OK Begin TLS\r\n"
    assert not house.server.utf8
    assert house.say("PASS secret") == b"-ERR Send USER first\r\n"
    assert b"STLS" not in capabilities(house)
    assert house.say("STLS").startswith(b"-ERR ")


@pytest.mark.conformance("C146")
@pytest.mark.parametrize("behind", [b"CAPA\r\n", b"USER alice\r\nPASS secret\r\n", b"x", b"\r\n", b"\x16\x03\x01"])
def test_whatever_stands_behind_stls_closes_the_session(behind: bytes) -> None:
    house = House(options=replace(OPTIONS, stls=True))
    house.received()
    house.send(b"STLS\r\n" + behind)
    assert house.received() == b"-ERR Nothing may follow STLS before the handshake\r\n"
    assert house.ended()
    assert house.events == [Rejected("STLS", "Nothing may follow STLS before the handshake")]


@pytest.mark.conformance("C146")
def test_stls_only_before_the_login() -> None:
    house = House(options=replace(OPTIONS, stls=True))
    house.send(b"USER alice\r\nPASS secret\r\n")
    house.received()
    assert house.say("STLS") == b"-ERR Already logged in\r\n"
    assert StartTls() not in house.events


def test_octets_that_come_in_between_never_count_as_said_inside_tls() -> None:
    server = Pop3Server(CLEAR_OPTIONS)
    server.greet()
    server.receive(b"STLS\r\n")
    assert server.next_event() == StartTls()
    server.begin_tls()
    with pytest.raises(LocalProtocolError):
        server.next_event()
    server.receive(b"CAPA\r\nQUIT\r\n")
    server.tls_started(OPTIONS)
    assert server.next_event() is NEED_DATA
    assert server.outgoing() == b"+OK mx.test POP3 ready\r\n+OK Begin TLS\r\n"
    assert server.state is State.AUTHORIZATION


def test_a_handshake_that_fails_ends_in_silence() -> None:
    server = Pop3Server(CLEAR_OPTIONS)
    server.greet()
    server.receive(b"STLS\r\n")
    server.next_event()
    server.begin_tls()
    server.outgoing()
    server.close()
    assert server.next_event() is CLOSED
    assert server.outgoing() == b""


def test_tls_without_stls_is_a_bug() -> None:
    server = Pop3Server(CLEAR_OPTIONS)
    server.greet()
    with pytest.raises(LocalProtocolError):
        server.begin_tls()
    with pytest.raises(LocalProtocolError):
        server.tls_started(OPTIONS)


# AUTH.


@pytest.mark.conformance("C264")
def test_an_initial_response_and_a_continued_one_bring_the_same() -> None:
    short, long = House(options=OPTIONS), House(options=OPTIONS)
    assert short.say(f"AUTH PLAIN {PLAIN}").endswith(b"+OK 3 messages (72 octets)\r\n")
    long.received()
    assert long.say("AUTH PLAIN") == b"+ \r\n"
    assert long.say(PLAIN) == b"+OK 3 messages (72 octets)\r\n"
    assert short.events == long.events == [Login("alice", "secret", "PLAIN")]


@pytest.mark.conformance("C257", "C264")
def test_an_auth_line_of_255_octets_is_taken() -> None:
    house = silent(OPTIONS)
    line = b"AUTH PLAIN " + base64.b64encode(b"\0alice\0" + b"p" * 173)
    assert 250 < len(line) + 2 <= 255
    assert house.say(line).startswith(b"-ERR [AUTH]")
    assert house.events == [Login("alice", "p" * 173, "PLAIN")]


@pytest.mark.conformance("C264")
@pytest.mark.parametrize(
    ("octets", "fault"), [(12_284, b"a PLAIN message has three fields"), (12_288, b"Line too long")]
)
def test_a_long_response_is_read_whole_when_it_is_continued(octets: int, fault: bytes) -> None:
    house = silent(OPTIONS)
    house.say("AUTH PLAIN")
    answer = house.say(b"A" * octets)
    assert answer.startswith(b"-ERR ")
    assert answer.endswith(fault + b"\r\n")
    assert house.say(f"AUTH PLAIN {PLAIN}").startswith(b"+OK")


@pytest.mark.conformance("C264")
@pytest.mark.parametrize(
    "lines",
    [
        ("AUTH",),
        ("AUTH PLAIN", "*"),
        ("AUTH PLAIN", "AGFsaWNl!"),
        ("AUTH PLAIN", "AGFsaWNl AHNlY3JldA=="),
        ("AUTH PLAIN", "="),
        ("AUTH PLAIN", ""),
        ("AUTH PLAIN =",),
        ("AUTH PLAIN AAAA",),
        ("AUTH LOGIN",),
        ("AUTH SCRAM-SHA-1",),
        ("AUTH \xff",),
        ("AUTH PLAIN", "QUIT\nQUIT"),
    ],
)
def test_an_exchange_that_fails_leaves_everything_as_it_was(lines: tuple[str, ...]) -> None:
    house = silent(OPTIONS)
    for line in lines:
        answer = house.say(line.encode("latin-1"))
    assert answer.startswith(b"-ERR ")
    assert house.server.state is State.AUTHORIZATION
    assert not any(isinstance(event, Login) for event in house.events)
    assert house.say(f"AUTH PLAIN {PLAIN}").startswith(b"+OK")


@pytest.mark.conformance("C264")
def test_auth_only_before_the_login() -> None:
    house = House(options=OPTIONS)
    house.say(f"AUTH PLAIN {PLAIN}")
    assert house.say(f"AUTH PLAIN {PLAIN}") == b"-ERR Already logged in\r\n"


def test_no_notice_holds_what_was_said_inside_an_exchange() -> None:
    house = House(options=OPTIONS)
    house.say("AUTH PLAIN")
    house.say("PASS hunter2")
    house.say("AUTH PLAIN")
    house.say("x" * 20_000)
    assert [event.verb for event in house.events if isinstance(event, Rejected)] == ["AUTH", ""]
    assert "hunter2" not in repr(house.events)


def test_an_exchange_that_the_connection_breaks_off_is_no_login() -> None:
    house = House(options=OPTIONS)
    house.send(b"AUTH PLAIN\r\n" + PLAIN.encode())
    house.send(b"")
    assert house.events == []
    assert house.ended()


def scram(house: House, password: str) -> bytes:
    """The client's side, up to the answer to its proof."""
    client = ScramClient("alice", password, "a-nonce-of-the-client")
    first = base64.b64encode(client.first()).decode()
    challenge = base64.b64decode(house.say(f"AUTH SCRAM-SHA-256 {first}").removeprefix(b"+ "))
    assert challenge.startswith(b"r=a-nonce-of-the-client" + NONCE.encode())
    answer = house.say(base64.b64encode(client.final(challenge)))
    if answer.startswith(b"+ "):
        client.verify(base64.b64decode(answer[2:]))
    return answer


@pytest.mark.conformance("C264")
def test_scram_proves_both_sides_to_each_other() -> None:
    house = silent(EVERYTHING)
    assert scram(house, "secret").startswith(b"+ ")
    assert house.say("") == b"+OK 3 messages (72 octets)\r\n"
    login = Login("alice", "", "SCRAM-SHA-256", "", True, SCRAM.stored_key)
    assert house.events == [ScramVerifierWanted("alice"), login]


@pytest.mark.conformance("C263", "C264")
def test_scram_with_a_wrong_password() -> None:
    house = silent(EVERYTHING)
    assert scram(house, "wrong").startswith(b"-ERR [AUTH] ")
    assert house.events[-1] == Login("alice", "", "SCRAM-SHA-256", "", False)
    assert house.say("STAT").startswith(b"-ERR ")


def test_a_verifier_that_cannot_be_found_now_ends_the_exchange() -> None:
    server = Pop3Server(EVERYTHING)
    server.greet()
    server.receive(b"AUTH SCRAM-SHA-256 " + base64.b64encode(b"n,,n=alice,r=abc") + b"\r\nCAPA\r\n")
    assert server.next_event() == ScramVerifierWanted("alice")
    with pytest.raises(LocalProtocolError):
        server.open_maildrop(Listing())
    server.outgoing()
    server.refuse("SYS/TEMP", "Later")
    assert server.next_event() is NEED_DATA
    assert server.outgoing().startswith(b"-ERR [SYS/TEMP] Later\r\n+OK Capability")
    with pytest.raises(LocalProtocolError):
        server.provide_scram(SCRAM, NONCE)


# UTF8 and LANG.


@pytest.mark.conformance("C203")
def test_utf8_before_the_login_only() -> None:
    house = House(options=OPTIONS)
    assert b"UTF8 USER" in capabilities(house)
    assert house.say("UTF8").startswith(b"+OK")
    house.send(b"USER alice\r\nPASS secret\r\n")
    assert b"UTF8 USER" in capabilities(house)
    assert house.say("UTF8").startswith(b"-ERR ")
    assert house.server.utf8


@pytest.mark.conformance("C203")
@pytest.mark.parametrize("before", ["NOOP", "UTF8"])
def test_utf8_names_and_passwords_are_taken_with_and_without_utf8(before: str) -> None:
    house = House(options=OPTIONS)
    house.send(f"{before}\r\nUSER grün@x.test\r\nPASS schlüssel\r\n".encode())
    assert house.events[-1] == Login("grün@x.test", "schlüssel")
    house.send(b"USER gr\xfcn@x.test\r\nPASS x\r\n")
    assert house.received().endswith(b"-ERR The argument is not UTF-8\r\n-ERR Send USER first\r\n")


@pytest.mark.conformance("C203")
def test_stls_after_utf8_goes_back_to_ascii() -> None:
    """RFC 6856 §2.1 forbids it to the client and lets us refuse; TLS is worth more than the order."""
    house = House(options=CLEAR_OPTIONS)
    house.say("UTF8")
    assert house.say("STLS").startswith(b"+OK")
    assert not house.server.utf8


@pytest.mark.conformance("C205")
@pytest.mark.parametrize(
    ("wanted", "found"),
    [("*", "en"), ("en", "en"), ("EN-us", "en"), ("en-Latn-GB-x-y", "en"), ("I-Default", "i-default")],
)
def test_a_language_range_finds_its_language(wanted: str, found: str) -> None:
    house = silent(OPTIONS)
    assert house.say(f"LANG {wanted}").startswith(f"+OK {found} ".encode())
    house.send(b"USER alice\r\nPASS secret\r\n")
    house.received()
    assert house.say(f"LANG {wanted}").startswith(f"+OK {found} ".encode())


@pytest.mark.conformance("C205")
@pytest.mark.parametrize("wanted", ["de", "MUL", "enx", "e", "-", "en en", "\0"])
def test_a_language_that_we_do_not_speak(wanted: str) -> None:
    house = silent(OPTIONS)
    assert house.say(f"LANG {wanted}").startswith(b"-ERR ")
    assert data(house.say("LANG")) == [b"i-default", b"en English"]
