"""Kills the house at random moments under load, starts it again, and compares what is there with what was promised."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.house.served import ServedHouse
from tests.house.wire import Wire, stored
from tests.house.zygote import Zygote

KILLS = 50
ROUNDS_OF_WORKERS = 12
"""Each starts six processes and kills up to five."""
LOAD_S = (0.05, 0.9)
"""From the first connection to the kill."""
SENDERS = 4
PEOPLE = tuple(f"r{n}@here.test" for n in range(4))
BIGGEST_OCTETS = 1_000_000
OUR_FIELDS = re.compile(
    rb"Return-Path: <[^\r\n]*>\r\nDelivered-To: [^\r\n]*\r\nReceived: (?:[^\r\n]*\r\n\t)*[^\r\n]*\r\n"
)

Entry = tuple[str, str]
"""Person and UIDL."""


@dataclass
class Ledger:
    """What the house promised, as its peers saw it. One lock guards all of it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    attempted: dict[bytes, frozenset[str]] = field(default_factory=dict)
    """SHA-256 of each content that was sent, answered or not, and for whom."""
    acknowledged: dict[Entry, bytes] = field(default_factory=dict)
    """Entry → SHA-256, for each `250` that was read."""
    doubtful: set[Entry] = field(default_factory=set)
    """Marked, QUIT sent, no answer read: may be there or not."""
    deleted: set[Entry] = field(default_factory=set)
    """`+OK` to QUIT was read."""
    seen: dict[Entry, bytes] = field(default_factory=dict)
    """Every entry that was ever read, with its SHA-256."""


class Broken(Exception):
    """An entry is not what was promised, whatever happened around it."""


@pytest.mark.conformance("C58", "C247", "C248", "C251")
@pytest.mark.long
def test_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path, seed: int, zygote: Zygote) -> None:
    ledger = Ledger()
    chance = random.Random(seed)
    print(f"seed {seed}")
    with ServedHouse(tmp_path, PEOPLE, zygote=zygote) as house:
        for number in range(KILLS):
            house.start()
            after_s = chance.uniform(*LOAD_S)
            _load(house, ledger, chance.randrange(2**32), after_s)
            house.start()
            _check(house, ledger, f"kill {number}, after {after_s:.3f} s, seed {seed}")
            house.kill() if number % 2 else house.stop()
    lost_sight = len(ledger.attempted) - len(set(ledger.acknowledged.values()))
    print(f"{len(ledger.acknowledged)} entries promised, {len(ledger.deleted)} deleted, {lost_sight} never answered")
    assert len(ledger.acknowledged) > 10 * KILLS, "too little was sent to prove anything"
    assert len(ledger.deleted) > KILLS
    assert lost_sight > 0, "no kill hit a message on its way"


@pytest.mark.conformance("C58", "C247", "C248", "C251")
@pytest.mark.long
def test_nothing_is_lost_or_doubled_when_workers_die(tmp_path: Path, seed: int, zygote: Zygote) -> None:
    """Each time a worker dies under load, often two; then all of them at once, or only their parent."""
    ledger = Ledger()
    chance = random.Random(seed)
    print(f"seed {seed}")
    with ServedHouse(tmp_path, PEOPLE, workers=2, zygote=zygote) as house:
        for number in range(ROUNDS_OF_WORKERS):
            house.start()
            with _loaded(house, ledger, chance.randrange(2**32)) as dying:
                for _ in range(chance.randrange(3)):
                    time.sleep(chance.uniform(*LOAD_S))
                    if workers := house.workers():
                        with suppress(ProcessLookupError):
                            os.kill(chance.choice(workers), signal.SIGKILL)
                time.sleep(chance.uniform(*LOAD_S))
                if number % 3 == 2:
                    # Nobody new is served, and what is under way may be finished.
                    dying.set()
                    house.kill_parent()
                else:
                    house.kill()
            house.start()
            _check(house, ledger, f"round {number}, seed {seed}")
            house.kill() if number % 2 else house.stop()
    lost_sight = len(ledger.attempted) - len(set(ledger.acknowledged.values()))
    print(f"{len(ledger.acknowledged)} entries promised, {len(ledger.deleted)} deleted, {lost_sight} never answered")
    assert len(ledger.acknowledged) > 10 * ROUNDS_OF_WORKERS, "too little was sent to prove anything"
    assert len(ledger.deleted) > ROUNDS_OF_WORKERS
    assert lost_sight > 0, "no kill hit a message on its way"


def _load(house: ServedHouse, ledger: Ledger, seed: int, after_s: float) -> None:
    """Send and read from several threads until the house dies under them."""
    with _loaded(house, ledger, seed):
        time.sleep(after_s)
        house.kill()


