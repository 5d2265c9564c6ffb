"""What nobody may do at the doors: smuggle, inject before TLS, relay, send as another."""

from __future__ import annotations

import base64
import poplib
import smtplib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from posthouse.doors import SELF_SIGNED
from posthouse.mail.address import parse_address
from posthouse.mail.ids import QueueId
from posthouse.net.tls import make_self_signed
from tests.house.wire import Wire
from tests.running_house import PASSWORD, RunningHouse

ADA, BOB = "ada@here.test", "bob@here.test"
LETTER = b"Subject: hi\r\n\r\nhello\r\n"
DOORS = ("smtp", "submission", "submissions", "pop3", "pop3s")


def plain(login: str = ADA, password: str = PASSWORD, authorization_id: str = "") -> str:
    return "AUTH PLAIN " + base64.b64encode(f"{authorization_id}\0{login}\0{password}".encode()).decode()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    """With a certificate and every door, and no passwords in clear."""
    folder = tmp_path_factory.mktemp("house")
    make_self_signed("mx.here.test", folder / SELF_SIGNED[0], folder / SELF_SIGNED[1], time.time())
    with RunningHouse(
        folder,
        auth={"allow_cleartext": False},
        listen={door: ["127.0.0.1:0"] for door in DOORS},
        reception={"sessions_per_address": 500, "errors": 100},
    ) as house:
        house.ask(lambda storage: storage.administration.add_alias(parse_address("away@here.test"), [FAR]))
        house.ask(lambda storage: storage.administration.add_alias(parse_address("loop@here.test"), LOOP[1:]))
        house.ask(lambda storage: storage.administration.add_alias(parse_address("pool@here.test"), LOOP[:1]))
        yield house


FAR = parse_address("friend@far.test")
LOOP = [
    parse_address(target) for target in ("loop@here.test", "pool@here.test", BOB, "BOB@here.test", "bob+x@here.test")
]


@pytest.fixture
def tls(house: RunningHouse) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=house.config.data_dir / SELF_SIGNED[0])


def taken_out(house: RunningHouse, tls: ssl.SSLContext, person: str = BOB) -> list[bytes]:
    """All messages of a maildrop, which is empty after."""
    reader = poplib.POP3_SSL("127.0.0.1", house.ports["pop3s"], context=_for_localhost(tls), timeout=30)
    reader.user(person)
    reader.pass_(PASSWORD)
    found = []
    for number in range(1, reader.stat()[0] + 1):
        found.append(b"".join(line + b"\r\n" for line in reader.retr(number)[1]))
        reader.dele(number)
    reader.quit()
    return found


def _for_localhost(context: ssl.SSLContext) -> ssl.SSLContext:
    context.check_hostname = False
    return context


# Smuggling.

ENDINGS = {
    "LF.LF": b"\n.\n",
    "LF.CRLF": b"\n.\r\n",
    "CRLF.LF": b"\r\n.\n",
    "CR.CR": b"\r.\r",
    "CR.CRLF": b"\r.\r\n",
    "CRLF.CR": b"\r\n.\r",
    "CR.LF": b"\r.\n",
    "LF.CR": b"\n.\r",
    "CRLF.CRCRLF": b"\r\n.\r\r\n",
    "CRLF NUL.CRLF": b"\r\n\0.\r\n",
    "CRLF.NUL CRLF": b"\r\n.\0\r\n",
    "CRCRLF.CRLF": b"\r\r\n.\r\n",
}
CLEAN = {"CRLF NUL.CRLF", "CRLF.NUL CRLF"}
"""No CR or LF stands alone in these: they are content like any other."""


