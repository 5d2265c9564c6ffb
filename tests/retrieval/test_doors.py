"""The POP3 doors from outside: STLS, AUTH, limits of time and number, and peers that are hostile or gone."""

from __future__ import annotations

import asyncio
import base64
import poplib
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from posthouse.doors import SELF_SIGNED
from posthouse.mail.ids import AccountId
from posthouse.net.tls import make_self_signed
from posthouse.protocol.sasl_scram import ScramClient
from posthouse.retrieval.login_delay import LoginDelay
from posthouse.retrieval.session import Pop3Limits, Pop3Session
from posthouse.storage.errors import StorageBusy
from posthouse.world import World
from tests.house.faults import faulty_house
from tests.house.served import ServedHouse
from tests.house.wire import Wire
from tests.retrieval.test_session import BOB, filled, letter, reader, uidls, wait_until_left
from tests.running_house import PASSWORD, RunningHouse
from tests.storage.contract.world import SetClock

DOORS = ("smtp", "pop3", "pop3s")


def plain(login: str = BOB, password: str = PASSWORD, identity: str = "") -> str:
    return base64.b64encode(f"{identity}\0{login}\0{password}".encode()).decode()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    """With a certificate, and no passwords in clear."""
    folder = tmp_path_factory.mktemp("house")
    make_self_signed("mx.here.test", folder / SELF_SIGNED[0], folder / SELF_SIGNED[1], time.time())
    listen = {door: ["127.0.0.1:0"] for door in DOORS}
    with RunningHouse(folder, auth={"allow_cleartext": False}, listen=listen) as house:
        filled(house, 2)
        yield house


@pytest.fixture
def tls(house: RunningHouse) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=house.config.data_dir / SELF_SIGNED[0])
    context.check_hostname = False
    return context


def capabilities(wire: Wire) -> set[bytes]:
    assert wire.pop3("CAPA").startswith(b"+OK")
    return set(wire.multi_line().split(b"\r\n")[:-1])


# STLS and AUTH.


@pytest.mark.conformance("C146", "C258", "C265")
def test_stls_is_the_way_to_log_in_on_110(house: RunningHouse, tls: ssl.SSLContext) -> None:
    with Wire(house.ports["pop3"]) as wire:
        assert wire.line().startswith(b"+OK")
        before = capabilities(wire)
        assert b"STLS" in before
        assert not {line.split(b" ")[0] for line in before} & {b"USER", b"SASL"}
        for command in (f"USER {BOB}", f"PASS {PASSWORD}", f"AUTH PLAIN {plain()}"):
            assert wire.pop3(command).startswith(b"-ERR")
        assert wire.pop3("UTF8").startswith(b"+OK")
        assert wire.pop3("STLS").startswith(b"+OK")
        wire.start_tls(tls)
        assert wire.pop3(f"PASS {PASSWORD}").startswith(b"-ERR")
        after = capabilities(wire)
        assert b"STLS" not in after
        assert {line.split(b" ")[0] for line in after} >= {b"USER", b"SASL"}
        assert wire.pop3("STLS").startswith(b"-ERR")
        assert wire.pop3(f"USER {BOB}").startswith(b"+OK")
        assert wire.pop3(f"PASS {PASSWORD}") == b"+OK 2 messages (%d octets)" % sum(map(len, messages(wire)))
        assert wire.pop3("STLS").startswith(b"-ERR")
        assert wire.pop3("QUIT").startswith(b"+OK")


def messages(wire: Wire) -> list[bytes]:
    return [wire.retrieve(number) for number in (1, 2)]


@pytest.mark.conformance("C146")
@pytest.mark.parametrize("behind", [b"CAPA\r\n", b"QUIT\r\n", b"x"])
def test_octets_behind_stls_close_the_session(house: RunningHouse, behind: bytes) -> None:
    with Wire(house.ports["pop3"]) as wire:
        assert wire.line().startswith(b"+OK")
        wire.send(b"STLS\r\n" + behind)
        assert wire.rest() == b"-ERR Nothing may follow STLS before the handshake\r\n"


@pytest.mark.conformance("C146")
@pytest.mark.parametrize("instead", [b"CAPA\r\n", b""])
def test_what_is_no_handshake_ends_the_session(house: RunningHouse, instead: bytes) -> None:
    with Wire(house.ports["pop3"]) as wire:
        assert wire.line().startswith(b"+OK")
        assert wire.pop3("STLS").startswith(b"+OK")
        wire.send(instead)
        wire.end()
        assert b"TOP" not in wire.rest()
    assert_serves(house)


