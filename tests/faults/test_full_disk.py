"""A disk that is full, or has no inode left: what is refused is not there, what was taken is, and it serves on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.small_disk import SmallDisk, why_not
from tests.faults.strace import Attached, error
from tests.house.served import ServedHouse
from tests.house.wire import Wire, stored
from tests.house.zygote import Zygote
from tests.peers.programs import Program

pytestmark = [pytest.mark.long, pytest.mark.peers]

ADA = "ada@here.test"
SMALL = b"Subject: small\r\n\r\nhello\r\n"
LARGE = b"Subject: large\r\n\r\n" + (b"y" * 70 + b"\r\n") * 4_000
FULL = b"452 4.3.1 "
MOST = 200


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ServedHouse]:
    folder = tmp_path / "house"
    folder.mkdir()
    with ServedHouse(folder, (ADA,), doors=("smtp", "pop3")) as served:
        yield served


@pytest.fixture
def small_disk(house: ServedHouse) -> Iterator[SmallDisk]:
    if (reason := why_not()) is not None:
        pytest.skip(f"nothing can be mounted here: {reason}")
    with SmallDisk(house.folder, "size=64m,mode=700") as disk:
        house.under = disk.under
        yield disk


def offer(house: ServedHouse, content: bytes) -> bytes:
    """The reply to the content, or to the first command that is refused."""
    with Wire(house.ports["smtp"]) as wire:
        wire.greet()
        for line in ("MAIL FROM:<far@far.test>", f"RCPT TO:<{ADA}>", "DATA"):
            reply = wire.say(line)
            if not reply.startswith((b"2", b"3")):
                return reply
        wire.send(content + b".\r\n")
        return wire.reply()


def entries(house: ServedHouse) -> dict[str, bytes]:
    """All of the maildrop, by UIDL."""
    with Wire(house.ports["pop3"]) as wire:
        assert wire.login(ADA).startswith(b"+OK")
        found = {uidl: wire.retrieve(number) for number, uidl in enumerate(wire.uidls(), 1)}
        assert wire.pop3("QUIT").startswith(b"+OK")
        return found


def delete(house: ServedHouse, count: int) -> bytes:
    with Wire(house.ports["pop3"]) as wire:
        assert wire.login(ADA).startswith(b"+OK")
        for number in range(1, count + 1):
            assert wire.pop3(f"DELE {number}").startswith(b"+OK")
        return wire.pop3("QUIT")


def compare(house: ServedHouse, taken: dict[str, bytes]) -> None:
    there = entries(house)
    assert there.keys() == taken.keys()
    for uidl, content in taken.items():
        assert there[uidl].endswith(content), uidl


@pytest.mark.conformance("C290", "C314")
def test_a_full_disk_refuses_and_keeps_what_it_took(house: ServedHouse, small_disk: SmallDisk) -> None:
    house.start()
    used = int(small_disk.run("du", "-sk", str(house.folder)).split()[0])
    small_disk.remount(f"size={used + 2_000}k")
    taken: dict[str, bytes] = {}
    refused = 0
    for number in range(MOST):
        content = SMALL if number % 2 else LARGE
        reply = offer(house, content)
        if reply.startswith(b"250 "):
            taken[stored(reply)] = content
        else:
            assert reply.startswith(FULL), reply
            refused += 1
        if refused >= 6:
            break
    assert refused >= 6, "the disk did not fill up"
    assert len(taken) > 3
    compare(house, taken)
    # With room it goes on, without a start.
    small_disk.remount("size=64m")
    taken[stored(offer(house, LARGE))] = LARGE
    compare(house, taken)
    gone = list(taken)[:2]
    assert delete(house, 2).startswith(b"+OK")
    for uidl in gone:
        del taken[uidl]
    house.kill()
    house.start()
    compare(house, taken)
    house.stop()


@pytest.mark.conformance("C290")
def test_without_an_inode_left_small_letters_are_taken(house: ServedHouse, small_disk: SmallDisk) -> None:
    house.start()
    taken = {stored(offer(house, LARGE)): LARGE}
    small_disk.remount(f"nr_inodes={small_disk.inodes_used()}")
    assert offer(house, LARGE).startswith(FULL)
    taken[stored(offer(house, SMALL))] = SMALL
    assert offer(house, LARGE).startswith(FULL)
    house.kill()
    small_disk.remount("nr_inodes=10k")
    house.start()
    compare(house, taken)
    taken[stored(offer(house, LARGE))] = LARGE
    compare(house, taken)
    house.stop()


@pytest.mark.conformance("C290", "C314")
def test_a_file_system_that_turns_read_only_loses_nothing(house: ServedHouse, strace: Program, zygote: Zygote) -> None:
    """As the kernel does it after an error: every call that would change something answers EROFS from then on.

    A commit that cannot be taken out of the log again ends the house, without a reply.
    """
    house.zygote = zygote
    house.start()
    taken = {stored(offer(house, content)): content for content in (SMALL, LARGE)}
    calls = "pwrite64,ftruncate,fsync,fdatasync,mkdir,unlink"
    inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:{error('EROFS')}"]
    offences: tuple[Callable[[], bytes], ...] = (
        lambda: offer(house, SMALL),
        lambda: offer(house, LARGE),
        lambda: delete(house, 1),
    )
    for offend in offences:
        with Attached(strace.path, house.pid, house.folder / "strace.log", inject):
            said = b""
            # It may end in the middle of a session.
            with suppress(OSError, AssertionError):
                said = offend()
        assert not said.startswith((b"250 ", b"+OK", b"5")), said
        assert "(INJECTED)" in (house.folder / "strace.log").read_text()
        house.kill()
        house.start()
        compare(house, taken)
    taken[stored(offer(house, SMALL))] = SMALL
    compare(house, taken)
    house.stop()
