"""POP3 sessions with a real house, broken after every octet, both ways: what was marked is deleted, all of it, where
QUIT was answered; nothing is, where QUIT did not come; and the next session finds the maildrop free.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from posthouse.doors import SELF_SIGNED
from posthouse.net.tls import make_self_signed
from tests.faults.cuts import every_break
from tests.faults.proxy import Break, Network, Way
from tests.faults.talk import Hangup, Talk
from tests.house.served import ServedHouse
from tests.running_house import PASSWORD

pytestmark = pytest.mark.long

AT_ONCE = 120
PEOPLE = tuple(f"r{number:03d}@here.test" for number in range(AT_ONCE))
"""One maildrop for each dialogue under way."""
SUBJECTS = (b"first", b"second", b"third")
PATIENCE_S = 30.0
LIMITS = """
[reception]
sessions_per_address = 1000
[retrieval]
sessions_per_address = 1000
idle_timeout = "1s"
write_timeout = "1s"
"""


@dataclass(slots=True)
class Reader:
    """One session. `quit_at`: the octets that were sent when QUIT was; `is_acknowledged`: QUIT got its `+OK`."""

    person: str
    talk: Talk
    sent: int = 0
    quit_at: int | None = None
    is_acknowledged: bool = False

    def write(self, *lines: bytes) -> None:
        octets = b"".join(line + b"\r\n" for line in lines)
        self.talk.write(octets)
        self.sent += len(octets)
        if lines[-1] == b"QUIT":
            self.quit_at = self.sent

    async def ok(self) -> bytes:
        line = await self.talk.line()
        if not line.startswith(b"+OK"):
            assert line.startswith((b"-ERR [SYS/TEMP]", b"-ERR [IN-USE]")), line
            raise Hangup
        return line

    async def lines(self) -> list[bytes]:
        """A multi-line response."""
        await self.ok()
        found = []
        while (line := await self.talk.line()) != b".\r\n":
            found.append(line)
        return found

    async def message(self, subject: bytes) -> None:
        lines = await self.lines()
        assert b"".join(lines).endswith(b"\r\n" + content_of(subject)), lines

    async def end(self) -> None:
        await self.ok()
        self.is_acknowledged = True

    @property
    def login(self) -> tuple[bytes, bytes]:
        return b"USER " + self.person.encode(), b"PASS " + PASSWORD.encode()


def content_of(subject: bytes) -> bytes:
    return b"Subject: %s\r\n\r\nhello\r\n" % subject


async def one_by_one(reader: Reader) -> None:
    await reader.ok()
    for line in reader.login:
        reader.write(line)
        await reader.ok()
    reader.write(b"STAT")
    assert (await reader.ok()).startswith(b"+OK 3 ")
    reader.write(b"UIDL")
    await reader.lines()
    for number in (1, 3):
        reader.write(b"RETR %d" % number)
        await reader.message(SUBJECTS[number - 1])
        reader.write(b"DELE %d" % number)
        await reader.ok()
    reader.write(b"QUIT")
    await reader.end()


async def pipelined(reader: Reader) -> None:
    await reader.ok()
    reader.write(*reader.login, b"UIDL", b"RETR 1", b"DELE 1", b"DELE 3", b"QUIT")
    await reader.ok()
    await reader.ok()
    await reader.lines()
    await reader.message(SUBJECTS[0])
    await reader.ok()
    await reader.ok()
    await reader.end()


async def over_tls(reader: Reader) -> None:
    await reader.ok()
    reader.write(b"STLS")
    await reader.ok()
    await reader.talk.start_tls()
    reader.write(*reader.login, b"DELE 1", b"DELE 3", b"QUIT")
    for _ in range(4):
        await reader.ok()
    await reader.end()


Dialogue = Callable[[Reader], Coroutine[None, None, None]]
DIALOGUES: dict[str, Dialogue] = {"one by one": one_by_one, "pipelined": pipelined, "TLS": over_tls}
STRIDES = {"TLS": 11}
"""Most octets of a handshake are random, so they are taken as samples unless every kind is asked for."""


@dataclass(slots=True)
class Counts:
    """What became of dialogues that broke."""

    acknowledged: int = 0
    silent: int = 0
    """Deleted, and the reader does not know."""
    kept: int = 0


@dataclass(slots=True)
class Street:
    """A house, and the network before it."""

    house: ServedHouse
    network: Network
    counts: dict[str, Counts] = field(default_factory=lambda: {name: Counts() for name in DIALOGUES})

    async def deliver(self, person: str, subjects: tuple[bytes, ...]) -> None:
        link = await self.network.link(self.house.ports["smtp"], None)
        talk = await Talk.over(link)
        talk.write(b"EHLO client.test\r\n")
        for subject in subjects:
            talk.write(b"MAIL FROM:<>\r\nRCPT TO:<%s>\r\n" % person.encode())
            content = content_of(subject)
            talk.write(b"BDAT %d LAST\r\n" % len(content) + content)
        for _ in subjects:
            while not (line := await talk.line()).startswith(b"250 2.0.0 Stored"):
                assert line.startswith((b"220 ", b"250")), line
        talk.leave()

    async def held_by(self, person: str) -> list[str]:
        """UIDLs, when the session before has left."""
        ends = time.monotonic() + PATIENCE_S
        while True:
            link = await self.network.link(self.house.ports["pop3"], None)
            reader = Reader(person, await Talk.over(link))
            try:
                await reader.ok()
                reader.write(*reader.login, b"UIDL", b"QUIT")
                await reader.ok()
                await reader.ok()
                uidls = [line.split()[1].decode() for line in await reader.lines()]
                await reader.ok()
                return uidls
            except Hangup:
                assert time.monotonic() < ends, f"{person}: the maildrop is still in use"
                await asyncio.sleep(0.05)
            finally:
                reader.talk.leave()

    async def have(
        self, name: str, person: str, before: list[str], broken: Break | None
    ) -> tuple[dict[Way, int], bool]:
        """One dialogue; the octets that passed, and whether all is still there."""
        link = await self.network.link(self.house.ports["pop3"], broken)
        reader = Reader(person, await Talk.over(link))
        with suppress(Hangup):
            await DIALOGUES[name](reader)
        reader.talk.leave()
        after = await self.held_by(person)
        what = f"{name}, {broken}: {before} became {after}"
        deleted = after == before[1:2]
        assert deleted or after == before, what
        assert deleted or not reader.is_acknowledged, what
        came = name == "TLS" or reader.quit_at is None or link.passed[Way.UP] >= reader.quit_at
        assert not deleted or (reader.quit_at is not None and came), f"{what} without QUIT"
        counts = self.counts[name]
        counts.acknowledged += reader.is_acknowledged
        counts.silent += deleted and not reader.is_acknowledged
        counts.kept += not deleted
        return link.passed, not deleted

    async def work(self, person: str, breaks: Iterator[tuple[str, Break]]) -> None:
        """Break one after another, over one maildrop of three messages."""
        await self.deliver(person, SUBJECTS)
        before = await self.held_by(person)
        for name, broken in breaks:
            _, is_there = await self.have(name, person, before, broken)
            if not is_there:
                await self.emptied(person, 1)
                await self.deliver(person, SUBJECTS)
                before = await self.held_by(person)

    async def emptied(self, person: str, count: int) -> None:
        link = await self.network.link(self.house.ports["pop3"], None)
        reader = Reader(person, await Talk.over(link))
        reader.write(*reader.login, *(b"DELE %d" % number for number in range(1, count + 1)), b"QUIT")
        for _ in range(count + 4):
            await reader.ok()
        reader.talk.leave()

    async def have_all(self, breaks: list[tuple[str, Break]]) -> None:
        waiting = iter(breaks)
        async with asyncio.TaskGroup() as group:
            for person in PEOPLE:
                group.create_task(self.work(person, waiting))


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    make_self_signed("mx.here.test", tmp_path / SELF_SIGNED[0], tmp_path / SELF_SIGNED[1], time.time())
    with ServedHouse(tmp_path, PEOPLE, LIMITS) as house, Network() as network:
        house.start()
        yield Street(house, network)


@pytest.mark.conformance("C19", "C251")
def test_every_octet_may_be_the_last(street: Street, seed: int) -> None:
    print(f"seed {seed}")
    breaks: list[tuple[str, Break]] = []
    for name in DIALOGUES:
        lengths = street.network.run(_whole(street, name))
        breaks += [(name, each) for each in every_break(lengths, seed, stride=STRIDES.get(name, 1))]
    street.network.run(street.have_all(breaks))
    print(f"{len(breaks)} breaks: {street.counts}")
    for name, counts in street.counts.items():
        assert counts.silent > 8 // STRIDES.get(name, 1), "the reply was never lost"
        assert counts.acknowledged >= 3, "a whole dialogue, and two that dribble"
        assert counts.kept > 20


async def _whole(street: Street, name: str) -> dict[Way, int]:
    person = PEOPLE[0]
    await street.deliver(person, SUBJECTS)
    lengths, is_there = await street.have(name, person, await street.held_by(person), None)
    assert not is_there
    await street.emptied(person, 1)
    return lengths