def assert_serves(house: RunningHouse) -> None:
    with Wire(house.ports["pop3"]) as wire:
        assert wire.line().startswith(b"+OK")
        assert wire.pop3("QUIT").startswith(b"+OK")


@pytest.mark.conformance("C264", "C265")
@pytest.mark.parametrize("door", ["pop3", "pop3s"])
def test_auth_plain_inside_tls(house: RunningHouse, tls: ssl.SSLContext, door: str) -> None:
    with Wire(house.ports[door], tls=tls if door == "pop3s" else None) as wire:
        assert wire.line().startswith(b"+OK")
        if door == "pop3":
            assert wire.pop3("STLS").startswith(b"+OK")
            wire.start_tls(tls)
        assert wire.pop3(f"AUTH PLAIN {plain(password='wrong')}").startswith(b"-ERR [AUTH]")
        assert wire.pop3(f"AUTH PLAIN {plain(identity='ada@here.test')}").startswith(b"-ERR [AUTH]")
        assert wire.pop3("AUTH PLAIN") == b"+ "
        assert wire.pop3(plain()).startswith(b"+OK 2 messages")
        assert wire.pop3("QUIT").startswith(b"+OK")


@pytest.mark.conformance("C263", "C264")
@pytest.mark.parametrize("login", [BOB, "nobody@here.test"])
@pytest.mark.parametrize("password", [PASSWORD, "wrong"])
def test_scram_inside_tls(house: RunningHouse, tls: ssl.SSLContext, login: str, password: str) -> None:
    client = ScramClient(login, password, "nonce-of-the-client")
    with Wire(house.ports["pop3s"], tls=tls) as wire:
        assert wire.line().startswith(b"+OK")
        challenge = wire.pop3(b"AUTH SCRAM-SHA-256 " + base64.b64encode(client.first())).removeprefix(b"+ ")
        answer = wire.pop3(base64.b64encode(client.final(base64.b64decode(challenge))))
        if (login, password) == (BOB, PASSWORD):
            client.verify(base64.b64decode(answer.removeprefix(b"+ ")))
            assert wire.pop3("").startswith(b"+OK 2 messages")
        else:
            assert answer == b"-ERR [AUTH] The login or the password is wrong"
            assert wire.pop3("STAT").startswith(b"-ERR")


@pytest.mark.conformance("C263")
def test_a_scram_login_that_cannot_be_checked_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house, faults = faulty_house(tmp_path, monkeypatch)
    with house, Wire(house.ports["pop3"]) as wire:
        assert wire.line().startswith(b"+OK")
        faults["directory.account"] = StorageBusy()
        first = base64.b64encode(ScramClient(BOB, PASSWORD, "nonce").first())
        assert wire.pop3(b"AUTH SCRAM-SHA-256 " + first).startswith(b"-ERR [SYS/TEMP] ")
        faults.clear()
        assert wire.pop3(f"AUTH PLAIN {plain()}").startswith(b"+OK")


def test_scram_may_be_switched_off(tmp_path: Path) -> None:
    auth = {"allow_cleartext": True, "scram": False}
    with RunningHouse(tmp_path, auth=auth) as house, Wire(house.ports["pop3"]) as wire:
        assert wire.line().startswith(b"+OK")
        assert b"SASL PLAIN" in capabilities(wire)
        assert wire.pop3("AUTH SCRAM-SHA-256").startswith(b"-ERR")


@pytest.mark.conformance("C146", "C265")
def test_python_reads_over_stls_and_over_995(house: RunningHouse, tls: ssl.SSLContext) -> None:
    clear = poplib.POP3("127.0.0.1", house.ports["pop3"], timeout=30)
    clear.stls(tls)
    wrapped = poplib.POP3_SSL("127.0.0.1", house.ports["pop3s"], context=tls, timeout=30)
    for client in (clear, wrapped):
        client.utf8()
        client.user(BOB)
        client.pass_(PASSWORD)
        assert len(client.list()[1]) == 2
        assert b"Subject: 2" in client.retr(2)[1]
        client.quit()


CURL = shutil.which("curl") or ""
OPENSSL = shutil.which("openssl") or ""


