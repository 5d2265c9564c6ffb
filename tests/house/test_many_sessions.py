"""A thousand idle sessions and two hundred that dribble: others are served, in bounded memory (docs/guarantees.md)."""

from __future__ import annotations

import contextlib
import resource
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.doors import SELF_SIGNED
from posthouse.net.tls import make_self_signed
from tests.house.served import ServedHouse
from tests.house.wire import Wire

ANSWERED_WITHIN_S = 1.0
CLEAR_KIB = 16
TLS_KIB = 96
RESERVE_KIB = 16 * 1024
"""What any load leaves behind: caches, the allocator's spare room."""
PROBES = 10
DOORS = ("smtp", "submission", "submissions", "pop3", "pop3s")
READERS = tuple(f"reader{number}@here.test" for number in range(10))
PEOPLE = ("ada@here.test", *READERS)
LETTER = b"Subject: hi\r\n\r\nhello\r\n"
MORE = """
[reception]
sessions_per_address = 2000
[retrieval]
sessions_per_address = 2000
"""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ServedHouse]:
    make_self_signed("mx.here.test", tmp_path / SELF_SIGNED[0], tmp_path / SELF_SIGNED[1], time.time())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    try:
        with ServedHouse(tmp_path, PEOPLE, MORE, DOORS) as house:
            house.start()
            yield house
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def probe(house: ServedHouse) -> float:
    """How long another client's delivery and login take, the longer of both."""
    began = time.monotonic()
    with Wire(house.ports["smtp"]).greet() as wire:
        wire.deliver(LETTER, "ada@here.test")
    delivered = time.monotonic()
    with Wire(house.ports["pop3"]) as wire:
        assert wire.login("ada@here.test").startswith(b"+OK")
        assert len(wire.uidls()) > 0
    return max(delivered - began, time.monotonic() - delivered)


def idle(house: ServedHouse, count: int, tls: ssl.SSLContext | None) -> list[Wire]:
    """Sessions of both protocols that have greeted and say nothing."""
    doors = ("submissions", "pop3s") if tls else ("smtp", "pop3")
    opened = [Wire(house.ports[doors[number % 2]], tls=tls) for number in range(count)]
    for number, wire in enumerate(opened):
        if number % 2:
            assert wire.line().startswith(b"+OK")
        else:
            wire.greet()
    return opened


def dribblers(house: ServedHouse) -> list[Wire]:
    """In a command, in content, in AUTH, inside a handshake; and some that read no message they asked for."""
    opened = [Wire(house.ports["submissions"]) for _ in range(40)]
    opened += [Wire(house.ports["smtp"]).greet() for _ in range(50)]
    for _ in range(50):
        wire = Wire(house.ports["smtp"]).greet().envelope("ada@here.test")
        assert wire.say("DATA").startswith(b"354 ")
        opened.append(wire)
    for _ in range(25):
        wire = Wire(house.ports["submission"]).greet()
        assert wire.say("AUTH PLAIN").startswith(b"334")
        opened.append(wire)
    for _ in range(25):
        wire = Wire(house.ports["pop3"])
        assert wire.line().startswith(b"+OK")
        opened.append(wire)
    return opened + [_deaf(house, reader) for reader in READERS]


def _deaf(house: ServedHouse, reader: str) -> Wire:
    with Wire(house.ports["smtp"]).greet() as wire:
        wire.deliver(b"Subject: much\r\n\r\n" + (b"y" * 70 + b"\r\n") * 60_000, reader)
    wire = Wire(house.ports["pop3"])
    assert wire.login(reader).startswith(b"+OK")
    wire.send(b"RETR 1\r\n")
    return wire


def dribble(wires: list[Wire], ended: threading.Event) -> None:
    """One octet to each of them, again and again."""
    while not ended.wait(0.2):
        for wire in wires:
            with contextlib.suppress(OSError):
                wire.send(b"x")


@pytest.mark.long
@pytest.mark.conformance("C285", "S26")
def test_idle_and_dribbling_sessions_keep_nobody_waiting(house: ServedHouse) -> None:
    context = ssl.create_default_context(cafile=house.folder / SELF_SIGNED[0])
    probe(house)
    at_first = house.memory_kib("VmRSS")
    clear = idle(house, 800, None)
    with_clear = house.memory_kib("VmRSS")
    protected = idle(house, 200, context)
    with_all = house.memory_kib("VmRSS")
    slow = dribblers(house)
    with_slow = house.memory_kib("VmRSS")
    ended = threading.Event()
    dribbling = threading.Thread(target=dribble, args=(slow, ended))
    dribbling.start()
    try:
        longest = max(probe(house) for _ in range(PROBES))
    finally:
        ended.set()
        dribbling.join()
    at_last = house.memory_kib("VmRSS")
    print(f"\nclear {(with_clear - at_first) / 800:.1f} KiB, TLS {(with_all - with_clear) / 200:.1f} KiB a session")
    print(f"200 slow ones {with_slow - with_all} KiB, then {at_last - with_slow} KiB; longest probe {longest:.3f} s")
    assert longest < ANSWERED_WITHIN_S
    assert with_clear - at_first < 800 * CLEAR_KIB
    assert with_all - with_clear < 200 * TLS_KIB
    assert at_last - at_first < 800 * CLEAR_KIB + 400 * TLS_KIB + RESERVE_KIB
    # All of them are still there, and each that waits for a command is told that the house closes.
    house.stop()
    for number, wire in enumerate(clear + protected):
        assert (b"-ERR" if number % 2 else b"421 4.3.2 ") in wire.rest()
    for wire in slow:
        wire.socket.close()
