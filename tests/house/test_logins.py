"""Logging in at the doors: SCRAM, app passwords, suspended accounts, guessing; SMTP and POP3 alike."""

from __future__ import annotations

import base64
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.identity.hashes import app_verifier, make_app_password
from posthouse.mail.address import parse_address
from posthouse.protocol.sasl_scram import ScramClient, derive_keys
from tests.house.wire import Wire
from tests.running_house import PASSWORD, VERIFIER, RunningHouse

ADA, BOB, NOBODY = "ada@here.test", "bob@here.test", "nobody@here.test"
WRONG = {
    "submission": b"535 5.7.8 The login or the password is wrong",
    "pop3": b"-ERR [AUTH] The login or the password is wrong",
}
APP = make_app_password(b"0123456789abcdef")


def b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


class Door(Wire):
    """A session at the submission or the POP3 door, from an address of one's choice, past the greeting."""

    def __init__(self, house: RunningHouse, name: str, source: str = "127.0.0.1") -> None:
        self.name = name
        super().__init__(house.ports[name])
        self.socket.close()
        self.socket = socket.create_connection(("127.0.0.1", house.ports[name]), 30, source_address=(source, 0))
        self.reply()
        if name == "submission":
            self.say("EHLO me.test")

    def reply(self) -> bytes:
        return super().reply() if self.name == "submission" else self.line()

    def plain(self, login: str, password: str = PASSWORD, authorization_id: str = "") -> bytes:
        return self.say("AUTH PLAIN " + b64(f"{authorization_id}\0{login}\0{password}".encode()))

    def scram(self, login: str, password: str = PASSWORD, *, initial: bool = True) -> bytes:
        """A whole exchange; the server's word at its end."""
        client = ScramClient(login, password, "client nonce".replace(" ", "-"))
        first = b64(client.first())
        if initial:
            challenge = self.say(f"AUTH SCRAM-SHA-256 {first}")
        else:
            assert self.say("AUTH SCRAM-SHA-256") in (b"334 ", b"+ ")
            challenge = self.say(first)
        answer = self.say(b64(client.final(self._challenge(challenge))))
        if not answer.startswith((b"334", b"+ ")):
            return answer
        client.verify(self._challenge(answer))
        return self.say("")

    def ok(self, answer: bytes) -> bool:
        """Whether it lets us in, or refuses as every wrong login is refused."""
        if answer.startswith((b"235", b"+OK")):
            return True
        assert answer == WRONG[self.name]
        return False

    @staticmethod
    def _challenge(line: bytes) -> bytes:
        assert line.startswith((b"334 ", b"+ ")), line
        return base64.b64decode(line.partition(b" ")[2], validate=True)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[RunningHouse]:
    with RunningHouse(
        tmp_path,
        listen={door: ["127.0.0.1:0"] for door in ("smtp", "submission", "pop3")},
        auth={"allow_cleartext": True, "slowing_delay": "1ms", "slowing_longest": "2ms"},
    ) as running:
        yield running


