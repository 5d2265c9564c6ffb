"""The POP3 door: the lock, the snapshot, deletion, and a storage that fails."""

from __future__ import annotations

import asyncio
import gc
import io
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from posthouse.log import make_log
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Deleted, Retrieved
from posthouse.mail.maildrop import MaildropLock
from posthouse.net.stream import Stream
from posthouse.protocol.pop3_options import Pop3Options
from posthouse.retrieval.session import Pop3Door, Pop3Limits, Pop3Session
from posthouse.storage.errors import StorageBusy, StorageError
from posthouse.storage.interfaces import Storage
from posthouse.world import SystemClock, World
from tests.house.faults import Faults, faulty_house
from tests.house.wire import Wire
from tests.reception.test_session import Flood
from tests.running_house import RunningHouse
from tests.storage.contract.world import SetClock

BOB = "bob@here.test"


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RunningHouse, Faults]]:
    house, faults = faulty_house(tmp_path, monkeypatch)
    with house:
        yield house, faults


@pytest.mark.conformance("S26")
async def test_commands_sent_ahead_let_others_have_their_turn() -> None:
    nothing = cast(Any, None)
    door = Pop3Door(
        options=Pop3Options(hostname="mx.here.test"),
        tls=None,
        tls_options=Pop3Options(hostname="mx.here.test"),
        limits=Pop3Limits(idle_timeout_s=60),
        login_delay=None,
        storage=nothing,
        surrogates=nothing,
        authenticator=nothing,
        clock=SystemClock(),
        log=make_log(io.StringIO(), json=True),
    )
    stream, turns = Flood(b"CAPA\r\n" * 40_000), 0
    async with asyncio.TaskGroup() as group:
        session = group.create_task(Pop3Session(cast(Stream, stream), door, session="s").run())
        while not session.done():
            turns += 1
            await asyncio.sleep(0)
    assert sum(stream.writes) > 5_000_000
    assert turns > 50


@pytest.fixture
def house(faulty: tuple[RunningHouse, Faults]) -> RunningHouse:
    return faulty[0]