@pytest.mark.conformance("C46", "C48", "C277", "S1")
@pytest.mark.parametrize("in_tls", [False, True], ids=["clear", "TLS"])
@pytest.mark.parametrize("piece", [0, 1])
@pytest.mark.parametrize("name", ENDINGS)
def test_only_crlf_dot_crlf_ends_content(
    house: RunningHouse, tls: ssl.SSLContext, name: str, piece: int, in_tls: bool
) -> None:
    """Whole, and cut at each octet: into segments, or into records of TLS."""
    smuggled = b"MAIL FROM:<admin@here.test>\r\nRCPT TO:<bob@here.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx"
    # The one true end inside is of CRCRLF.CRLF: there the octets after it are commands, and not of this test.
    true_end = ENDINGS[name].endswith(b"\r\n.\r\n")
    content = b"Subject: one\r\n\r\nx" + ENDINGS[name] + (b"" if true_end else smuggled + b"\r\n.\r\n")
    with Wire(house.ports["smtp"]).greet() as wire:
        if in_tls:
            assert wire.say("STARTTLS").startswith(b"220 ")
            wire.start_tls(_for_localhost(tls))
            assert wire.say("EHLO client.test").startswith(b"250 ")
        assert wire.envelope(BOB).say("DATA").startswith(b"354 ")
        wire.send_in_pieces(content, piece)
        answer = wire.reply()
        # Exactly one reply: the next is the one to NOOP.
        assert wire.say("NOOP") == b"250 2.0.0 OK"
        assert wire.say("RCPT TO:<bob@here.test>").startswith(b"503 ")
    messages = taken_out(house, tls)
    if name in CLEAN:
        assert answer.startswith(b"250 2.0.0 ")
        assert [message[-len(content) + 3 :].count(b"Subject: ") for message in messages] == [2]
    else:
        assert answer.startswith(b"550 5.6.11 ")
        assert messages == []


@pytest.mark.conformance("C47")
@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\0", b"\n\r"])
def test_only_crlf_ends_a_command(house: RunningHouse, end: bytes) -> None:
    with Wire(house.ports["smtp"]).greet() as wire:
        assert wire.say(b"NOOP" + end + b"MAIL FROM:<>").startswith(b"500 5.5.2 ")
        assert wire.say("RCPT TO:<bob@here.test>").startswith(b"503 ")
    with Wire(house.ports["pop3"]) as wire:
        assert wire.line().startswith(b"+OK")
        assert wire.pop3(b"CAPA" + end + b"QUIT").startswith(b"-ERR")
        assert wire.pop3("QUIT").startswith(b"+OK")


# TLS.


@pytest.mark.conformance("C113", "C119", "C139")
def test_starttls_upgrades_and_forgets(house: RunningHouse, tls: ssl.SSLContext) -> None:
    for door in ("smtp", "submission"):
        with Wire(house.ports[door]) as wire:
            assert wire.reply().startswith(b"220 ")
            wire.send(b"EHLO client.test\r\n")
            offered = []
            while not offered or offered[-1][3:4] == b"-":
                offered.append(wire.line())
            assert b"250-STARTTLS" in offered or b"250 STARTTLS" in offered
            assert not any(b"AUTH" in line for line in offered)
            if door == "smtp":
                wire.envelope(BOB)
            assert wire.say("STARTTLS").startswith(b"220 ")
            wire.start_tls(tls)
            assert wire.say("RCPT TO:<bob@here.test>")[:4] in (b"503 ", b"530 ")
            wire.send(b"EHLO client.test\r\n")
            again = []
            while not again or again[-1][3:4] == b"-":
                again.append(wire.line())
            assert not any(b"STARTTLS" in line for line in again)
            assert any(b"AUTH " in line and b" PLAIN" in line for line in again) is (door == "submission")
            assert wire.say("STARTTLS")[:1] == b"5"


@pytest.mark.conformance("C140", "C280", "C311", "S3")
@pytest.mark.parametrize("door", ["smtp", "submission"])
@pytest.mark.parametrize("piece", [0, 1])
def test_nothing_said_before_the_handshake_counts_after(
    house: RunningHouse, tls: ssl.SSLContext, door: str, piece: int
) -> None:
    with Wire(house.ports[door]).greet() as wire:
        wire.send_in_pieces(b"STARTTLS\r\nEHLO injected.test\r\n", piece)
        if not piece:
            # In one write the house sees both, and says why it goes.
            assert wire.rest() == b"554 5.5.1 Nothing may follow STARTTLS before the handshake\r\n"
            return
        # In several the house has answered 220 already, and takes the rest for a handshake that fails.
        assert b"injected" not in wire.rest()


@pytest.mark.conformance("C114", "C128")
def test_no_password_in_clear(house: RunningHouse) -> None:
    for door, answer in (("smtp", b"502 5.5.1 "), ("submission", b"538 5.7.11 ")):
        with Wire(house.ports[door]).greet() as wire:
            assert wire.say(plain()).startswith(answer)
    with Wire(house.ports["submission"]).greet() as wire:
        for line in ("MAIL FROM:<ada@here.test>", "RCPT TO:<x@far.test>", "DATA", "VRFY ada", "EXPN a", "ETRN a"):
            assert wire.say(line).startswith(b"530 5.7.0 ")
        assert wire.say(b"BDAT 6\r\nNOOP").startswith(b"530 5.7.0 ")
        for line in ("NOOP", "RSET", "HELP", "EHLO again.test"):
            assert wire.say(line)[:1] == b"2"
    with Wire(house.ports["pop3"]) as wire:
        assert wire.line().startswith(b"+OK")
        assert wire.pop3("USER ada@here.test").startswith(b"-ERR")
        assert wire.pop3("PASS " + PASSWORD).startswith(b"-ERR")


