"""The SMTP door at its limits, and with a storage that fails."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from posthouse.admission.peer import Role
from posthouse.log import make_log
from posthouse.mail.acceptance import Acceptance
from posthouse.mail.account import Unavailable
from posthouse.net.stream import Stream
from posthouse.protocol.smtp_server import ServerOptions
from posthouse.reception.limits import SmtpLimits
from posthouse.reception.session import SmtpDoor, SmtpSession
from posthouse.storage.errors import AccountGone, StorageBusy, StorageDamaged, StorageError, StorageFull
from posthouse.world import SystemClock
from tests.house.faults import Faults, faulty_house
from tests.house.wire import Wire, stored, stuffed
from tests.running_house import RunningHouse

LETTER = b"Subject: hi\r\n\r\nhello\r\n"
LARGE = b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n" + (b"y" * 998 + b"\r\n") * 300


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RunningHouse, Faults]]:
    house, faults = faulty_house(tmp_path, monkeypatch)
    with house:
        yield house, faults


def uidls(house: RunningHouse, person: str = "bob@here.test") -> list[str]:
    with Wire(house.ports["pop3"]) as reader:
        assert reader.login(person).startswith(b"+OK")
        found = reader.uidls()
        # Only the answer to QUIT says that the maildrop is free for the next reader.
        assert reader.pop3("QUIT").startswith(b"+OK")
        return found


# Limits.


@pytest.mark.conformance("C285")
def test_too_many_sessions_in_all(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, reception={"sessions": 2}) as house:
        with Wire(house.ports["smtp"]).greet() as first, Wire(house.ports["smtp"]).greet():
            with Wire(house.ports["smtp"]) as third:
                assert third.rest() == b"421 4.7.0 Too many sessions are open; come back later\r\n"
            assert first.say("QUIT").startswith(b"221 ")
            assert first.rest() == b""
            Wire(house.ports["smtp"]).greet().socket.close()


@pytest.mark.conformance("C2", "C17")
def test_too_many_sessions_of_one_address(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, reception={"sessions_per_address": 1}) as house:
        with Wire(house.ports["smtp"]).greet(), Wire(house.ports["smtp"]) as second:
            assert second.rest().startswith(b"421 4.7.0 ")


@pytest.mark.conformance("C68")
def test_too_many_errors_end_the_session(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, reception={"errors": 3}) as house, Wire(house.ports["smtp"]).greet() as peer:
        for _ in range(3):
            assert peer.say("NONSENSE").startswith(b"500 ")
        peer.send(b"NONSENSE\r\n")
        assert peer.rest().split(b"\r\n")[1:] == [b"421 4.7.0 Too many errors; goodbye", b""]


@pytest.mark.conformance("C40")
def test_transient_refusals_are_no_errors_of_the_peer(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, reception={"recipients": 100, "errors": 3}) as house:
        with Wire(house.ports["smtp"]).greet() as peer:
            peer.envelope(*["bob@here.test"] * 100)
            peer.send(b"RCPT TO:<ada@here.test>\r\n" * 50)
            assert {peer.reply()[:9] for _ in range(50)} == {b"452 4.5.3"}
            assert stored(peer.content(LETTER)) in uidls(house)


@pytest.mark.conformance("C20")
def test_a_command_that_does_not_come(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, reception={"command_timeout": "20ms"}) as house, Wire(house.ports["smtp"]) as peer:
        assert peer.line().startswith(b"220 ")
        assert peer.rest() == b"421 4.4.2 No command came in time; goodbye\r\n"


def test_content_that_does_not_come(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, reception={"content_timeout": "20ms"}) as house:
        with Wire(house.ports["smtp"]).greet() as peer:
            peer.envelope("bob@here.test")
            assert peer.say("DATA").startswith(b"354 ")
            peer.send(stuffed(LETTER)[:-3])
            assert peer.rest().startswith(b"421 4.4.2 ")
        assert uidls(house) == []


def test_three_wrong_passwords_end_the_session(tmp_path: Path) -> None:
    with RunningHouse(tmp_path) as house, Wire(house.ports["submission"]).greet() as peer:
        for _ in range(2):
            assert peer.say("AUTH PLAIN AGFsaWNlAHdyb25n").startswith(b"535 5.7.8 ")
        peer.send(b"AUTH PLAIN AGFsaWNlAHdyb25n\r\n")
        assert [line[:9] for line in peer.rest().split(b"\r\n")] == [b"535 5.7.8", b"421 4.7.0", b""]


class Flood:
    """A stream that brings everything at once, and keeps how much was written each time."""

    peer_address = "192.0.2.1"
    local_address = "192.0.2.25"
    is_tls = False
    is_lost = False
    waiting_octets = 0
    is_full = False

    def __init__(self, octets: bytes) -> None:
        self._reads = [octets, b""]
        self.writes: list[int] = []

    async def read(self, *, interruptible: bool = False, timeout_s: float | None = None) -> bytes:
        return self._reads.pop(0)

    def write(self, octets: bytes) -> None:
        self.writes.append(len(octets))

    async def drain(self, timeout_s: float | None = None) -> None: ...

    async def close(self) -> None: ...


@pytest.mark.conformance("C154", "C287")
async def test_replies_to_a_flood_leave_before_its_end() -> None:
    """One read of pipelined commands has thirty times as many octets of replies: they must not gather in memory.

    And others must have their turn before its end.
    """
    nothing = cast(Any, None)
    options = ServerOptions(hostname="mx.here.test", message_size_octets=65536)
    door = SmtpDoor(
        role=Role.EXCHANGE,
        options=options,
        tls=None,
        tls_options=options,
        limits=SmtpLimits(command_timeout_s=60, content_timeout_s=60, errors=20, commands=20_000),
        storage=nothing,
        admission=nothing,
        report_writer=nothing,
        authenticator=nothing,
        refusals=nothing,
        clock=SystemClock(),
        log=make_log(io.StringIO(), json=True),
    )
    stream = Flood(b"EHLO x\r\n" * 10_000)
    turns = 0
    async with asyncio.TaskGroup() as group:
        session = group.create_task(SmtpSession(cast(Stream, stream), door, session="s", trusted=False).run())
        while not session.done():
            turns += 1
            await asyncio.sleep(0)
    assert turns > 100
    assert sum(stream.writes) > 1_000_000
    assert max(stream.writes) < 16 * 1024


# Closing.


@pytest.mark.conformance("C18")
def test_closing_tells_an_idle_session(tmp_path: Path) -> None:
    with RunningHouse(tmp_path) as house:
        peer = Wire(house.ports["smtp"]).greet()
    assert peer.rest() == b"421 4.3.2 This house is closing; come back later\r\n"


@pytest.mark.conformance("C18")
def test_closing_in_the_middle_of_content_lets_it_end(tmp_path: Path) -> None:
    with RunningHouse(tmp_path) as house:
        peer = Wire(house.ports["smtp"]).greet().envelope("bob@here.test")
        assert peer.say("DATA").startswith(b"354 ")
        peer.send(b"Subject: half\r\n")
        idle = Wire(house.ports["smtp"]).greet()
        house._loop.call_soon_threadsafe(house.house.stop)
        assert idle.rest().startswith(b"421 4.3.2 ")
        peer.send(b"\r\nother half\r\n.\r\n")
        queue_id = stored(peer.reply())
        assert peer.rest().startswith(b"421 4.3.2 ")
    with RunningHouse(tmp_path) as house:
        assert uidls(house) == [queue_id]


@pytest.mark.conformance("C18")
def test_closing_does_not_wait_for_content_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.app.GRACE_S", 0.05)
    with RunningHouse(tmp_path) as house:
        peer = Wire(house.ports["smtp"]).greet().envelope("bob@here.test")
        assert peer.say("DATA").startswith(b"354 ")
        peer.send(b"Subject: half\r\n")
    assert peer.rest() == b"", "a message that was not stored was answered"
    with RunningHouse(tmp_path) as house:
        assert uidls(house) == []


# Storage that fails.


@pytest.mark.conformance("C56", "C57", "C290")
@pytest.mark.parametrize("operation", ["content.draft", "draft.write", "draft.seal", "accept"])
@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        (StorageFull(), b"452 4.3.1 No space"),
        (StorageBusy(), b"451 4.3.0 The message could not be stored"),
        (AccountGone(), b"451 4.3.0 "),
        (StorageDamaged("secret place"), b"451 4.3.0 "),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_failing_storage_is_told_and_over(
    faulty: tuple[RunningHouse, Faults], operation: str, fault: StorageError, answer: bytes
) -> None:
    house, faults = faulty
    with Wire(house.ports["smtp"]).greet() as peer:
        faults[operation] = fault
        peer.envelope("bob@here.test")
        refusal = peer.say("DATA")
        if refusal.startswith(b"354 "):
            peer.send(stuffed(LARGE))
            refusal = peer.reply()
        assert refusal.startswith(answer)
        assert b"secret" not in refusal
        # The transaction is over in every outcome.
        assert peer.say("RCPT TO:<bob@here.test>").startswith(b"503 ")
        assert peer.say("DATA").startswith(b"503 ")
        assert uidls(house) == []
        faults.clear()
        assert [peer.deliver(LETTER, "bob@here.test")] == uidls(house)


@pytest.mark.conformance("C58")
def test_the_250_comes_after_accept(faulty: tuple[RunningHouse, Faults]) -> None:
    house, faults = faulty
    entered, go_on = threading.Event(), asyncio.Event()

    async def wait() -> None:
        entered.set()
        await go_on.wait()

    faults["accept"] = wait
    with Wire(house.ports["smtp"]).greet() as peer, Wire(house.ports["smtp"]).greet() as other:
        peer.envelope("bob@here.test")
        assert peer.say("DATA").startswith(b"354 ")
        peer.send(stuffed(LETTER))
        assert entered.wait(10)
        # Another session is served, and this one has not been answered.
        assert other.say("NOOP").startswith(b"250 ")
        peer.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.socket.recv(1)
        peer.socket.settimeout(10)
        house._loop.call_soon_threadsafe(go_on.set)
        assert stored(peer.reply()) in uidls(house)


@pytest.mark.parametrize("fails", [False, True])
def test_a_peer_that_vanishes_during_accept(faulty: tuple[RunningHouse, Faults], fails: bool) -> None:
    house, faults = faulty
    entered, go_on = threading.Event(), asyncio.Event()

    async def wait() -> None:
        entered.set()
        await go_on.wait()
        if fails:
            raise StorageBusy

    faults["accept"] = wait
    peer = Wire(house.ports["smtp"]).greet().envelope("bob@here.test", "ada@here.test")
    assert peer.say("DATA").startswith(b"354 ")
    peer.send(stuffed(LARGE))
    assert entered.wait(10)
    peer.drop()
    faults.clear()
    house._loop.call_soon_threadsafe(go_on.set)
    with Wire(house.ports["smtp"]).greet() as other:
        # One commit after the other: when this one is answered, the first is decided.
        later = other.deliver(LETTER, "bob@here.test", "ada@here.test")
    for person in ("bob@here.test", "ada@here.test"):
        found = uidls(house, person)
        assert later in found
        assert len(found) == (1 if fails else 2)


def test_a_draft_that_cannot_be_discarded_ends_no_other_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house, faults = faulty_house(tmp_path, monkeypatch, reception={"content_timeout": "20ms"})
    faults["draft.discard"] = StorageBusy()
    with house, Wire(house.ports["smtp"]).greet() as other:
        for ending in (Wire.end, Wire.rest):
            with Wire(house.ports["smtp"]).greet().envelope("bob@here.test") as peer:
                assert peer.say("DATA").startswith(b"354 ")
                peer.send(b"half of it\r\n")
                ending(peer)
                peer.rest()
        assert other.say("NOOP").startswith(b"250 ")


@pytest.mark.conformance("C312", "S20")
def test_a_bug_ends_its_session_with_421_and_no_other(faulty: tuple[RunningHouse, Faults]) -> None:
    house, faults = faulty
    with Wire(house.ports["smtp"]).greet() as peer, Wire(house.ports["smtp"]).greet() as other:
        peer.envelope("bob@here.test")
        faults["accept"] = ZeroDivisionError("secret")
        assert peer.content(LETTER).startswith(b"421 4.3.0 ")
        assert peer.rest() == b""
        assert other.say("NOOP").startswith(b"250 ")
        assert uidls(house) == []


@pytest.mark.conformance("C41")
def test_a_directory_that_cannot_answer_is_never_a_550(
    faulty: tuple[RunningHouse, Faults], monkeypatch: pytest.MonkeyPatch
) -> None:
    house, faults = faulty
    with Wire(house.ports["smtp"]).greet() as peer:
        assert peer.say("MAIL FROM:<>").startswith(b"250 ")
        faults["directory.resolve"] = StorageBusy()
        for recipient in ("bob@here.test", "nobody@here.test", "x@far.test", "postmaster"):
            assert peer.say(f"RCPT TO:<{recipient}>").startswith(b"451 4.3.0 ")
        faults.clear()

        async def unavailable(*_: object) -> Unavailable:
            return Unavailable()

        monkeypatch.setattr(type(house.house.storage.directory._real), "resolve", unavailable)  # type: ignore[attr-defined]
        assert peer.say("RCPT TO:<nobody@here.test>").startswith(b"451 4.3.0 ")


def test_a_directory_that_cannot_answer_is_no_wrong_password(faulty: tuple[RunningHouse, Faults]) -> None:
    house, faults = faulty
    with Wire(house.ports["submission"]).greet() as peer:
        faults["directory.account"] = StorageBusy()
        for _ in range(5):
            assert peer.say("AUTH PLAIN AGFkYUBoZXJlLnRlc3QAY29ycmVjdCBob3JzZQ==").startswith(b"454 4.7.0 ")
        faults.clear()
        faults["directory.resolve"] = StorageBusy()
        assert peer.say("AUTH PLAIN AGFkYUBoZXJlLnRlc3QAY29ycmVjdCBob3JzZQ==").startswith(b"235 ")
        assert peer.say("MAIL FROM:<ada@here.test>").startswith(b"451 4.3.0 ")


def test_the_acceptance_that_was_refused_may_come_again(faulty: tuple[RunningHouse, Faults]) -> None:
    """A repeated acceptance of the same queue id is one message: what a lost answer of storage comes to."""
    house, _ = faulty
    real = house.house.storage._real  # type: ignore[attr-defined]
    twice = real.accept

    async def accept(acceptance: Acceptance) -> None:
        await twice(acceptance)
        await twice(acceptance)

    real.accept = accept
    with Wire(house.ports["smtp"]).greet() as peer:
        assert [peer.deliver(LARGE, "bob@here.test")] == uidls(house)
