"""A backup taken under load restores into a house with the same UIDLs, queue and octets, and lacks nothing
that was acknowledged before it began.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from posthouse.engines import open_storage, restore_storage
from posthouse.storage.interfaces import Storage
from posthouse.storage.upkeep import Order, tell_nobody
from posthouse.world import World
from tests.house.wire import Wire, stored
from tests.running_house import RunningHouse, house_config

PEOPLE = tuple(f"r{number}@here.test" for number in range(3))
FAR = "away@far.test"
ORDER = Order(hostname="mx.here.test")

Seen = dict[str, dict[str, str]]
"""Person → UIDL → SHA-256 of the entry's octets."""


@dataclass
class Said:
    """What peers were told, each with when; one lock guards it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    accepted: dict[tuple[str, str], float] = field(default_factory=dict)
    """(person or FAR, queue id) → when the 250 was read."""
    deleting: dict[tuple[str, str], float] = field(default_factory=dict)
    """(person, UIDL) → when QUIT was sent."""


def _send(port: int, said: Said, chance: random.Random, stop: threading.Event) -> None:
    with Wire(port) as wire:
        wire.greet()
        while not stop.is_set():
            person = chance.choice(PEOPLE)
            size = chance.choice((200, 3_000, 200_000))
            content = b"Subject: x\r\n\r\n" + chance.randbytes(size // 2).hex().encode() + b"\r\n"
            content = b"".join(content[at : at + 900] + b"\r\n" for at in range(0, len(content), 900))
            wire.envelope(person, FAR)
            queue_id = stored(wire.content(content.replace(b"\r\n\r\n\r\n", b"\r\n\r\n")))
            with said.lock:
                said.accepted[person, queue_id] = said.accepted[FAR, queue_id] = time.monotonic()


def _read(port: int, said: Said, chance: random.Random, stop: threading.Event, person: str) -> None:
    while not stop.is_set():
        with Wire(port) as wire:
            assert wire.login(person).startswith(b"+OK")
            uidls = wire.uidls()
            for number in chance.sample(range(len(uidls)), min(len(uidls), 2)):
                wire.retrieve(number + 1)
                assert wire.pop3(f"DELE {number + 1}").startswith(b"+OK")
                with said.lock:
                    said.deleting[person, uidls[number]] = time.monotonic()
            assert wire.pop3("QUIT").startswith(b"+OK")


def _load(house: RunningHouse, said: Said, during: Callable[[], None]) -> None:
    """Senders and readers at work while `during` runs."""
    stop, problems = threading.Event(), []

    def work(job: Callable[..., None], *arguments: object) -> None:
        try:
            job(*arguments)
        except BaseException as exc:
            problems.append(exc)

    seeds = iter(range(100))
    jobs: list[tuple[Any, ...]] = []
    jobs += [(_send, house.ports["smtp"], said, random.Random(next(seeds)), stop) for _ in range(3)]
    jobs += [(_read, house.ports["pop3"], said, random.Random(next(seeds)), stop, person) for person in PEOPLE[:2]]
    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        during()
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert problems == []


async def _seen(storage: Storage) -> tuple[Seen, set[str]]:
    """All maildrops, octet for octet, and the queue ids that wait."""
    shown: Seen = {}
    for account in await storage.administration.accounts():
        listing = await storage.maildrops.list(account.account)
        for uid, uidl, size in zip(listing.uids, listing.uidls, listing.sizes_octets, strict=True):
            octets = b"".join([chunk async for chunk in storage.maildrops.read(account.account, uid)])
            assert len(octets) == size
            shown.setdefault(account.login, {})[uidl] = hashlib.sha256(octets).hexdigest()
    rows = await storage.spool.list(limit=100_000)
    return shown, {row.message.queue_id for row in rows}


@pytest.mark.parametrize("backups", [2, pytest.param(12, marks=pytest.mark.long)])
@pytest.mark.conformance("C251")
def test_a_backup_under_load_is_the_house_at_one_moment(tmp_path: Path, backups: int) -> None:
    data, said = tmp_path / "data", Said()
    data.mkdir()
    taken: list[tuple[Path, float, float]] = []

    def take_backups(house: RunningHouse) -> None:
        for number in range(backups):
            enough = len(said.accepted) + 60
            deadline = time.monotonic() + 60
            while len(said.accepted) < enough:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            target, began = tmp_path / f"backup{number}", time.monotonic()
            asyncio.run(_back_up(house, target))
            taken.append((target, began, time.monotonic()))

    with RunningHouse(data, PEOPLE, reception={"trusted_networks": ["127.0.0.0/8"]}) as house:
        _load(house, said, lambda: take_backups(house))
        live, live_queue = house.ask(_seen)
    assert len(said.deleting) > 3
    for target, began, ended in taken:
        again = tmp_path / f"again-{target.name}"
        again.mkdir()
        restore_storage(house_config(again), World(), target, tell_nobody)
        seen, queue = asyncio.run(_restored(again))
        _compare(said, seen, queue, began, ended)
        for person, entries in seen.items():
            kept = live.get(person, {})
            assert {uidl: digest for uidl, digest in entries.items() if uidl in kept}.items() <= kept.items()
        assert queue <= live_queue
    # The house that runs from a restored folder shows the same to a mail program.
    target = taken[-1][0]
    again = tmp_path / f"again-{target.name}"
    with RunningHouse(again, PEOPLE) as house, Wire(house.ports["pop3"]) as wire:
        assert wire.login(PEOPLE[0]).startswith(b"+OK")
        uidls = wire.uidls()
        digests = {
            uidl: hashlib.sha256(wire.retrieve(number)).hexdigest() for number, uidl in enumerate(uidls, start=1)
        }
        assert digests == seen.get(PEOPLE[0], {})
        assert wire.pop3("QUIT").startswith(b"+OK")
        assert all(row.held for row in house.ask(lambda storage: storage.spool.list(limit=100_000)))


async def _back_up(house: RunningHouse, target: Path) -> None:
    """As the command does: a process of its own would open the store just so."""
    storage = await open_storage(house.config, World())
    try:
        await storage.backup(target, ORDER)
    finally:
        await storage.close()


async def _restored(data: Path) -> tuple[Seen, set[str]]:
    storage = await open_storage(house_config(data), World())
    try:
        assert [flaw async for flaw in storage.check() if not flaw.note] == []
        return await _seen(storage)
    finally:
        await storage.close()


def _compare(said: Said, seen: Seen, queue: set[str], began: float, ended: float) -> None:
    for (person, queue_id), at in said.accepted.items():
        if person == FAR:
            assert queue_id in queue or at >= began, "acknowledged before the backup began, and not in its queue"
            continue
        there = queue_id in seen.get(person, {})
        deleted = said.deleting.get((person, queue_id))
        if at < began and (deleted is None or deleted > ended):
            assert there, "acknowledged before the backup began, and not in it"
    for person, entries in seen.items():
        for uidl in entries:
            assert (person, uidl) in said.accepted, "nobody was told of this message"