@pytest.fixture(params=["submission", "pop3"])
def door(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def give_app_password(house: RunningHouse, login: str = ADA) -> None:
    account = house.ask(lambda storage: storage.directory.account(login))
    assert account is not None
    keys = derive_keys(APP, account.scram_salt, account.scram_iterations)
    verifier = app_verifier(APP)
    house.ask(
        lambda storage: storage.credentials.add_app_password(login, "phone", verifier=verifier, scram=keys, now=1.0)
    )


@pytest.mark.conformance("C130")
@pytest.mark.parametrize("initial", [True, False])
def test_scram(house: RunningHouse, door: str, initial: bool) -> None:
    with Door(house, door) as session:
        assert not session.ok(session.scram(ADA, "wrong", initial=initial))
        assert not session.ok(session.scram(NOBODY, initial=initial))
        assert session.ok(session.scram(ADA, initial=initial))
        if door == "submission":
            assert session.say(f"MAIL FROM:<{ADA}>").startswith(b"250")
        else:
            assert session.say("STAT").startswith(b"+OK")


def mechanisms(house: RunningHouse, door: str) -> set[str]:
    """What a session that begins now is offered."""
    with Door(house, door) as session:
        session.send(b"CAPA\r\n" if door == "pop3" else b"EHLO me.test\r\n")
        lines = []
        while (line := session.line().decode())[:4] not in ("250 ", "."):
            lines.append(line)
        (offer,) = [line for line in [*lines, line] if line.lstrip("250- ").startswith(("SASL ", "AUTH "))]
    return set(offer.lstrip("250- ").split(" ")[1:]) - {"LOGIN"}


def forget_keys(house: RunningHouse, login: str = BOB) -> None:
    """As after an import, or where the password was chosen."""
    house.ask(lambda storage: storage.administration.set_password(login, VERIFIER, 1.0))


EVERYTHING, PLAIN_ONLY = {"SCRAM-SHA-256", "PLAIN"}, {"PLAIN"}


@pytest.mark.conformance("C130")
def test_scram_is_offered_while_it_works_for_everybody(house: RunningHouse, door: str) -> None:
    """A program that takes it by itself is never told that a right password is wrong."""
    assert mechanisms(house, door) == EVERYTHING
    with Door(house, door) as before:
        forget_keys(house)
        assert mechanisms(house, door) == PLAIN_ONLY
        assert before.ok(before.scram(ADA)), "what was offered is kept"
    with Door(house, door) as session:
        client = ScramClient(BOB, PASSWORD, "nonce")
        assert session.say("AUTH SCRAM-SHA-256 " + b64(client.first())).startswith((b"504 5.5.4", b"-ERR"))
        assert session.ok(session.plain(BOB))
    assert mechanisms(house, door) == PLAIN_ONLY
    house.ask(lambda storage: storage.administration.set_suspended(BOB, True))
    assert mechanisms(house, door) == EVERYTHING
    house.ask(lambda storage: storage.administration.set_suspended(BOB, False))
    assert mechanisms(house, door) == PLAIN_ONLY
    house.ask(lambda storage: storage.administration.remove_account(BOB, keep_mail=False, now=1.0))
    assert mechanisms(house, door) == EVERYTHING


def test_a_login_by_plain_makes_scram_work(tmp_path: Path, door: str) -> None:
    with RunningHouse(tmp_path, auth={"allow_cleartext": True, "scram_for_passwords": True}) as house:
        forget_keys(house)
        assert mechanisms(house, door) == PLAIN_ONLY
        with Door(house, door) as session:
            assert session.ok(session.plain(BOB))
        assert mechanisms(house, door) == EVERYTHING
        with Door(house, door) as session:
            assert session.ok(session.scram(BOB))


def test_scram_is_never_offered_where_it_is_not_wanted(tmp_path: Path, door: str) -> None:
    with RunningHouse(tmp_path, auth={"allow_cleartext": True, "scram": False}) as house:
        assert mechanisms(house, door) == PLAIN_ONLY


@pytest.mark.conformance("C131", "S23")
def test_the_salt_of_a_stranger_stays_the_same(house: RunningHouse) -> None:
    """Over both protocols; and it differs from stranger to stranger."""
    salts: dict[str, set[bytes]] = {NOBODY: set(), "other@here.test": set(), ADA: set()}
    for name in ("submission", "pop3", "submission"):
        for login, seen in salts.items():
            with Door(house, name) as session:
                client = ScramClient(login, "x", "nonce")
                challenge = session._challenge(session.say("AUTH SCRAM-SHA-256 " + b64(client.first())))
                _nonce, salt, iterations = challenge.split(b",")
                assert (len(salt), iterations) == (26, b"i=4096")
                seen.add(salt)
    assert [len(seen) for seen in salts.values()] == [1, 1, 1]
    assert len(set.union(*salts.values())) == 3


def test_app_passwords_work_everywhere_until_revoked(house: RunningHouse, door: str) -> None:
    give_app_password(house)
    for way in (Door.plain, Door.scram):
        with Door(house, door) as session:
            assert session.ok(way(session, ADA, APP))
    house.ask(lambda storage: storage.credentials.revoke_app_password(ADA, "phone"))
    for way in (Door.plain, Door.scram):
        with Door(house, door) as session:
            assert not session.ok(way(session, ADA, APP))
            assert session.ok(way(session, ADA))


@pytest.mark.conformance("C123", "C241", "C291", "S23")
def test_one_text_for_all_that_is_wrong(house: RunningHouse, door: str) -> None:
    """An unknown login, a wrong password, a suspended account with the right one: nothing tells them apart."""
    give_app_password(house)
    house.ask(lambda storage: storage.administration.set_suspended(ADA, True))
    tried = [(ADA, PASSWORD), (ADA, APP), (ADA, "wrong"), (NOBODY, PASSWORD), (NOBODY, APP), (BOB, "wrong"), ("x", "y")]
    for way in (Door.plain, Door.scram):
        for login, password in tried:
            with Door(house, door) as session:
                assert not session.ok(way(session, login, password))
    if door == "pop3":
        for login, password in tried:
            with Door(house, door) as session:
                assert session.say(f"USER {login}").startswith(b"+OK")
                assert not session.ok(session.say(f"PASS {password}"))


def test_a_suspended_account_still_gets_mail(house: RunningHouse) -> None:
    house.ask(lambda storage: storage.administration.set_suspended(ADA, True))
    with Wire(house.ports["smtp"]) as sender:
        sender.reply()
        for line in ("EHLO me.test", "MAIL FROM:<x@far.test>", f"RCPT TO:<{ADA}>"):
            assert sender.say(line).startswith(b"250")
        sender.say("DATA")
        assert sender.say("Subject: hi\r\n\r\nhello\r\n.").startswith(b"250")
    house.ask(lambda storage: storage.administration.set_suspended(ADA, False))
    with Door(house, "pop3") as session:
        assert session.ok(session.plain(ADA))
        assert session.say("STAT").startswith(b"+OK 1 ")


@pytest.mark.parametrize("how", ["suspended", "removed"])
def test_a_session_sends_no_more_when_its_account_is_gone(house: RunningHouse, how: str) -> None:
    with Door(house, "submission") as session:
        assert session.ok(session.plain(ADA))
        assert session.say(f"MAIL FROM:<{ADA}>").startswith(b"250")
        assert session.say("RSET").startswith(b"250")
        if how == "suspended":
            house.ask(lambda storage: storage.administration.set_suspended(ADA, True))
        else:
            house.ask(lambda storage: storage.administration.remove_account(ADA, keep_mail=True, now=1.0))
        assert session.say(f"MAIL FROM:<{ADA}>").startswith(b"421 4.7.0")
        assert session.rest() == b""


@pytest.mark.parametrize("command", ["RETR 2", "TOP 2 0", "QUIT"])
@pytest.mark.parametrize("how", ["suspended", "removed", "replaced"])
def test_a_session_reads_and_deletes_no_more_when_its_account_is_gone(
    house: RunningHouse, how: str, command: str
) -> None:
    for subject in ("one", "two"):
        with Wire(house.ports["smtp"]).greet() as sender:
            sender.deliver(f"Subject: {subject}\r\n".encode(), ADA)
    with Door(house, "pop3") as session:
        assert session.ok(session.plain(ADA))
        session.retrieve(1)
        assert session.say("DELE 1").startswith(b"+OK")
        if how == "suspended":
            house.ask(lambda storage: storage.administration.set_suspended(ADA, True))
        else:
            house.ask(lambda storage: storage.administration.remove_account(ADA, keep_mail=True, now=1.0))
        if how == "replaced":
            address = parse_address(ADA)
            house.ask(
                lambda storage: storage.administration.add_account(
                    address, verifier=VERIFIER, quota_octets=None, now=1.0
                )
            )
        assert session.say("STAT").startswith(b"+OK"), "what was told at login may be told again"
        assert session.say(command) == b"-ERR [SYS/PERM] This login has ended"
        assert session.rest() == b""
    if how == "suspended":
        house.ask(lambda storage: storage.administration.set_suspended(ADA, False))
        with Door(house, "pop3") as session:
            assert session.ok(session.plain(ADA))
            assert len(session.uidls()) == 2, "something was deleted"


def test_a_session_that_deletes_nothing_may_end_when_its_account_is_gone(house: RunningHouse) -> None:
    with Door(house, "pop3") as session:
        assert session.ok(session.plain(ADA))
        house.ask(lambda storage: storage.administration.set_suspended(ADA, True))
        assert session.say("QUIT").startswith(b"+OK")


@pytest.mark.conformance("C125", "C292", "S24")
def test_guessing_ends_sessions_and_locks_nobody_out(house: RunningHouse, door: str) -> None:
    for _connection in range(10):
        with Door(house, door) as session:
            for number in range(3):
                assert not session.ok(session.plain(ADA, f"guess {number}"))
            assert session.rest() in (b"421 4.7.0 Too many errors; goodbye\r\n", b"")
    with Door(house, door, "127.0.9.1") as session:
        assert session.ok(session.scram(ADA))
    with Door(house, door) as session:
        assert session.ok(session.plain(ADA))
    assert '"failures": 30' in house.log.getvalue()


@pytest.mark.conformance("C293", "S13")
def test_fuzzers_beside_good_logins(house: RunningHouse, door: str) -> None:
    """Bad base64, cancelled and huge exchanges: every good login beside them succeeds."""
    stop = threading.Event()

    def fuzz(seed: int) -> None:
        chance = random.Random(seed)
        while not stop.is_set():
            try:
                with Door(house, door, f"127.1.{seed}.1") as session:
                    session.send(b"AUTH " + chance.choice([b"PLAIN", b"SCRAM-SHA-256", b"X"]) + b"\r\n")
                    session.send(chance.choice([b"*", b"====", b"A" * 11_000, chance.randbytes(30), b""]) + b"\r\n")
                    session.end()
                    session.rest()
            except (OSError, AssertionError):
                pass

    fuzzers = [threading.Thread(target=fuzz, args=(seed,), daemon=True) for seed in range(5)]
    for fuzzer in fuzzers:
        fuzzer.start()
    try:
        for number in range(50):
            with Door(house, door) as session:
                assert session.ok((session.plain if number % 2 else session.scram)(ADA)), number
                session.say("QUIT")
                session.rest()
    finally:
        stop.set()
        for fuzzer in fuzzers:
            fuzzer.join(30)


@pytest.mark.conformance("S35", "C308")
def test_nothing_of_an_aborted_exchange_is_used_again(house: RunningHouse, door: str) -> None:
    refused = (b"501", b"-ERR")
    client = ScramClient(ADA, PASSWORD, "nonce")
    with Door(house, door) as session:
        assert session.say("AUTH PLAIN").startswith((b"334", b"+"))
        assert session.say("*").startswith(refused)
        session.say("AUTH SCRAM-SHA-256 " + b64(client.first()))
        assert session.say("*").startswith(refused)
        # The answer to a challenge of the exchange before; what is no SCRAM message is no proof either.
        session.say("AUTH SCRAM-SHA-256 " + b64(client.first()))
        assert session.say(b64(b"\0" + ADA.encode() + b"\0" + PASSWORD.encode())).startswith(refused)
        for text in ("AAA", "A A=", "AAAA====", "=", "AA==AA==", "\u00e4"):
            session.say("AUTH PLAIN")
            assert session.say(text).startswith((*refused, b"500"))
        assert session.ok(session.plain(ADA))
