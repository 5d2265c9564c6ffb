"""A large message streams in and out; the house never holds it."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from tests.house.served import ServedHouse
from tests.house.wire import Wire, stored

GROWTH_KIB = 4 * 1024
BOB = "bob@here.test"
LINE = random.Random(50).randbytes(38).hex().encode() + b"\r\n"
BLOCK = LINE * 800


def send(wire: Wire, size_octets: int) -> bytes:
    """One transaction of about this size, never held here either; the reply to its end."""
    wire.envelope(BOB)
    assert wire.say("DATA").startswith(b"354 ")
    wire.send(b"Subject: large\r\n\r\n")
    for _ in range(size_octets // len(BLOCK)):
        wire.send(BLOCK)
    wire.send(b".\r\n")
    return wire.reply()


def read_out(wire: Wire, size_octets: int) -> None:
    """RETR and DELE message 1; what ends it must be what was sent."""
    assert wire.pop3("RETR 1").startswith(b"+OK")
    digest, wanted = hashlib.sha256(), hashlib.sha256(b"Subject: large\r\n\r\n")
    for _ in range(size_octets // len(BLOCK)):
        wanted.update(BLOCK)
    begun = False
    while (line := wire.line()) != b".":
        begun = begun or line == b"Subject: large"
        if begun:
            digest.update(line + b"\r\n")
    assert digest.digest() == wanted.digest()
    assert wire.pop3("DELE 1").startswith(b"+OK")


@pytest.mark.long
@pytest.mark.conformance("C53", "C254", "C286")
def test_fifty_megabytes_cost_no_memory(tmp_path: Path) -> None:
    with ServedHouse(tmp_path, (BOB,)) as house:
        house.start()
        for size_octets, measured in ((8_000_000, False), (50_000_000, True)):
            house.forget_peak()
            before = house.memory_kib("VmRSS")
            with Wire(house.ports["smtp"]) as wire:
                stored(send(wire.greet(), size_octets))
            received = house.memory_kib("VmHWM")
            with Wire(house.ports["pop3"]) as wire:
                assert wire.login(BOB).startswith(b"+OK")
                read_out(wire, size_octets)
                assert wire.pop3("QUIT").startswith(b"+OK")
            grown = house.memory_kib("VmHWM") - before
            print(f"{size_octets} octets: {before} KiB before, +{received - before} received, +{grown} in all")
            if measured:
                assert grown < GROWTH_KIB
        house.stop()


@pytest.mark.long
@pytest.mark.conformance("C153")
def test_more_than_the_limit_is_refused_once(tmp_path: Path) -> None:
    with ServedHouse(tmp_path, (BOB,), "[reception]\nmessage_size_octets = 1_000_000") as house:
        house.start()
        with Wire(house.ports["smtp"]) as wire:
            assert wire.greet().say("MAIL FROM:<> SIZE=1000001").startswith(b"552 5.3.4 ")
            house.forget_peak()
            before = house.memory_kib("VmRSS")
            assert send(wire, 30_000_000).startswith(b"552 5.3.4 ")
            assert house.memory_kib("VmHWM") - before < GROWTH_KIB
            assert wire.say("NOOP").startswith(b"250 ")
            assert wire.say("RCPT TO:<bob@here.test>").startswith(b"503 ")
            stored(send(wire, 900_000))
        with Wire(house.ports["pop3"]) as wire:
            assert wire.login(BOB).startswith(b"+OK")
            assert len(wire.uidls()) == 1
        house.stop()