def letter(number: int, size: int = 0) -> bytes:
    return b"Subject: %d\r\n\r\n" % number + (b"x" * 76 + b"\r\n") * (size // 78) + b".\r\n"


def filled(house: RunningHouse, count: int, size: int = 0) -> list[str]:
    """Deliver so many messages to Bob; their queue ids."""
    with Wire(house.ports["smtp"]) as wire:
        wire.greet()
        return [wire.deliver(letter(number, size), BOB) for number in range(1, count + 1)]


def reader(house: RunningHouse) -> Wire:
    """A session of Bob's, logged in."""
    wire = Wire(house.ports["pop3"])
    answer = wire.login(BOB)
    assert answer.startswith(b"+OK"), answer
    return wire


def uidls(house: RunningHouse) -> list[str]:
    with reader(house) as wire:
        found = wire.uidls()
        assert wire.pop3("QUIT").startswith(b"+OK")
        return found


def wait_until_left(house: RunningHouse) -> None:
    """Until the house has noticed that the others are gone: a login is refused no longer."""
    for _ in range(1000):
        with Wire(house.ports["pop3"]) as wire:
            if wire.login(BOB).startswith(b"+OK"):
                assert wire.pop3("QUIT").startswith(b"+OK")
                return
    raise AssertionError("the maildrop stayed locked")


@pytest.mark.conformance("C240")
@pytest.mark.parametrize("ending", ["quit", "end", "drop"])
def test_one_session_at_a_time(house: RunningHouse, ending: str) -> None:
    queue_ids = filled(house, 2)
    with reader(house) as first:
        assert first.pop3("DELE 1").startswith(b"+OK")
        with Wire(house.ports["pop3"]) as second:
            assert second.login(BOB).startswith(b"-ERR [IN-USE] ")
            assert second.pop3("STAT").startswith(b"-ERR")
        match ending:
            case "quit":
                assert first.pop3("QUIT").startswith(b"+OK")
            case "end":
                first.end()
                assert first.rest() == b""
            case _:
                first.drop()
    wait_until_left(house)
    assert uidls(house) == (queue_ids[1:] if ending == "quit" else queue_ids)


@pytest.mark.conformance("C238", "C240")
def test_an_idle_session_ends_without_a_word_and_without_update(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, retrieval={"idle_timeout": "100ms"}) as house:
        queue_ids = filled(house, 1)
        with reader(house) as wire:
            assert wire.pop3("DELE 1").startswith(b"+OK")
            assert wire.rest() == b""
        assert uidls(house) == queue_ids


@pytest.mark.conformance("C238", "C285")
def test_octets_without_a_command_do_not_keep_a_session_open(tmp_path: Path) -> None:
    clock = SetClock()
    with RunningHouse(tmp_path, world=World(clock=clock)) as house, Wire(house.ports["pop3"]) as wire:
        assert wire.line().startswith(b"+OK")
        clock.time += 599
        assert wire.pop3("CAPA").startswith(b"+OK")
        wire.multi_line()
        wire.send(b"U")
        assert_took(house, 1)
        clock.time += 599
        wire.send(b"S")
        assert_took(house, 2)
        clock.time += 1
        wire.send(b"E")
        assert wire.rest() == b""


def assert_took(house: RunningHouse, octets: int) -> None:
    """The house has read so much of an unfinished line."""

    async def look(_storage: Storage) -> int:
        return max(len(session.pop3._lines) for session in gc.get_objects() if isinstance(session, Pop3Session))

    for _ in range(10_000):
        if house.ask(look) == octets:
            return
    raise AssertionError("the house did not read")


def test_closing_the_house_deletes_nothing(tmp_path: Path) -> None:
    with RunningHouse(tmp_path) as house:
        queue_ids = filled(house, 1)
        wire = reader(house)
        assert wire.pop3("DELE 1").startswith(b"+OK")
    assert wire.rest() == b"-ERR [SYS/TEMP] This house is closing; come back later\r\n"
    with RunningHouse(tmp_path) as house:
        assert uidls(house) == queue_ids


def test_too_many_sessions(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, retrieval={"sessions": 1}) as house, reader(house):
        with Wire(house.ports["pop3"]) as second:
            assert second.rest() == b"-ERR [SYS/TEMP] Too many sessions are open; come back later\r\n"


@pytest.mark.conformance("C249", "C251")
def test_numbers_stand_while_mail_arrives(house: RunningHouse) -> None:
    before = filled(house, 3)
    with reader(house) as wire:
        stat = wire.pop3("STAT")
        after = filled(house, 2)
        assert wire.pop3("STAT") == stat
        assert wire.uidls() == before
        assert wire.pop3("RETR 4").startswith(b"-ERR")
        assert wire.pop3("DELE 2").startswith(b"+OK")
        assert wire.retrieve(3).endswith(letter(3))
        assert wire.pop3("QUIT").startswith(b"+OK")
    assert uidls(house) == [before[0], before[2], *after]
    assert uidls(house) == [before[0], before[2], *after]


@pytest.mark.conformance("C259")
def test_two_thousand_pipelined_commands_and_a_slow_reader(house: RunningHouse) -> None:
    count = 1000
    queue_ids = filled(house, count, 8_000)
    with reader(house) as wire:
        commands = b"".join(b"RETR %d\r\nDELE %d\r\n" % (number, number) for number in range(1, count + 1))
        sender = threading.Thread(target=wire.send, args=(commands + b"QUIT\r\n",), daemon=True)
        sender.start()
        # Whoever reads nothing until all is sent would wait for ever on a house that does so too.
        sender.join(10)
        for number in range(1, count + 1):
            assert wire.line().startswith(b"+OK")
            octets = wire.multi_line()
            assert octets.endswith(letter(number, 8_000))
            assert queue_ids[number - 1].encode() in octets
            assert wire.line().startswith(b"+OK")
        assert wire.line().startswith(b"+OK")
        assert wire.rest() == b""
    assert uidls(house) == []


def test_a_reader_that_vanishes_frees_the_maildrop_at_once(faulty: tuple[RunningHouse, Faults]) -> None:
    house, faults = faulty
    filled(house, 1, 200_000)
    reads = 0

    async def count() -> None:
        nonlocal reads
        reads += 1

    faults["maildrops.read"] = count
    with reader(house) as wire:
        wire.send(b"RETR 1\r\n" * 2000)
        assert wire.line().startswith(b"+OK")
        wire.drop()
    wait_until_left(house)
    assert reads < 1000, "messages were read for nobody"


def test_a_message_that_is_gone_meanwhile(house: RunningHouse) -> None:
    queue_ids = filled(house, 3)
    with reader(house) as wire:
        maildrops = house.house.storage.maildrops
        account = house.ask(lambda storage: storage.directory.account(BOB))
        assert account is not None
        lock = MaildropLock(account.account, maildrops._real._locks._tokens[account.account])  # type: ignore[attr-defined]
        listing = house.ask(lambda storage: storage.maildrops.list(account.account))
        house.ask(lambda storage: storage.maildrops.expunge(lock, [listing.uids[1]], []))
        assert wire.pop3("RETR 2").startswith(b"-ERR")
        assert wire.pop3("TOP 2 0").startswith(b"-ERR")
        assert wire.retrieve(3).endswith(letter(3))
        assert wire.pop3("DELE 2").startswith(b"+OK")
        assert wire.pop3("DELE 1").startswith(b"+OK")
        assert wire.pop3("QUIT").startswith(b"+OK")
    assert uidls(house) == queue_ids[2:]


@pytest.mark.conformance("C247")
@pytest.mark.parametrize("fault", [StorageBusy(), StorageError(), ZeroDivisionError()], ids=lambda e: type(e).__name__)
def test_a_deletion_that_fails_is_told(faulty: tuple[RunningHouse, Faults], fault: Exception) -> None:
    house, faults = faulty
    queue_ids = filled(house, 2)
    with reader(house) as wire:
        assert wire.pop3("DELE 1").startswith(b"+OK")
        faults["maildrops.expunge"] = fault
        assert wire.pop3("QUIT").startswith(b"-ERR [SYS/TEMP] ")
        assert wire.rest() == b""
    faults.clear()
    assert uidls(house) == queue_ids


def test_a_lost_lock_deletes_nothing(house: RunningHouse) -> None:
    queue_ids = filled(house, 1)
    with reader(house) as wire:
        assert wire.pop3("DELE 1").startswith(b"+OK")
        house.house.storage.maildrops._real._locks._tokens.clear()  # type: ignore[attr-defined]
        assert wire.pop3("QUIT").startswith(b"-ERR [SYS/TEMP] ")
    assert uidls(house) == queue_ids


@pytest.mark.parametrize("operation", ["maildrops.unlock", "journey.append"])
def test_what_fails_after_the_deletion_does_not_deny_it(faulty: tuple[RunningHouse, Faults], operation: str) -> None:
    house, faults = faulty
    filled(house, 1)
    with reader(house) as wire:
        faults[operation] = StorageBusy()
        wire.retrieve(1)
        assert wire.pop3("DELE 1").startswith(b"+OK")
        assert wire.pop3("QUIT").startswith(b"+OK")


@pytest.mark.parametrize(
    ("commands", "written"),
    [
        ((), {}),
        (("RETR 1",), {"append": 1}),
        (("RETR 1", "RETR 2", "DELE 1"), {"expunge": 1}),
        (("DELE 1",), {"expunge": 1}),
    ],
)
def test_what_a_session_did_is_written_in_one_commit(
    faulty: tuple[RunningHouse, Faults], commands: tuple[str, ...], written: dict[str, int]
) -> None:
    house, faults = faulty
    (queue_id, _) = filled(house, 2)
    calls = dict[str, int]()

    async def count(operation: str) -> None:
        calls[operation] = calls.get(operation, 0) + 1

    faults["maildrops.expunge"], faults["journey.append"] = partial(count, "expunge"), partial(count, "append")
    with reader(house) as wire:
        for command in commands:
            wire.retrieve(int(command[-1])) if command.startswith("RETR") else wire.pop3(command)
        assert wire.pop3("QUIT").startswith(b"+OK")
        assert wire.rest() == b""
    assert calls == written
    told = house.ask(lambda storage: storage.journey.read(QueueId(queue_id)))
    kinds = [type(event).__name__ for event in told if isinstance(event, Retrieved | Deleted)]
    assert kinds == [kind for kind, verb in (("Retrieved", "RETR 1"), ("Deleted", "DELE 1")) if verb in commands]


@pytest.mark.conformance("C248")
def test_no_answer_to_quit_before_the_deletion(faulty: tuple[RunningHouse, Faults]) -> None:
    house, faults = faulty
    filled(house, 1)
    waiting, goes_on = threading.Event(), threading.Event()

    async def wait() -> None:
        waiting.set()
        await asyncio.to_thread(goes_on.wait, 30)

    faults["maildrops.expunge"] = wait
    with reader(house) as wire:
        assert wire.pop3("DELE 1").startswith(b"+OK")
        wire.send(b"QUIT\r\n")
        assert waiting.wait(30)
        wire.socket.setblocking(False)
        try:
            with pytest.raises(BlockingIOError):
                wire.socket.recv(1)
        finally:
            goes_on.set()
        wire.socket.setblocking(True)
        assert wire.rest() == b"+OK Goodbye\r\n"


@pytest.mark.conformance("C263")
@pytest.mark.parametrize("operation", ["directory.account", "maildrops.lock", "maildrops.list"])
def test_a_login_that_cannot_be_served_now(faulty: tuple[RunningHouse, Faults], operation: str) -> None:
    house, faults = faulty
    queue_ids = filled(house, 1)
    faults[operation] = StorageBusy()
    with Wire(house.ports["pop3"]) as wire:
        assert wire.login(BOB).startswith(b"-ERR [SYS/TEMP] ")
        faults.clear()
        assert wire.pop3(f"USER {BOB}").startswith(b"+OK")
        assert wire.pop3("PASS correct horse").startswith(b"+OK")
        assert wire.uidls() == queue_ids


def test_half_a_message_never_looks_whole(faulty: tuple[RunningHouse, Faults]) -> None:
    house, faults = faulty
    filled(house, 1, 200_000)
    faults["maildrops.read on"] = StorageBusy()
    with reader(house) as wire:
        wire.send(b"RETR 1\r\nQUIT\r\n")
        rest = wire.rest()
        assert b"\r\n.\r\n" not in rest
        assert b"Goodbye" not in rest
    faults.clear()
    assert len(uidls(house)) == 1


@pytest.mark.conformance("C241")
def test_three_wrong_passwords_end_the_session(house: RunningHouse) -> None:
    with Wire(house.ports["pop3"]) as wire:
        known = wire.login(BOB, "wrong")
        assert known.startswith(b"-ERR [AUTH] ")
        assert wire.pop3("STAT").startswith(b"-ERR")
        assert wire.pop3("USER nobody@here.test").startswith(b"+OK")
        assert wire.pop3("PASS wrong") == known, "an answer tells who is known here"
        wire.send(f"USER {BOB}\r\nPASS wrong\r\n".encode())
        assert wire.rest().split(b"\r\n")[1].startswith(b"-ERR [AUTH] ")