@pytest.mark.conformance("C265")
@pytest.mark.skipif(not CURL, reason="curl is not installed")
@pytest.mark.parametrize("mechanism", [None, "PLAIN"])
@pytest.mark.parametrize("door", ["pop3", "pop3s"])
def test_curl_reads_with_tls_required(house: RunningHouse, door: str, mechanism: str | None) -> None:
    how = ["--login-options", f"AUTH={mechanism}"] if mechanism else []
    certificate = str(house.config.data_dir / SELF_SIGNED[0])
    place = ["--connect-to", f"::127.0.0.1:{house.ports[door]}", f"{door}://mx.here.test/2"]
    tls = ["--ssl-reqd", "--cacert", certificate]
    command = [CURL, "-sS", "-m", "30", *tls, "-u", f"{BOB}:{PASSWORD}", *how, *place]
    got = subprocess.run(command, capture_output=True, check=False)
    assert got.returncode == 0, got.stderr
    assert got.stdout.endswith(letter(2))


@pytest.mark.conformance("C265")
@pytest.mark.skipif(not OPENSSL, reason="openssl is not installed")
@pytest.mark.parametrize("how", [("pop3", "-starttls", "pop3"), ("pop3s",)])
def test_openssl_verifies_the_certificate(house: RunningHouse, how: tuple[str, ...]) -> None:
    door, *options = how
    place = ["-connect", f"127.0.0.1:{house.ports[door]}", "-verify_return_error", "-verify_hostname", "mx.here.test"]
    certificate = ["-CAfile", str(house.config.data_dir / SELF_SIGNED[0])]
    command = [OPENSSL, "s_client", "-quiet", "-crlf", *place, *certificate, *options]
    got = subprocess.run(command, input=b"NOOP\nQUIT\n", capture_output=True, check=False, timeout=30)
    assert b"verify error" not in got.stderr, got.stderr
    assert got.stdout.endswith(b"-ERR Log in first\r\n+OK Goodbye\r\n")


# Limits.


@pytest.mark.conformance("C260")
def test_who_comes_back_too_soon_is_told_when(tmp_path: Path) -> None:
    clock = SetClock()
    with RunningHouse(tmp_path, world=World(clock=clock), retrieval={"login_delay": "60s"}) as house:
        queue_ids = filled(house, 1)
        with Wire(house.ports["pop3"]) as wire:
            assert wire.line().startswith(b"+OK")
            assert b"LOGIN-DELAY 60" in capabilities(wire)
            assert wire.pop3(f"USER {BOB}").startswith(b"+OK")
            assert wire.pop3("PASS wrong").startswith(b"-ERR [AUTH]")
            assert wire.pop3(f"AUTH PLAIN {plain()}").startswith(b"+OK"), "a failed login is none"
            assert b"LOGIN-DELAY 60" in capabilities(wire)
            with Wire(house.ports["pop3"]) as second:
                assert second.login(BOB).startswith(b"-ERR [LOGIN-DELAY] ")
            assert wire.pop3("QUIT").startswith(b"+OK")
        clock.time += 59
        with Wire(house.ports["pop3"]) as wire:
            assert wire.login(BOB) == b"-ERR [LOGIN-DELAY] You were here a moment ago; come back in 1 seconds"
            clock.time += 1
            assert wire.pop3(f"AUTH PLAIN {plain()}").startswith(b"+OK"), "the refused ones did not count"
            assert wire.uidls() == queue_ids
        with Wire(house.ports["pop3"]) as other:
            assert other.login("ada@here.test").startswith(b"+OK"), "each account for itself"


def test_those_whose_delay_is_over_are_forgotten() -> None:
    clock = SetClock()
    delay = LoginDelay(60.0, clock)
    for number in range(1000):
        delay.note(AccountId(number))
        clock.time += 1
    assert len(vars(delay)["_logged_in"]) == 60
    assert delay.left_s(AccountId(999)) == 59
    assert delay.left_s(AccountId(939)) == delay.left_s(AccountId(0)) == 0


@pytest.mark.conformance("C262")
def test_the_name_of_the_program_may_be_hidden(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, retrieval={"implementation": False}) as house, Wire(house.ports["pop3"]) as wire:
        wire.send(b"CAPA\r\nQUIT\r\n")
        assert b"posthouse" not in wire.rest().lower()


@pytest.mark.conformance("C238", "C247")
def test_a_session_lasts_half_a_day_at_most_and_ends_without_update(tmp_path: Path) -> None:
    clock = SetClock()
    with RunningHouse(tmp_path, world=World(clock=clock)) as house:
        queue_ids = filled(house, 1)
        with reader(house) as wire:
            assert wire.pop3("DELE 1").startswith(b"+OK")
            clock.time += 12 * 3600 - 1
            assert wire.pop3("NOOP").startswith(b"+OK")
            clock.time += 1
            assert wire.pop3("NOOP").startswith(b"+OK")
            assert wire.rest() == b""
        assert uidls(house) == queue_ids