@pytest.mark.conformance("C113", "C265")
def test_doors_with_tls_from_the_start(house: RunningHouse, tls: ssl.SSLContext) -> None:
    with smtplib.SMTP_SSL("127.0.0.1", house.ports["submissions"], context=_for_localhost(tls), timeout=30) as client:
        client.login(ADA, PASSWORD)
        assert client.sendmail(ADA, [BOB], LETTER) == {}
    (message,) = taken_out(house, tls)
    assert b" with ESMTPSA id " in message
    assert message.endswith(LETTER)


def test_what_is_no_tls_ends_at_a_tls_door(house: RunningHouse) -> None:
    with Wire(house.ports["submissions"]) as wire:
        wire.send(b"EHLO client.test\r\n" * 20)
        assert not wire.rest().startswith(b"2")
    Wire(house.ports["submissions"]).socket.close()


# Logins.


@pytest.mark.conformance("C115", "C127", "S11")
def test_a_login_sends_only_as_itself(house: RunningHouse, tls: ssl.SSLContext) -> None:
    with Wire(house.ports["submissions"], tls=tls).greet() as wire:
        assert wire.say(plain(authorization_id=BOB)).startswith(b"535 ")
        assert wire.say(plain(password="wrong")).startswith(b"535 ")
        assert wire.say(plain()).startswith(b"235 ")
        for sender in (BOB, "ada@far.test", "nobody@here.test", "bob+ada@here.test", '"ada@here.test"@far.test'):
            assert wire.say(f"MAIL FROM:<{sender}>").startswith(b"550 5.7.1 "), sender
        for sender in (ADA, "ADA@HERE.TEST", '"ada"@here.test', "ada+news@here.test", ""):
            assert wire.say(f"MAIL FROM:<{sender}>").startswith(b"250 "), sender
            assert wire.say("RSET").startswith(b"250 ")


@pytest.mark.conformance("C41", "C118", "C291")
def test_unknown_users_are_told_at_rcpt(house: RunningHouse) -> None:
    with Wire(house.ports["smtp"]).greet() as wire:
        assert wire.say("MAIL FROM:<>").startswith(b"250 ")
        for person in ("nobody@here.test", '"ada bob"@here.test', "adax@here.test", "'@here.test"):
            assert wire.say(f"RCPT TO:<{person}>").startswith(b"550 5.1.1 ")
        assert wire.say("DATA")[:4] in (b"503 ", b"554 ")


@pytest.mark.conformance("C26")
@pytest.mark.parametrize(
    "path", ["Postmaster", "POSTMASTER@here.test", '"postmaster"@here.test', "postmaster@mx.here.test"]
)
def test_postmaster_takes_mail(house: RunningHouse, tls: ssl.SSLContext, path: str) -> None:
    with Wire(house.ports["smtp"]).greet() as wire:
        wire.deliver(LETTER, path)
    assert len(taken_out(house, tls, ADA)) == 1


# Relaying.

_SPELLINGS = (
    "u@far.test u%far.test@here.test u%far.test@mx.here.test u%far.test@[127.0.0.1] u%far.test far.test!u "
    "far.test!u@here.test far.test!u@mx.here.test far.test!u@[127.0.0.1] far.test!u@far.test u@far.test@here.test "
    'u@here.test@far.test "u@far.test"@here.test "u@far.test"@mx.here.test "u@far.test"@[127.0.0.1] "u@far.test" '
    '"u%far.test" "u%far.test"@here.test "far.test!u"@here.test @here.test:u@far.test @mx.here.test:u@far.test '
    "@[127.0.0.1]:u@far.test @far.test:u@far.test @here.test,@far.test:u@far.test @far.test,@here.test:u@far.test "
    "u@far.test. u@FAR.TEST u@Far.Test U@fAr.tEsT u@[127.0.0.1] u@[IPv6:::1] u@[192.0.2.1] u@[10.0.0.1] u@localhost "
    "u@far.test(here.test) u@here.test,u@far.test u@far.test\\@here.test u@here.test.far.test u@xhere.test "
    'u@sub.here.test bob@mx.here.test u@far.test%here.test u%far.test%here.test@here.test "u"@far.test '
    'u@xn--bcher-kva.test root@far.test !far.test!u@here.test u:far.test@here.test "u@far.test"@far.test u@far.test@'
)
OPEN_RELAY = _SPELLINGS.split(" ")


