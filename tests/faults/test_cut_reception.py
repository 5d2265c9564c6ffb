"""SMTP sessions into a real house, broken after every octet, both ways: what was acknowledged is stored once, for
everybody it is for; what was not is stored for all of them or for nobody, and whole; what did not come whole is not.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from posthouse.config import load
from posthouse.doors import SELF_SIGNED
from posthouse.engines import open_storage
from posthouse.net.tls import make_self_signed
from posthouse.world import World
from tests.faults.cuts import every_break
from tests.faults.proxy import Break, How, Network, Way
from tests.faults.talk import Hangup, Talk
from tests.house.served import ServedHouse
from tests.house.wire import Wire, stuffed

pytestmark = pytest.mark.long

BOB, CAROL = "bob@here.test", "carol@here.test"
AT_ONCE = 300
PATIENCE_S = 30.0
LIMITS = """
[reception]
trusted_networks = ["127.0.0.0/8"]
sessions_per_address = 1000
command_timeout = "2s"
content_timeout = "2s"
[forwarding]
greeting_timeout = "1h"
"""
_STORED = re.compile(rb"250 2\.0\.0 Stored as ([0-9A-Z]{26})\r\n")
_SERIAL = re.compile(rb"\r\nSubject: ([a-z-]+-\d+)\r\n")


def content_of(serial: str) -> bytes:
    """Never the same twice; a dot at the beginning of a line, and more after it."""
    return b"Subject: %s\r\n\r\n.one\r\ntwo %s\r\n" % (serial.encode(), serial.encode() * 3)


@dataclass(slots=True)
class Client:
    """One dialogue through a broken network. `queue_id`: it was acknowledged."""

    serial: str
    talk: Talk
    queue_id: str = ""

    @property
    def envelope(self) -> list[bytes]:
        far = f"eva.{self.serial}@far.test"
        return [b"MAIL FROM:<ada@far.test>", *(b"RCPT TO:<%s>" % each.encode() for each in (BOB, CAROL, far))]

    async def reply(self) -> bytes:
        """The last line of a reply."""
        while True:
            line = await self.talk.line()
            if line[3:4] != b"-":
                return line

    async def expect(self, *codes: bytes) -> None:
        for code in codes:
            line = await self.reply()
            assert line.startswith((code, b"421 ")), line
            if not line.startswith(code):
                raise Hangup

    async def say(self, line: bytes, code: bytes = b"250 ") -> None:
        self.talk.write(line + b"\r\n")
        await self.expect(code)

    async def final(self) -> None:
        """The reply that acknowledges."""
        line = await self.reply()
        if (found := _STORED.fullmatch(line)) is not None:
            self.queue_id = found[1].decode()
        else:
            assert line.startswith((b"421 ", b"451 ")), line
            raise Hangup


async def one_by_one(client: Client) -> None:
    await client.expect(b"220 ")
    await client.say(b"EHLO client.test")
    for line in client.envelope:
        await client.say(line)
    await client.say(b"DATA", b"354 ")
    client.talk.write(stuffed(content_of(client.serial)))
    await client.final()
    await client.say(b"QUIT", b"221 ")


async def pipelined(client: Client) -> None:
    await client.expect(b"220 ")
    await client.say(b"EHLO client.test")
    client.talk.write(b"\r\n".join([*client.envelope, b"DATA", b""]))
    await client.expect(*[b"250 "] * 4, b"354 ")
    client.talk.write(stuffed(content_of(client.serial)) + b"QUIT\r\n")
    await client.final()
    await client.expect(b"221 ")


def chunks_of(serial: str) -> list[bytes]:
    content = content_of(serial)
    parts = [content[:7], content[7:-1], content[-1:]]
    return [b"BDAT %d%s\r\n" % (len(part), b" LAST" * (part is parts[-1])) + part for part in parts]


async def chunks(client: Client) -> None:
    await client.expect(b"220 ")
    await client.say(b"EHLO client.test")
    for line in client.envelope:
        await client.say(line)
    *before, last = chunks_of(client.serial)
    for chunk in before:
        client.talk.write(chunk)
        await client.expect(b"250 ")
    client.talk.write(last)
    await client.final()
    await client.say(b"QUIT", b"221 ")


async def chunks_pipelined(client: Client) -> None:
    await client.expect(b"220 ")
    await client.say(b"EHLO client.test")
    client.talk.write(b"\r\n".join([*client.envelope, b"".join(chunks_of(client.serial)) + b"QUIT", b""]))
    await client.expect(*[b"250 "] * 6)
    await client.final()
    await client.expect(b"221 ")


async def over_tls(client: Client) -> None:
    await client.expect(b"220 ")
    await client.say(b"EHLO client.test")
    await client.say(b"STARTTLS", b"220 ")
    await client.talk.start_tls()
    await client.say(b"EHLO client.test")
    client.talk.write(b"\r\n".join([*client.envelope, b"DATA", b""]))
    await client.expect(*[b"250 "] * 4, b"354 ")
    client.talk.write(stuffed(content_of(client.serial)))
    await client.final()
    await client.say(b"QUIT", b"221 ")


Dialogue = Callable[[Client], Coroutine[None, None, None]]
DIALOGUES: dict[str, Dialogue] = {
    "one-by-one": one_by_one,
    "pipelined": pipelined,
    "chunks": chunks,
    "chunks-pipelined": chunks_pipelined,
    "tls": over_tls,
}


STRIDES = {"tls": 11}
"""Most octets of a handshake are random, so they are taken as samples unless every kind is asked for."""


STRIDES = {"tls": 11}
"""Most octets of a handshake are random, so they are taken as samples unless every kind is asked for."""


@dataclass(frozen=True, slots=True)
class Done:
    """A dialogue that was had, through to its end or not."""

    name: str
    broken: Break | None
    queue_id: str
    lengths: dict[Way, int]

    @property
    def is_whole(self) -> bool:
        return self.broken is None or self.broken.how is How.DRIBBLE


@dataclass(slots=True)
class Street:
    """A house, and the network before it."""

    house: ServedHouse
    network: Network
    done: dict[str, Done] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    async def have(self, name: str, broken: Break | None) -> Done:
        serial = f"{name}-{next(self._numbers):05d}"
        link = await self.network.link(self.house.ports["smtp"], broken)
        client = Client(serial, await Talk.over(link))
        with suppress(Hangup):
            await DIALOGUES[name](client)
        client.talk.leave()
        self.done[serial] = Done(name, broken, client.queue_id, dict(link.passed))
        return self.done[serial]

    async def have_all(self, breaks: list[tuple[str, Break]]) -> None:
        waiting = iter(breaks)

        async def some() -> None:
            for name, broken in waiting:
                await self.have(name, broken)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(some())


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    make_self_signed("mx.here.test", tmp_path / SELF_SIGNED[0], tmp_path / SELF_SIGNED[1], time.time())
    with socket.create_server(("127.0.0.1", 0), backlog=10) as deaf:
        # A next hop that never greets: the rows of the queue stay as they are.
        routes = f'routes = {{ "*" = "127.0.0.1:{deaf.getsockname()[1]}" }}\n'
        with ServedHouse(tmp_path, (BOB, CAROL), LIMITS + routes) as house, Network() as network:
            house.start()
            yield Street(house, network)


@dataclass(slots=True)
class Stored:
    """What a house has of each serial: the contents at its people, and the rows of its queue."""

    contents: dict[str, dict[str, list[bytes]]]
    rows: Counter[str]

    def copies(self, serial: str) -> tuple[int, ...]:
        here = (len(self.contents[person].get(serial, [])) for person in (BOB, CAROL))
        return (*here, self.rows[serial])


def stored_in(house: ServedHouse) -> Stored:
    """What is there after a kill; then the house is killed again."""
    house.kill()
    house.start()
    contents: dict[str, dict[str, list[bytes]]] = {}
    for person in (BOB, CAROL):
        mine = contents.setdefault(person, {})
        with Wire(house.ports["pop3"]) as wire:
            assert wire.login(person).startswith(b"+OK")
            for number in range(1, len(wire.uidls()) + 1):
                octets = wire.retrieve(number)
                found = _SERIAL.search(octets)
                assert found is not None, octets
                mine.setdefault(found[1].decode(), []).append(octets)
    house.kill()
    return Stored(contents, asyncio.run(_queue(house)))


async def _queue(house: ServedHouse) -> Counter[str]:
    storage = await open_storage(load(house.folder / "posthouse.toml"), World())
    try:
        rows = await storage.spool.list(100_000)
        return Counter(str(row.forward_path).removeprefix("eva.").partition("@")[0] for row in rows)
    finally:
        await storage.close()


def until_all_have_ended(house: ServedHouse, sockets: int) -> None:
    ends = time.monotonic() + PATIENCE_S
    while (left := house.sockets() - sockets) > 0:
        assert time.monotonic() < ends, f"{left} sessions did not end"
        time.sleep(0.05)


@pytest.mark.conformance("C19", "C58", "C247")
def test_every_octet_may_be_the_last(street: Street, seed: int) -> None:
    print(f"seed {seed}")
    # With one more, to the next hop that never greets.
    sockets = street.house.sockets() + 1
    breaks: list[tuple[str, Break]] = []
    for name in DIALOGUES:
        whole = street.network.run(street.have(name, None))
        breaks += [(name, each) for each in every_break(whole.lengths, seed, stride=STRIDES.get(name, 1))]
    # Those that dribble come last, for they are slow enough without the others.
    breaks.sort(key=lambda each: each[1].how is How.DRIBBLE)
    slow = sum(each.how is How.DRIBBLE for _, each in breaks)
    street.network.run(street.have_all(breaks[:-slow]))
    street.network.run(street.have_all(breaks[-slow:]))
    # A handshake that stops has half a minute.
    until_all_have_ended(street.house, sockets + sum(_stops_over_tls(*each) for each in breaks))
    found = stored_in(street.house)
    silent: Counter[str] = Counter()
    for serial, done in street.done.items():
        there = _check(found, serial, done)
        silent[done.name] += there and not done.queue_id
    acknowledged = Counter(done.name for done in street.done.values() if done.queue_id)
    print(f"{len(breaks)} breaks; acknowledged: {acknowledged}; stored and not answered: {silent}")
    for name in DIALOGUES:
        assert silent[name] > 22 // STRIDES.get(name, 1), "the reply was never lost"
        assert acknowledged[name] > 22 // STRIDES.get(name, 1), "no break came after the reply"
    assert all(done.queue_id for done in street.done.values() if done.is_whole)


def _stops_over_tls(name: str, broken: Break) -> bool:
    return name == "tls" and broken.how is How.STOP


def _check(found: Stored, serial: str, done: Done) -> bool:
    """Whether it is there: once, whole, for all; or it is not."""
    bob, carol, rows = copies = found.copies(serial)
    assert bob == carol == rows, f"{serial}, {done}: not all or none: {copies}"
    assert bob <= 1, f"{serial}, {done}: {copies}"
    assert bob == 1 or not done.queue_id, f"{serial}, {done}: acknowledged, and gone"
    for person in (BOB, CAROL):
        for octets in found.contents[person].get(serial, []):
            assert octets.endswith(b"\r\n" + content_of(serial)), f"{serial}, {done}: {octets!r}"
            assert done.queue_id.encode() in octets, f"{serial}, {done}: under another id"
    if not done.is_whole and done.name != "tls" and done.lengths[Way.UP] < _until_the_end(done.name, serial):
        assert bob == 0, f"{serial}, {done}: stored before its end came"
    return bob == 1


def _until_the_end(name: str, serial: str) -> int:
    """Octets that a client sends up to the end of its content."""
    envelope = [b"EHLO client.test", *Client(serial, None).envelope]  # type: ignore[arg-type]
    before = sum(len(line) + 2 for line in envelope)
    if name.startswith("chunks"):
        return before + len(b"".join(chunks_of(serial)))
    return before + len(b"DATA\r\n") + len(stuffed(content_of(serial)))
