"""Mail that goes through several servers, each of which dies at random moments, and the account of it.

A chain takes mail at one port and delivers it into maildrops of a house at its end; what nobody there knows must come
back to the sender. Senders send again only what got no `250`. `Account.check` says what the guarantees say: whatever
was acknowledged arrived at least once, or its report did; and copies more than one are no more than there were
connections that may have died at a final dot.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.house.wire import Wire, stored, stuffed

MESSAGES = int(os.environ.get("POSTHOUSE_CHAIN_MESSAGES", "1500"))
"""Of one run of one chain."""
SENDERS = 4
CONNECTIONS = 5
"""Between two servers at most; so many messages at once can be at their final dots."""
UNKNOWN_SHARE = 0.1
KILLS_AT_MOST = int(os.environ.get("POSTHOUSE_CHAIN_KILLS", "4"))
"""Of each server; after them it stays, so that mail gets through at last."""
BETWEEN_KILLS_S = (0.3, 1.5)
PATIENCE_S = 240.0
_SERIAL = re.compile(rb"X-Serial: (\d+)\r\n")


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody's maildrop, and which messages were seen in it: serial numbers, once for each entry."""

    login: str
    port: Callable[[], int]
    serials: Counter[int] = field(default_factory=Counter)
    received: list[int] = field(default_factory=list)
    """How many Received fields each entry had."""
    _seen: set[str] = field(default_factory=set)

    def read_on(self) -> None:
        """Read what is new. Raises OSError or AssertionError where the house dies meanwhile."""
        with Wire(self.port()) as wire:
            assert wire.login(self.login).startswith(b"+OK")
            for number, uidl in enumerate(wire.uidls(), 1):
                if uidl not in self._seen:
                    octets = wire.retrieve(number)
                    found = _SERIAL.search(octets)
                    assert found is not None, octets
                    self._seen.add(uidl)
                    self.serials[int(found[1])] += 1
                    self.received.append(len(re.findall(rb"^Received: ", octets.partition(b"\r\n\r\n")[0], re.M)))
            assert wire.pop3("QUIT").startswith(b"+OK")


@dataclass(slots=True)
class Account:
    """What was sent, and what may have been sent twice."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    known: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    resent: int = 0
    """Contents that were sent and got no answer."""
    kills: Counter[str] = field(default_factory=Counter)

    def check(self, arrived: Sequence[Reader], returned: Reader, most_received: int) -> None:
        there: Counter[int] = sum((reader.serials for reader in arrived), Counter())
        assert there.keys() == self.known, "arrived, and nothing else did"
        assert returned.serials.keys() == self.unknown, "came back, and nothing else did"
        copies = there.total() - len(there) + returned.serials.total() - len(returned.serials)
        # Each kill may have broken every connection into a server and every one out of it.
        bound = self.resent + self.kills.total() * 2 * CONNECTIONS
        print(f"{len(there)} arrived, {len(returned.serials)} came back, {copies} copies more, of {bound} that may be")
        print(f"{self.kills.total()} kills: {dict(self.kills)}; {self.resent} contents sent without an answer")
        assert copies <= bound
        hops = max(count for reader in (*arrived, returned) for count in reader.received)
        assert hops <= most_received, "nothing went in a circle"


@dataclass(frozen=True, slots=True)
class Station:
    """A server that can be ended at once and started again."""

    name: str
    fell: Callable[[], None]
    start: Callable[[], None]


@contextmanager
def dying(stations: Sequence[Station], account: Account, chance: random.Random) -> Iterator[None]:
    """Within the block each of the stations dies now and then; at its end all of them run."""
    over = threading.Event()
    problems: list[BaseException] = []

    def kill(station: Station, chance: random.Random) -> None:
        try:
            for _ in range(KILLS_AT_MOST):
                if over.wait(chance.uniform(*BETWEEN_KILLS_S)):
                    return
                station.fell()
                with account.lock:
                    account.kills[station.name] += 1
                over.wait(chance.uniform(0, 0.3))
                station.start()
        except BaseException as exc:
            problems.append(exc)

    # Each by itself, so that now and then several are away at once.
    threads = [threading.Thread(target=kill, args=(station, random.Random(chance.random()))) for station in stations]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()
    if problems:
        raise problems[0]


def send_all(
    port: int, account: Account, recipient: Callable[[int, bool, random.Random], str], sender: str, seed: int
) -> None:
    """Send MESSAGES messages to a port, from several threads; returns when each of them got its `250`.

    `recipient` names whom a message is for, by its number and whether he exists.
    """
    problems: list[BaseException] = []
    deadline = time.monotonic() + PATIENCE_S

    def work(part: int) -> None:
        chance = random.Random(seed + part)
        try:
            for serial in range(part, MESSAGES, SENDERS):
                exists = chance.random() >= UNKNOWN_SHARE
                forward_path = recipient(serial, exists, chance)
                content = b"X-Serial: %d\r\nSubject: chain\r\n\r\n" % serial + b"x" * chance.randrange(3000) + b"\r\n"
                while not connections[part].send(forward_path, sender, content, account):
                    assert time.monotonic() < deadline, "the first server takes nothing"
                with account.lock:
                    (account.known if exists else account.unknown).add(serial)
        except BaseException as exc:
            problems.append(exc)
        finally:
            connections[part].close()

    connections = [_Connection(port) for _ in range(SENDERS)]
    threads = [threading.Thread(target=work, args=(part,)) for part in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


def until_all_is_read(account: Account, arrived: Sequence[Reader], returned: Reader) -> None:
    """Read until everything that was sent is somewhere."""
    deadline = time.monotonic() + PATIENCE_S
    while missing := (
        account.known - {serial for reader in arrived for serial in reader.serials},
        account.unknown - returned.serials.keys(),
    ):
        if not any(missing):
            return
        lost = [sorted(each)[:10] for each in missing]
        assert time.monotonic() < deadline, f"not arrived {lost[0]}…, not returned {lost[1]}…"
        time.sleep(0.2)
        for reader in (*arrived, returned):
            reader.read_on()


class _Connection:
    """To the first server, opened again whenever it is lost."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._wire: Wire | None = None

    def send(self, forward_path: str, sender: str, content: bytes, account: Account) -> bool:
        """Whether it was answered with `250`."""
        sent = False
        try:
            if self._wire is None:
                self._wire = Wire(self._port, timeout_s=60.0)
                self._wire.greet()
            self._wire.envelope(forward_path, sender=sender)
            assert self._wire.say("DATA").startswith(b"354 ")
            sent = True
            self._wire.send(stuffed(content))
            answer = self._wire.reply()
        except (OSError, AssertionError) as exc:
            self.close()
            if isinstance(exc, AssertionError) and "the server ended inside" not in str(exc):
                raise
            with account.lock:
                account.resent += sent
            time.sleep(0.05)
            return False
        stored(answer)
        return True

    def close(self) -> None:
        if self._wire is not None:
            self._wire.socket.close()
            self._wire = None