@pytest.mark.conformance("C238", "C254", "C285")
def test_a_reader_that_takes_nothing_is_closed(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, retrieval={"write_timeout": "100ms"}) as house:
        queue_ids = filled(house, 1, 4_000_000)
        with reader(house) as wire:
            wire.send(b"DELE 1\r\nRSET\r\n" + b"RETR 1\r\n" * 20 + b"DELE 1\r\nQUIT\r\n")
            wait_until_left(house)
        assert uidls(house) == queue_ids


class SlowPeer:
    """A stream whose peer takes what `taken` says before each time limit is over, and all at the end."""

    peer_address = "192.0.2.1"

    def __init__(self, waiting_octets: int, taken: list[int]) -> None:
        self.waiting_octets = waiting_octets
        self.is_lost = False
        self._taken = taken

    async def drain(self, timeout_s: float) -> None:
        assert timeout_s == 300.0
        if not self._taken:
            return
        self.waiting_octets -= self._taken.pop(0)
        raise TimeoutError


class Anything:
    """Stands for what the test does not touch."""

    limits = Pop3Limits(idle_timeout_s=600.0)
    options = None
    clock = SetClock()

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self


@pytest.mark.conformance("C285")
@pytest.mark.parametrize(("taken", "closed"), [([1, 1, 1], False), ([], False), ([0], True), ([5, 0], True)])
async def test_a_peer_that_takes_little_is_slow_and_one_that_takes_nothing_is_gone(
    taken: list[int], closed: bool
) -> None:
    session = Pop3Session(SlowPeer(100, taken), Anything(), session="s")  # type: ignore[arg-type]
    if closed:
        with pytest.raises(TimeoutError):
            await session._drain()
    else:
        await asyncio.wait_for(session._drain(), 10)


@pytest.mark.conformance("C241")
def test_too_many_errors_end_the_session_without_update(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, retrieval={"errors": 3, "failed_logins": 2}) as house:
        queue_ids = filled(house, 1)
        with reader(house) as wire:
            wire.send(b"DELE 1\r\n" + b"DELE 1\r\n" * 5 + b"QUIT\r\n")
            assert wire.rest().split(b"\r\n")[1:] == [
                *[b"-ERR Message 1 is already deleted"] * 4,
                b"-ERR [SYS/TEMP] Too many errors",
                b"",
            ]
        with Wire(house.ports["pop3"]) as wire:
            wire.send(f"AUTH PLAIN {plain(password='x')}\r\n".encode() * 5)
            assert wire.rest().count(b"-ERR [AUTH]") == 2
        assert uidls(house) == queue_ids


# Hostile peers.


@pytest.mark.conformance("C247", "S37")
def test_a_session_cut_at_every_octet_deletes_all_or_nothing(tmp_path: Path) -> None:
    said = f"USER {BOB}\r\nPASS {PASSWORD}\r\nDELE 1\r\nDELE 3\r\nRSET\r\nDELE 2\r\nQUIT\r\n".encode()
    with RunningHouse(tmp_path, retrieval={"sessions_per_address": 1000}) as house:
        queue_ids = filled(house, 3)
        for length in range(len(said)):
            wire = Wire(house.ports["pop3"])
            wire.send(said[:length])
            if length % 2:
                wire.drop()
            else:
                wire.end()
                assert b"Goodbye" not in wire.rest()
        wait_until_left(house)
        assert uidls(house) == queue_ids
        with Wire(house.ports["pop3"]) as wire:
            wire.send(said)
            assert wire.rest().endswith(b"+OK Goodbye\r\n")
        after = filled(house, 2)
        assert uidls(house) == [queue_ids[0], queue_ids[2], *after]
        assert not set(after) & set(queue_ids)


@pytest.mark.conformance("S31")
def test_nobody_steals_the_lock(tmp_path: Path) -> None:
    with RunningHouse(tmp_path) as house:
        queue_ids = filled(house, 2)
        with reader(house) as first:
            for _ in range(3):
                with Wire(house.ports["pop3"]) as thief:
                    assert thief.login(BOB).startswith(b"-ERR [IN-USE]")
                    thief.send(b"DELE 1\r\nQUIT\r\n")
                    assert thief.rest().startswith(b"-ERR Log in first\r\n+OK")
            with Wire(house.ports["pop3"]) as thief:
                assert thief.login(BOB).startswith(b"-ERR [IN-USE]")
                thief.drop()
            with Wire(house.ports["pop3"]) as thief:
                assert thief.login(BOB).startswith(b"-ERR [IN-USE]"), "a session that failed freed another's lock"
            assert first.pop3("DELE 2").startswith(b"+OK")
            assert first.pop3("QUIT").startswith(b"+OK")
        assert uidls(house) == queue_ids[:1]