@contextmanager
def _loaded(house: ServedHouse, ledger: Ledger, seed: int) -> Iterator[threading.Event]:
    """Threads that send and read until the end of the block, or until the event is set."""
    dying = threading.Event()
    problems: list[BaseException] = []

    def worker(work: object, *arguments: object) -> None:
        try:
            while not dying.is_set():
                try:
                    work(house, ledger, *arguments, dying)  # type: ignore[operator]
                except OSError:
                    continue
                except AssertionError as exc:
                    # A connection that ends in the middle of a line is what a kill looks like; a house that ends
                    # gracefully says so instead of what was expected.
                    if "the server ended inside" not in str(exc) and not dying.is_set():
                        raise
        except BaseException as exc:
            problems.append(exc)

    threads = [threading.Thread(target=worker, args=(_send, random.Random(seed + n))) for n in range(SENDERS)]
    threads += [
        threading.Thread(target=worker, args=(_read, random.Random(seed - n), person))
        for n, person in enumerate(PEOPLE[:2], start=1)
    ]
    for thread in threads:
        thread.start()
    try:
        yield dying
    finally:
        dying.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    assert problems == []


def _send(house: ServedHouse, ledger: Ledger, chance: random.Random, dying: threading.Event) -> None:
    """One session of several messages."""
    with Wire(house.ports["smtp"]) as wire:
        wire.greet()
        for _ in range(chance.randrange(1, 20)):
            if dying.is_set():
                return
            content = _content(chance)
            digest = hashlib.sha256(content).digest()
            people = frozenset(chance.sample(PEOPLE, chance.choice((1, 1, 1, 2))))
            with ledger.lock:
                ledger.attempted[digest] = people
            wire.envelope(*sorted(people))
            queue_id = stored(wire.content(content))
            with ledger.lock:
                for person in people:
                    ledger.acknowledged[person, queue_id] = digest


def _content(chance: random.Random) -> bytes:
    """10 octets to 1 MB, most of them small; never the same twice."""
    serial = b"%x" % chance.getrandbits(64)
    size = int(10 ** chance.triangular(1, 6, 2.5))
    if size < 40:
        return serial[:8].ljust(8, b"0") + b"\r\n"
    line = chance.randbytes(36).hex().encode() + b"\r\n"
    body = (line * (size // len(line) + 1))[: min(size, BIGGEST_OCTETS) - 2].rstrip(b"\r\n")
    return b"Subject: " + serial + b"\r\n\r\n" + body + b"\r\n"


def _read(house: ServedHouse, ledger: Ledger, chance: random.Random, person: str, dying: threading.Event) -> None:
    """One session that reads a few messages, deletes some, and takes its leave or just goes."""
    with Wire(house.ports["pop3"]) as wire:
        if not wire.login(person).startswith(b"+OK"):
            return
        uidls = wire.uidls()
        marked: set[Entry] = set()
        for number in chance.sample(range(len(uidls)), min(len(uidls), 6)):
            _note(ledger, (person, uidls[number]), wire.retrieve(number + 1))
            if chance.random() < 0.7:
                assert wire.pop3(f"DELE {number + 1}").startswith(b"+OK")
                marked.add((person, uidls[number]))
        if dying.is_set() or chance.random() < 0.2:
            return
        with ledger.lock:
            ledger.doubtful |= marked
        assert wire.pop3("QUIT").startswith(b"+OK"), "the deletion failed"
        with ledger.lock:
            ledger.doubtful -= marked
            ledger.deleted |= marked


def _note(ledger: Ledger, entry: Entry, octets: bytes) -> None:
    """What an entry holds must be a content that was sent to this person, and the one that its UIDL acknowledged."""
    fields = OUR_FIELDS.match(octets)
    if fields is None:
        raise Broken(f"{entry}: {octets[:300]!r}")
    digest = hashlib.sha256(octets[fields.end() :]).digest()
    with ledger.lock:
        if entry[0] not in ledger.attempted.get(digest, ()):
            raise Broken(f"{entry}: nobody sent this: {octets[:300]!r}")
        if ledger.seen.setdefault(entry, digest) != digest:
            raise Broken(f"{entry}: the content changed")


def _check(house: ServedHouse, ledger: Ledger, when: str) -> None:
    """Compare each maildrop with the ledger, and read each entry that was never read."""
    for person in PEOPLE:
        with Wire(house.ports["pop3"]) as wire:
            assert wire.login(person).startswith(b"+OK"), when
            uidls = wire.uidls()
            assert len(set(uidls)) == len(uidls), when
            for number, uidl in enumerate(uidls, start=1):
                if (person, uidl) not in ledger.seen:
                    _note(ledger, (person, uidl), wire.retrieve(number))
            assert wire.pop3("QUIT").startswith(b"+OK")
        there = {(person, uidl) for uidl in uidls}
        assert not there & ledger.deleted, f"{when}: what was deleted came back"
        mine = {entry: digest for entry, digest in ledger.acknowledged.items() if entry[0] == person}
        vanished = mine.keys() - there - ledger.deleted - ledger.doubtful
        assert not vanished, f"{when}: acknowledged, and gone: {vanished}"
        for entry, digest in mine.items():
            assert ledger.seen.get(entry, digest) == digest, f"{when}: {entry} holds another message"
        # Whatever was in doubt is decided now.
        ledger.deleted |= (doubtful := {e for e in ledger.doubtful if e[0] == person}) - there
        ledger.doubtful -= doubtful
        copies = Counter(digest for entry, digest in ledger.seen.items() if entry[0] == person)
        doubled = [digest.hex() for digest, count in copies.items() if count > 1]
        assert not doubled, f"{when}: one message, two entries"
