"""Peers that never come to an end of line, content or chunk: they cost no memory, and their session ends."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.house.served import ServedHouse
from tests.house.wire import Wire

BOB = "bob@here.test"
GROWTH_KIB = 4 * 1024
BLOCK = b"A" * 65_536
STAGES = {
    "command": b"",
    "path": b"MAIL FROM:<",
    "login": b"AUTH PLAIN ",
    "response": b"AUTH LOGIN\r\n",
    "size of a chunk": b"BDAT ",
    "header": b"MAIL FROM:<>\r\nRCPT TO:<bob@here.test>\r\nDATA\r\nSubject: ",
    "body": b"MAIL FROM:<>\r\nRCPT TO:<bob@here.test>\r\nDATA\r\n\r\n",
    "chunk": b"MAIL FROM:<>\r\nRCPT TO:<bob@here.test>\r\nBDAT 99999999 LAST\r\n",
    "refused chunk": b"BDAT 99999999 LAST\r\n",
}


def stream(house: ServedHouse, stage: str, size_octets: int) -> bytes:
    """Send so much of one line; what was answered until the house, or we, had enough."""
    door = "submission" if stage in ("login", "response") else "smtp"
    with Wire(house.ports[door]).greet() as wire:
        wire.send(STAGES[stage])
        with contextlib.suppress(ConnectionError):
            for _ in range(size_octets // len(BLOCK)):
                wire.send(BLOCK)
        wire.end()
        return wire.rest()


@pytest.mark.long
@pytest.mark.conformance("C286", "C310", "S12")
def test_endless_input_costs_no_memory(tmp_path: Path) -> None:
    with ServedHouse(tmp_path, (BOB,)) as house:
        house.start()
        for stage in STAGES:
            # What the first session of a kind takes stays; what the length takes is measured.
            stream(house, stage, 8_000_000)
            house.forget_peak()
            before = house.memory_kib("VmRSS")
            answered = stream(house, stage, 100_000_000)
            growth = house.memory_kib("VmHWM") - before
            assert growth < GROWTH_KIB, f"{stage}: {growth} KiB"
            assert b"\r\n250 2.0.0 Stored" not in answered
        with Wire(house.ports["smtp"]).greet() as wire:
            wire.deliver(b"Subject: hi\r\n", BOB)
        house.stop()
