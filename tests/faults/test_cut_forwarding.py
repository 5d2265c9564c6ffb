"""A real house hands messages to a next hop, and each connection breaks after another octet, either way: who has it
and said so is not sent it again; who may have it is marked so, and gets a second copy at most; all get it in the end.

Each break is a domain of its own, whose next hop is reached through a network that breaks there.
"""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.mail.journey import Attempted
from posthouse.storage.interfaces import Storage
from tests.faults.cuts import every_break
from tests.faults.proxy import Break, How, Network, Way
from tests.house.far_hosts import CHUNKING, PIPELINING, PLAIN, FarHost, FarHosts
from tests.house.test_failure_matrix import house, until_tried, waiting, waiting_room
from tests.net.authority import Authority
from tests.running_house import RunningHouse

pytestmark = pytest.mark.long

STYLES = {"one by one": PLAIN, "pipelined": PIPELINING, "chunks": CHUNKING, "TLS": PIPELINING}
STRIDES = {"TLS": 11}
"""Most octets of a handshake are random, so they are taken as samples unless every kind is asked for."""
LENGTHS = {"TLS": {Way.UP: 1400, Way.DOWN: 1900}}
USUAL_LENGTHS = {Way.UP: 520, Way.DOWN: 210}
"""A little more than what passes; where no octet is left to break after, nothing breaks."""
CONTENT = b"Subject: hi\r\n\r\n.one\r\ntwo\r\n"
RECIPIENTS = 900
"""Of one message at most."""
SETTINGS = {
    **dict.fromkeys((f"{phase}_timeout" for phase in ("connect", "greeting", "command", "content", "final")), "1s"),
    "rewrite_senders": False,
}


def place_of(number: int) -> str:
    return f"127.88.{number // 250}.{number % 250 + 1}"


def forward_path(number: int) -> str:
    return f"eva@cell{number}.test"


class Street:
    """A next hop, and the network before it, with one way to it for each break."""

    def __init__(self, network: Network, far: FarHosts, host: FarHost, breaks: list[Break]) -> None:
        self.host = host
        self.breaks = breaks
        self.heal = False
        port = 0
        for number in range(len(breaks)):
            listen = network.listen((place_of(number), port), (host.address, far.port), self._plan(number))
            port = network.run(listen)[1]
        self.routes = {f"cell{number}.test": f"{place_of(number)}:{port}" for number in range(len(breaks))}

    def _plan(self, number: int):  # type: ignore[no-untyped-def]
        return lambda: None if self.heal else self.breaks[number]

    def copies(self) -> Counter[str]:
        return Counter(path for taken in self.host.taken for path in taken.forward_paths)

    def answered(self) -> set[str]:
        return {path for taken in self.host.taken if taken.answered for path in taken.forward_paths}


@pytest.fixture
def network() -> Iterator[Network]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 16_384)), hard))
    try:
        with Network() as network:
            yield network
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.conformance("C100", "C103")
@pytest.mark.parametrize("style", STYLES)
def test_every_octet_may_be_the_last(tmp_path: Path, network: Network, seed: int, style: str) -> None:
    print(f"seed {seed}")
    tls = Authority(tmp_path).server("mx.far.test") if style == "TLS" else None
    breaks = list(every_break(LENGTHS.get(style, USUAL_LENGTHS), seed, stride=STRIDES.get(style, 1)))
    with FarHosts() as far:
        street = Street(network, far, far.add("mx.far.test", offers=STYLES[style], tls=tls), breaks)
        people = [forward_path(number) for number in range(len(breaks))]
        with waiting_room(tmp_path) as wire:
            for at in range(0, len(people), RECIPIENTS):
                wire.deliver(CONTENT, *people[at : at + RECIPIENTS])
        with house(tmp_path, 2, None, routes=street.routes, **SETTINGS) as during:
            until_tried(during)
            outcomes, waits = last_outcomes(during), waiting(during)
        first = street.copies()
        for person, broken in zip(people, breaks, strict=True):
            what = f"{style}, {broken}: {outcomes[person]}, {first[person]} copies"
            assert outcomes[person] in ("delivered", "deferred", "uncertain"), what
            assert (person in waits) == (outcomes[person] != "delivered"), what
            assert first[person] <= 1, what
            assert first[person] == 1 or outcomes[person] != "delivered", what
            assert first[person] == 0 or outcomes[person] != "deferred", what
            assert broken.how is not How.DRIBBLE or outcomes[person] == "delivered", what
        assert street.answered() >= {person for person in people if outcomes[person] == "delivered"}
        street.heal = True
        with house(tmp_path, 4, None, routes=street.routes, **SETTINGS) as after:
            until_tried(after)
            assert waiting(after) == set()
    last = street.copies()
    for person, broken in zip(people, breaks, strict=True):
        assert last[person] - first[person] == (outcomes[person] != "delivered"), f"{style}, {broken}"
    assert {taken.content.endswith(b"\r\n" + CONTENT.replace(b"\r\n.", b"\r\n..")) for taken in street.host.taken} <= {
        True
    } or style == "chunks"
    counts = Counter(outcomes.values())
    twice = sum(count == 2 for count in last.values())
    print(f"{len(breaks)} breaks: {counts}, {twice} got a second copy")
    assert counts.keys() == {"delivered", "deferred", "uncertain"}
    assert 0 < twice <= counts["uncertain"]


def last_outcomes(house: RunningHouse) -> dict[str, str]:
    """What the last attempt at each of the people came to."""

    async def ask(storage: Storage) -> dict[str, str]:
        found: dict[str, str] = {}
        for queue_id in await storage.journey.find():
            for event in await storage.journey.read(queue_id):
                if isinstance(event, Attempted):
                    found[event.forward_path] = event.outcome
        return found

    return house.ask(ask)
