"""What a session may take: times by phase, rates, numbers; each with its reply."""

from __future__ import annotations

from pathlib import Path

import pytest

from posthouse.mail.address import parse_address
from posthouse.reception.limits import IDLE, RATE_GRACE_S, TOO_LONG, TOO_SLOW, Pace, SmtpLimits
from tests.fake_world import FakeClock
from tests.house.faults import faulty_house
from tests.house.wire import Wire, stored, stuffed
from tests.running_house import PASSWORD, VERIFIER, RunningHouse

LETTER = b"Subject: hi\r\n\r\nhello\r\n"
LIMITS = SmtpLimits(
    command_timeout_s=60,
    content_timeout_s=50,
    errors=20,
    greeting_timeout_s=10,
    session_timeout_s=1000,
    content_rate_octets=100,
)


class Paced:
    """A session's pace under a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.pace = Pace(LIMITS, self.clock)
        self.lines = 0

    def left(self, *, line: bool = False, greeted: bool = True) -> float:
        self.lines += line
        return self.pace.command_timeout_s(self.lines, greeted=greeted)

    def content(self, after_s: float, octets: int) -> None:
        self.pace.content_timeout_s()
        self.clock.advance(after_s)
        self.pace.content_came(octets)


def test_a_command_is_waited_for_as_a_whole() -> None:
    """Octets of a line that never ends win no time (a dribbling peer)."""
    paced = Paced()
    assert paced.left() == 60
    paced.clock.advance(40)
    assert paced.left() == 20
    assert paced.left(line=True) == 60
    paced.clock.advance(60)
    with pytest.raises(TimeoutError):
        paced.left()
    assert paced.pace.farewell is IDLE


def test_the_first_command_has_its_own_time() -> None:
    paced = Paced()
    assert paced.left(greeted=False) == 10
    paced.clock.advance(9)
    assert paced.left(greeted=False) == 1
    assert paced.left(greeted=True) == 51


def test_a_session_ends_one_day() -> None:
    paced = Paced()
    for _ in range(19):
        paced.clock.advance(50)
        assert paced.left(line=True) > 0
    paced.clock.advance(45)
    assert paced.left(line=True) == 5
    assert paced.pace.farewell is TOO_LONG
    paced.clock.advance(5)
    with pytest.raises(TimeoutError):
        paced.pace.content_timeout_s()
    assert paced.pace.farewell is TOO_LONG


@pytest.mark.conformance("S26")
def test_content_has_a_rate() -> None:
    paced = Paced()
    paced.pace.begin_content()
    assert paced.pace.content_timeout_s() == 50
    # Thirty seconds are everybody's.
    paced.content(RATE_GRACE_S, 1)
    # From then on a hundred octets in a second are enough, on average.
    paced.content(10, 998)
    with pytest.raises(TimeoutError):
        paced.content(10, 10_000)
    assert paced.pace.farewell is TOO_SLOW
    # The next content begins anew, and our own work between two reads is not the peer's.
    paced.pace.begin_content()
    for _ in range(100):
        paced.content(0.25, 25)
        paced.clock.advance(5)


def test_content_that_comes_late_and_whole_is_taken() -> None:
    """A link that was down for a while, then a short message at once: it is there, so nobody waits for more."""
    paced = Paced()
    paced.pace.begin_content()
    paced.content(45, 900)
    # One that goes on is measured from the end of its grace.
    paced.pace.begin_content()
    paced.content(45, 1500)
    paced.content(10, 1)


# Over sockets.


@pytest.mark.conformance("C20")
@pytest.mark.parametrize(
    ("key", "said"),
    [("greeting_timeout", 0), ("command_timeout", 1), ("session_timeout", 1), ("session_timeout", 2)],
)
def test_each_phase_has_its_time(tmp_path: Path, key: str, said: int) -> None:
    with RunningHouse(tmp_path, reception={key: "50ms"}) as house, Wire(house.ports["smtp"]) as peer:
        assert peer.line().startswith(b"220 ")
        if said:
            peer.send(b"EHLO x\r\n" if said == 1 else b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@here.test>\r\nDATA\r\n")
        assert peer.rest().split(b"\r\n")[-2].startswith(b"421 4.4.2 ")


@pytest.mark.conformance("S26")
def test_a_dribbled_command_ends(tmp_path: Path) -> None:
    """Each octet comes in time, and the line never."""
    with RunningHouse(tmp_path, reception={"command_timeout": "200ms"}) as house, Wire(house.ports["smtp"]) as peer:
        assert peer.line().startswith(b"220 ")
        peer.socket.settimeout(0.02)
        for _ in range(1000):
            try:
                peer.send(b"x")
                assert peer.socket.recv(100).startswith(b"421 4.4.2 No command came in time")
                return
            except TimeoutError:
                continue
        raise AssertionError("a dribbling peer was served for ever")


@pytest.mark.conformance("S26")
def test_dribbled_content_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.reception.limits.RATE_GRACE_S", 0.1)
    with RunningHouse(tmp_path, reception={"content_rate_octets": 1_000_000}) as house:
        with Wire(house.ports["smtp"]).greet().envelope("bob@here.test") as peer:
            assert peer.say("DATA").startswith(b"354 ")
            peer.socket.settimeout(0.02)
            for _ in range(1000):
                try:
                    peer.send(b"x")
                    assert peer.socket.recv(100).startswith(b"421 4.4.2 The content comes too slowly")
                    break
                except TimeoutError:
                    continue
            else:
                raise AssertionError("dribbled content was taken for ever")
        with Wire(house.ports["pop3"]) as reader:
            reader.login("bob@here.test")
            assert reader.uidls() == []


@pytest.mark.conformance("C291", "S23")
def test_addresses_cannot_be_tried_out(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, reception={"unknown_recipients": 3, "errors": 100}) as house:
        with Wire(house.ports["smtp"]).greet() as peer:
            peer.envelope("bob@here.test")
            for number in range(3):
                assert peer.say(f"RCPT TO:<x{number}@here.test>").startswith(b"550 5.1.1 ")
            assert peer.say("RCPT TO:<ada@here.test>").startswith(b"250 ")
            peer.send(b"RCPT TO:<x3@here.test>\r\nRCPT TO:<ada@here.test>\r\n")
            assert peer.rest() == b"421 4.7.0 Too many unknown recipients; goodbye\r\n"
        # And VRFY and EXPN tell nothing.
        with Wire(house.ports["smtp"]).greet() as peer:
            assert peer.say("VRFY ada@here.test") == peer.say("VRFY nobody@here.test")
            assert peer.say("EXPN ada@here.test") == peer.say("EXPN nobody@here.test")
            assert peer.say("EXPN ada").startswith(b"502 ")


@pytest.mark.conformance("C287", "S26")
@pytest.mark.parametrize("flood", [b"NOOP\r\n", b"RSET\r\n", b"HELO x\r\n", b"VRFY x\r\n", b"HELP\r\n"])
def test_commands_without_a_message_end(tmp_path: Path, flood: bytes) -> None:
    reception = {"commands": 300, "recipients": 100}
    with RunningHouse(tmp_path, reception=reception) as house, Wire(house.ports["smtp"]).greet() as other:
        with Wire(house.ports["smtp"]).greet() as peer:
            for _ in range(250):
                peer.send(flood)
                assert peer.reply()[:1] == b"2"
            # A message is what commands are for: the count begins again.
            peer.deliver(LETTER, "bob@here.test")
            for _ in range(250):
                peer.send(flood)
                assert peer.reply()[:1] == b"2"
            peer.send_in_pieces(flood * 10_000, 0)
            assert peer.rest().endswith(b"421 4.7.0 Too many commands without a message; goodbye\r\n")
        assert other.say("NOOP").startswith(b"250 ")


@pytest.mark.conformance("C169", "C287", "S26")
def test_a_flood_of_tiny_chunks_is_one_of_commands_and_large_content_is_not(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, reception={"recipients": 100, "commands": 200}) as house:
        with Wire(house.ports["smtp"]).greet().envelope("bob@here.test") as peer:
            peer.send((b"BDAT 1024\r\n" + b"\r\n" + b"x" * 1020 + b"\r\n") * 300 + b"BDAT 0 LAST\r\n")
            assert [peer.reply()[:3] for _ in range(300)] == [b"250"] * 300
            stored(peer.reply())
        with Wire(house.ports["smtp"]).greet().envelope("bob@here.test") as peer:
            peer.send_in_pieces(b"BDAT 1\r\nx" * 10_000, 4096)
            assert peer.rest().count(b"\r\n421 ") <= 1
        with Wire(house.ports["pop3"]) as reader:
            assert reader.login("bob@here.test").startswith(b"+OK")
            assert len(reader.uidls()) == 1


@pytest.mark.conformance("C175", "C287")
@pytest.mark.parametrize("ending", ["RSET", "message"])
def test_transactions_of_a_session_are_counted(tmp_path: Path, ending: str) -> None:
    with RunningHouse(tmp_path, reception={"messages": 3}) as house:
        with Wire(house.ports["smtp"]) as peer:
            assert peer.reply().startswith(b"220 ")
            peer.send(b"EHLO client.test\r\n")
            offered = [peer.line()]
            while offered[-1][3:4] == b"-":
                offered.append(peer.line())
            assert b"LIMITS RCPTMAX=1000 MAILMAX=3" in {line[4:] for line in offered}
            for _ in range(3):
                peer.envelope("bob@here.test")
                if ending == "RSET":
                    assert peer.say("RSET").startswith(b"250 ")
                else:
                    stored(peer.content(LETTER))
            peer.send(b"MAIL FROM:<>\r\n")
            assert peer.rest() == b"421 4.7.0 Too many messages in one session; open another\r\n"
        with Wire(house.ports["smtp"]).greet() as peer:
            peer.deliver(LETTER, "bob@here.test")


@pytest.mark.conformance("C287")
def test_a_flood_of_empty_messages_is_bounded_and_others_are_served(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, reception={"messages": 200}) as house, Wire(house.ports["smtp"]).greet() as other:
        with Wire(house.ports["smtp"]).greet() as peer:
            accepted = 0
            while True:
                peer.send(b"MAIL FROM:<>\r\n")
                if peer.reply().startswith(b"421 "):
                    break
                peer.send(b"RCPT TO:<bob@here.test>\r\nDATA\r\n.\r\n")
                assert [peer.reply()[:3] for _ in range(3)] == [b"250", b"354", b"250"]
                accepted += 1
                if not accepted % 20:
                    assert other.say("NOOP").startswith(b"250 ")
            assert accepted == 200
        assert other.say("NOOP").startswith(b"250 ")


# Those who speak first.


@pytest.mark.conformance("C160")
def test_who_speaks_before_the_greeting_is_dropped(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, reception={"greeting_delay": "300ms"}) as house:
        for early in (b"EHLO x\r\n", b"GET / HTTP/1.1\r\n", b"x"):
            with Wire(house.ports["smtp"]) as peer:
                peer.send(early)
                assert peer.rest() == b"421 4.7.0 You spoke before you were greeted; goodbye\r\n"
        # Who waits is greeted; so are users, who have a login to show.
        with Wire(house.ports["submission"]) as user:
            user.send(b"EHLO x\r\n")
            assert user.reply().startswith(b"220 ")
            assert user.reply().startswith(b"250 ")
        with Wire(house.ports["smtp"]).greet() as peer:
            peer.deliver(LETTER, "bob@here.test")
        # Who leaves meanwhile is no trouble.
        Wire(house.ports["smtp"]).drop()
        with Wire(house.ports["smtp"]) as peer:
            peer.end()
            assert peer.line().startswith(b"220 ")


def test_trusted_networks_do_not_wait(tmp_path: Path) -> None:
    reception = {"greeting_delay": "1h", "trusted_networks": ["127.0.0.0/8"]}
    with RunningHouse(tmp_path, reception=reception) as house:
        Wire(house.ports["smtp"]).greet().socket.close()


def test_closing_does_not_wait_for_the_greeting(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, reception={"greeting_delay": "1h"}) as house:
        peer = Wire(house.ports["smtp"])
        with Wire(house.ports["submission"]).greet():
            pass
    assert peer.rest() == b"421 4.3.2 This house is closing; come back later\r\n"


@pytest.mark.conformance("C160")
@pytest.mark.parametrize(
    "group",
    [
        b"EHLO x\r\nMAIL FROM:<>\r\n",
        b"HELO x\r\nMAIL FROM:<>\r\n",
        b"EHLO x\r\n|MAIL FROM:<>\r\nRCPT TO:<bob@here.test>\r\nDATA\r\nSubject: hi\r\n",
        b"HELO x\r\n|MAIL FROM:<>\r\nRCPT TO:<bob@here.test>\r\n",
    ],
)
def test_commands_ahead_where_they_may_not_be(tmp_path: Path, group: bytes) -> None:
    for strict in (True, False):
        reception = {"strict_pipelining": strict}
        with RunningHouse(tmp_path / str(strict), reception=reception) as house, Wire(house.ports["smtp"]) as peer:
            assert peer.reply().startswith(b"220 ")
            hello, _, rest = group.rpartition(b"|")
            if hello:
                peer.send(hello)
                assert peer.reply().startswith(b"250 ")
            peer.send(rest)
            if strict:
                assert peer.rest().endswith(b"421 4.7.0 You sent commands ahead where that is not allowed; goodbye\r\n")
            else:
                assert peer.reply().startswith(b"250 ")


@pytest.mark.conformance("C160")
def test_pipelining_as_it_is_offered_is_never_out_of_step(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, reception={"strict_pipelining": True}) as house:
        with Wire(house.ports["smtp"]).greet() as peer:
            peer.send(b"MAIL FROM:<>\r\nRCPT TO:<bob@here.test>\r\nRCPT TO:<ada@here.test>\r\nDATA\r\n")
            assert [peer.reply()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]
            peer.send(stuffed(LETTER) + b"MAIL FROM:<>\r\nRSET\r\nQUIT\r\n")
            assert [peer.reply()[:3] for _ in range(4)] == [b"250", b"250", b"250", b"221"]


# Quota.


@pytest.mark.conformance("C148", "C173")
def test_quota_is_told_at_rcpt(tmp_path: Path) -> None:
    with RunningHouse(tmp_path) as house:
        for name, quota_octets in (("carl", 2000), ("zero", 0)):
            address = parse_address(f"{name}@here.test")
            house.ask(
                lambda storage, a=address, q=quota_octets: storage.administration.add_account(
                    a, verifier=VERIFIER, quota_octets=q, now=0.0
                )
            )
        team = [parse_address("bob@here.test"), parse_address("carl@here.test")]
        house.ask(lambda storage: storage.administration.add_alias(parse_address("team@here.test"), team))
        with Wire(house.ports["smtp"]).greet() as peer:

            def answers(size: str, *people: str) -> list[bytes]:
                assert peer.say(f"MAIL FROM:<x@far.test>{size}").startswith(b"250 ")
                found = [peer.say(f"RCPT TO:<{person}@here.test>")[:9] for person in people]
                assert peer.say("RSET").startswith(b"250 ")
                return found

            fits, full, never = b"250 2.1.5", b"452 4.2.2", b"552 5.2.2"
            assert answers("", "carl", "zero", "team", "bob") == [fits, never, fits, fits]
            assert answers(" SIZE=2000", "carl", "zero", "bob") == [fits, never, fits]
            assert answers(" SIZE=2001", "carl", "team", "bob") == [never, never, fits]
            # One that said no size and is too large is refused at its end if it is for nobody else.
            peer.envelope("carl@here.test")
            assert peer.content(LETTER + b"x" * 70 + b"\r\n" + b"y" * 2000 + b"\r\n").startswith(never)
            # Nor for himself under another name, whatever size was said.
            lie = f"MAIL FROM:<x@far.test> SIZE={len(LETTER)}"
            assert peer.say(lie).startswith(b"250 ")
            for detail in ("a", "b"):
                assert peer.say(f"RCPT TO:<carl+{detail}@here.test>")[:9] == fits
            assert peer.content(LETTER + (b"y" * 500 + b"\r\n") * 5).startswith(never)
            peer.deliver(LETTER + b"x" * 900 + b"\r\n" + b"x" * 500 + b"\r\n", "carl@here.test")
            assert answers(" SIZE=500", "carl", "team", "bob") == [full, full, fits]
            peer.deliver(LETTER + b"x" * 800 + b"\r\n", "carl@here.test", "bob@here.test")
            assert answers("", "carl", "team", "bob") == [full, full, fits]
        with Wire(house.ports["pop3"]) as reader:
            assert reader.login("carl@here.test", PASSWORD).startswith(b"+OK")
            assert len(reader.uidls()) == 2
            for number in (1, 2):
                assert reader.pop3(f"DELE {number}").startswith(b"+OK")
            assert reader.pop3("QUIT").startswith(b"+OK")
        with Wire(house.ports["smtp"]).greet() as peer:
            peer.deliver(LETTER, "team@here.test")


def test_nobody_without_a_quota_is_asked_for_his_octets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house, faults = faulty_house(tmp_path, monkeypatch)
    faults["maildrops.used_octets"] = ZeroDivisionError()
    with house, Wire(house.ports["smtp"]).greet() as peer:
        peer.deliver(LETTER, "bob@here.test")