@pytest.mark.conformance("C27", "C42", "C282", "S16")
@pytest.mark.parametrize("path", OPEN_RELAY)
@pytest.mark.parametrize("sender", ["spammer@far.test", "", ADA, "root@[127.0.0.1]"])
def test_nothing_is_relayed_for_strangers(house: RunningHouse, path: str, sender: str) -> None:
    with Wire(house.ports["smtp"]).greet("localhost") as wire:
        assert wire.say(f"MAIL FROM:<{sender}>").startswith(b"250 ")
        assert wire.say(f"RCPT TO:<{path}>")[:4] in (b"550 ", b"501 ", b"553 ")
        assert wire.say("DATA")[:4] in (b"503 ", b"554 ")
    assert house.ask(lambda storage: storage.spool.count()) == 0


def test_plain_relaying_is_refused_with_its_reason(house: RunningHouse) -> None:
    with Wire(house.ports["smtp"]).greet() as wire:
        assert wire.say("MAIL FROM:<a@far.test>").startswith(b"250 ")
        for path in ("u@far.test", "@here.test:u@far.test", "u@FAR.TEST", "u@[192.0.2.1]"):
            assert wire.say(f"RCPT TO:<{path}>").startswith(b"550 5.7.1 "), path


def test_there_are_enough_spellings() -> None:
    assert len(set(OPEN_RELAY)) >= 40


@pytest.mark.conformance("C27", "C71", "C83")
def test_an_alias_is_one_entry_and_its_loop_ends(house: RunningHouse, tls: ssl.SSLContext) -> None:
    with Wire(house.ports["smtp"]).greet() as wire:
        queue_id = wire.deliver(
            LETTER, "loop@here.test", BOB, "pool@here.test", "@far.test:bob@here.test", "bob+y@here.test"
        )
    (message,) = taken_out(house, tls)
    assert queue_id.encode() in message
    assert b"\tfor " not in message


@pytest.mark.conformance("C25", "C81")
def test_aliases_and_logins_lead_elsewhere(house: RunningHouse, tls: ssl.SSLContext) -> None:
    """An alias of ours leads elsewhere for anybody, and keeps the null reverse-path; whoever logged in may relay."""
    with Wire(house.ports["smtp"]).greet() as wire:
        by_alias = wire.deliver(LETTER, "away@here.test", sender="")
    with Wire(house.ports["submissions"], tls=tls).greet() as wire:
        assert wire.say(plain()).startswith(b"235 ")
        by_login = wire.deliver(LETTER, "UsEr@FAR.test", sender=ADA)
    rows = {row.message.queue_id: row for row in house.ask(lambda storage: storage.spool.list())}
    _empty_spool(house)
    assert rows[QueueId(by_alias)].reverse_path is None
    assert rows[QueueId(by_alias)].forward_path == FAR
    assert str(rows[QueueId(by_login)].reverse_path) == ADA
    assert str(rows[QueueId(by_login)].forward_path) == "UsEr@far.test"


def _empty_spool(house: RunningHouse) -> None:
    def settle(connection: apsw.Connection) -> None:
        connection.execute("DELETE FROM spool")

    house.ask(lambda storage: storage._writer.submit(settle))  # type: ignore[attr-defined]


@pytest.mark.parametrize(("networks", "answer"), [(["127.0.0.0/8"], b"250 "), (["192.0.2.0/24", "::1/128"], b"550 ")])
def test_trusted_networks_may_relay(tmp_path: Path, networks: list[str], answer: bytes) -> None:
    with RunningHouse(tmp_path, reception={"trusted_networks": networks}) as house:
        with Wire(house.ports["smtp"]).greet() as wire:
            assert wire.say("MAIL FROM:<a@far.test>").startswith(b"250 ")
            assert wire.say("RCPT TO:<b@far.test>").startswith(answer)
            assert wire.say("RCPT TO:<nobody@here.test>").startswith(b"550 5.1.1 ")