ODD_HEADERS = {
    "names of Python": b"__proto__: 1\r\n__class__: 2\r\nconstructor: 3\r\n",
    "empty names": b": x\r\n:\r\n",
    "a long line": b"X: " + b"h" * 200_000 + b"\r\n",
    "8 bits": b"Subject: \xff\xfe\xc3\r\nX\xff: y\r\n",
    "NUL": b"Subject: \0\r\n",
    "no header": b"",
}


@pytest.mark.conformance("S20")
@pytest.mark.parametrize("name", ODD_HEADERS)
def test_odd_headers_break_nothing(odd_house: RunningHouse, name: str) -> None:
    content = ODD_HEADERS[name] + b"\r\nbody\r\n"
    with Wire(odd_house.ports["smtp"]) as wire:
        if not wire.greet().envelope(BOB).content(content).startswith(b"250 "):
            pytest.fail("it was not accepted")
    with reader(odd_house) as wire:
        number = len(wire.uidls())
        assert wire.retrieve(number).endswith(content)
        assert wire.pop3(f"TOP {number} 0").startswith(b"+OK")
        assert wire.multi_line().endswith(ODD_HEADERS[name] + b"\r\n")
        assert wire.pop3("QUIT").startswith(b"+OK")


ODD_COMMANDS = (
    *(b"USER __class__", b"USER \xc3", b"USER \xed\xa0\x80", b"PASS \xff", b"\0\0\0", b"\xff" * 300, b"LANG \xf0\x9f"),
    *(b"AUTH PLAIN /////w==", b"AUTH PLAIN AP8A/w==", b"TOP 1 " + b"9" * 400, b"RETR " + b"9" * 500, b"LIST \xd9\xa1"),
    *(b"RETR 1_0", b"RETR +1", b"RETR 1e1", b"TOP 1_0 1", b"TOP 1 1_0", b"UTF8 \xff", b"STLS x", b"CAPA \0"),
)


@pytest.mark.conformance("C306", "S20")
@pytest.mark.parametrize("logged_in", [False, True])
def test_odd_commands_are_answered_and_the_session_goes_on(odd_house: RunningHouse, logged_in: bool) -> None:
    with Wire(odd_house.ports["pop3"]) as wire:
        if logged_in:
            assert wire.login(BOB).startswith(b"+OK")
        else:
            assert wire.line().startswith(b"+OK")
        for command in ODD_COMMANDS:
            assert wire.pop3(command).startswith((b"-ERR ", b"+OK Send PASS")), command
            assert wire.pop3("LANG en").startswith(b"+OK")
        assert wire.pop3("QUIT").startswith(b"+OK")
    assert "Traceback" not in odd_house.log.getvalue()


@pytest.fixture(scope="module")
def odd_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    with RunningHouse(tmp_path_factory.mktemp("odd")) as house:
        yield house


@pytest.mark.long
@pytest.mark.conformance("C254", "C285")
def test_readers_that_take_nothing_cost_little_and_others_are_served(tmp_path: Path) -> None:
    people = tuple(f"p{number}@here.test" for number in range(12))
    with ServedHouse(tmp_path, (*people, BOB)) as house:
        house.start()
        with Wire(house.ports["smtp"]).greet() as wire:
            wire.deliver(letter(1, 10_000_000), *people)
            wire.deliver(letter(2), BOB)
        with Wire(house.ports["pop3"]) as wire:
            assert wire.login(BOB).startswith(b"+OK")
        stuck = [Wire(house.ports["pop3"]) for _ in people]
        for person, wire in zip(people, stuck, strict=True):
            assert wire.login(person).startswith(b"+OK")
        # Only now: checking a password for the first time takes more memory than a session.
        house.forget_peak()
        before = house.memory_kib("VmRSS")
        for wire in stuck:
            wire.send(b"RETR 1\r\n" * 50)
        for _ in range(5):
            with Wire(house.ports["pop3"], timeout_s=5.0) as wire:
                assert wire.login(BOB).startswith(b"+OK")
                assert wire.retrieve(1).endswith(letter(2))
                assert wire.pop3("QUIT").startswith(b"+OK")
        grown = house.memory_kib("VmHWM") - before
        print(f"{len(people)} readers that take nothing: +{grown} KiB")
        assert grown < len(people) * 1024
        for wire in stuck:
            wire.drop()
        house.stop()
