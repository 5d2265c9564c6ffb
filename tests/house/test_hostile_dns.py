"""Name servers that lie, stall or answer 64 KiB: each message has its one attempt, in bounded time and memory, and
others are answered within a second. What each such answer means stands in `test_mx.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.dns_server import Fault, Raw, Zone, running_dns_server
from tests.house.counting_peers import counting_peers
from tests.house.served import ServedHouse
from tests.house.test_exhaustion import GROWTH_KIB, answered_within_a_second, bounded
from tests.house.wire import Wire

pytestmark = pytest.mark.long

PATIENCE_S = 90.0
EACH = 2
"""Domains with each of the answers."""
LONGEST = tuple(bytes([0, 10, 4]) + b"%04d" % number + b"\xc0\x0c" for number in range(2800))
ANSWERS = {
    "silent": Fault.DROP,
    "stalled": Fault.STALL,
    "cut-off": Fault.CUT_OFF,
    "garbage": Fault.GARBAGE,
    "wrong-id": Fault.WRONG_ID,
    "wrong-question": Fault.WRONG_QUESTION,
    "unasked": Fault.UNASKED,
    "aliases": Fault.ALIAS_ONLY,
    "64-kib": Raw(LONGEST),
}


def domains() -> list[str]:
    return [f"{name}{number}.test" for name in ANSWERS for number in range(EACH)]


def zone() -> Zone:
    found: dict[tuple[str, str], object] = {
        ("well.test", "MX"): ["10 a.hosts.test."],
        ("a.hosts.test", "A"): ["127.0.0.2"],
    }
    for name, answer in ANSWERS.items():
        kind = "*" if answer is Fault.ALIAS_ONLY else "MX"
        found |= {(f"{name}{number}.test", kind): answer for number in range(EACH)}
        found |= {(f"{name}{number}.test", "A"): ["127.0.0.9"] for number in range(EACH) if kind == "MX"}
    return found  # type: ignore[return-value]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[tuple[ServedHouse, list[str]]]:
    """The house, and what its well-behaved next hop took."""
    with ExitStack() as running:
        names = running.enter_context(running_dns_server(zone()))
        port, (well,) = running.enter_context(counting_peers(("127.0.0.2",)))
        settings = (
            '[reception]\ntrusted_networks = ["127.0.0.0/8"]\nsessions_per_address = 1000\n'
            f'[forwarding]\nport = {port}\nallow_private_next_hops = true\nretry = ["1h"]\n'
            f'[dns]\nservers = ["{names.address[0]}:{names.address[1]}"]\n'
        )
        people = ("ada@here.test", "bob@here.test", "carol@here.test")
        served = running.enter_context(ServedHouse(tmp_path, people, settings))
        file = tmp_path / "posthouse.toml"
        file.write_text(file.read_text().replace("refuse_null_mx_senders = false", "refuse_null_mx_senders = true"))
        served.start()
        answered_within_a_second(served)
        yield served, well.taken
        served.kill()


@pytest.mark.conformance("C302", "S21")
def test_whom_the_name_servers_lie_about(house: tuple[ServedHouse, list[str]]) -> None:
    """Senders from such domains, and mail to them, all at once."""
    served, taken = house
    with bounded(served, 8 * GROWTH_KIB), ExitStack() as held:
        wires = [held.enter_context(Wire(served.ports["smtp"], timeout_s=PATIENCE_S)).greet() for _ in domains()]
        for wire, domain in zip(wires, domains(), strict=True):
            wire.send(f"MAIL FROM:<x@{domain}>\r\nRCPT TO:<eva@{domain}>\r\n".encode())
        answered_within_a_second(served)
        began = time.monotonic()
        for wire, domain in zip(wires, domains(), strict=True):
            assert wire.reply()[:3] in (b"250", b"451"), domain
            assert wire.reply()[:1] in b"245", domain
        print(f"all were answered after {time.monotonic() - began:.1f} s")
        with Wire(served.ports["smtp"]) as wire:
            wire.greet().deliver(
                b"Subject: x\r\n\r\n", *(f"eva@{domain}" for domain in domains()), sender="ada@here.test"
            )
            wire.deliver(b"Subject: x\r\n\r\n", "eva@well.test", sender="ada@here.test")
        answered_within_a_second(served)
        ends = time.monotonic() + PATIENCE_S
        while not taken:
            assert time.monotonic() < ends, "the mail of others does not get through"
            time.sleep(0.1)
    answered_within_a_second(served)
