"""Mail that goes in circles between houses: it ends, soon, and its sender hears of it once."""

from __future__ import annotations

import email
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from posthouse.admission.admission import MAX_RECEIVED_FIELDS
from posthouse.mail.address import Address, parse_address
from posthouse.storage.interfaces import Storage
from tests.house.test_forwarding import maildrop, until_served
from tests.house.wire import Wire
from tests.peers.programs import free_port
from tests.running_house import RunningHouse

NAMES = ("one", "two", "three")
LETTER = b"From: ada@one.test\r\nSubject: round and round\r\n\r\nhello\r\n"
ADA = "ada@one.test"


class Ring:
    """Three houses; each sends mail for the others' domains straight to them."""

    def __init__(self, folder: Path) -> None:
        ports = {name: free_port() for name in NAMES}
        routes = {f"{name}.test": f"127.0.0.1:{port}" for name, port in ports.items()}
        self.houses: dict[str, RunningHouse] = {}
        for name, port in ports.items():
            (folder / name).mkdir()
            self.houses[name] = RunningHouse(
                folder / name,
                (f"ada@{name}.test", f"bob@{name}.test"),
                hostname=f"mx.{name}.test",
                postmaster=f"ada@{name}.test",
                listen={"smtp": [f"127.0.0.1:{port}"], "pop3": ["127.0.0.1:0"]},
                forwarding={"routes": routes, "retry": ["50ms"], "expire_after": "10s"},
            )

    def lead(self, aliases: dict[str, tuple[str, ...]]) -> None:
        for alias, targets in aliases.items():
            address, found = parse_address(alias), [parse_address(target) for target in targets]
            house = self.houses[address.domain.removesuffix(".test")]
            house.ask(partial(add_alias, address, found))

    def accepted(self) -> int:
        """Messages accepted by all of them, reports included."""
        count = 0
        for house in self.houses.values():
            everything = house.ask(lambda storage: storage.journey.find(limit=10_000))
            refused = house.ask(lambda storage: storage.journey.find(refused=True, limit=10_000))
            count += len(set(everything) - set(refused))
        return count

    def until_quiet(self) -> int:
        """Wait until no house has anything to send; how many messages there were."""
        before = -1
        while before != (now := self.accepted()) or any(map(_waiting, self.houses.values())):
            before = now
            for house in self.houses.values():
                until_served(house)
        return now

    def send(self, recipient: str, sender: str = ADA) -> int:
        """Send a letter; how many messages came of it, it and reports included."""
        before = self.accepted()
        domain = parse_address(recipient).domain.removesuffix(".test")
        with Wire(self.houses[domain].ports["smtp"]).greet() as wire:
            wire.deliver(LETTER, recipient, sender=sender)
        return self.until_quiet() - before

    def reports(self, login: str = ADA) -> list[str]:
        """Subjects of what came to a maildrop since it was asked last."""
        name = parse_address(login).domain.removesuffix(".test")
        entries = maildrop(self.houses[name], login)
        seen: set[str] = self.__dict__.setdefault("seen", set())
        new = [content for uidl, _size, content in entries if uidl not in seen]
        seen.update(uidl for uidl, _size, _content in entries)
        return [str(email.message_from_bytes(content)["Subject"]) for content in new]


async def add_alias(alias: Address, targets: list[Address], storage: Storage) -> None:
    await storage.administration.add_alias(alias, targets)


def _waiting(house: RunningHouse) -> int:
    async def ask(storage: Storage) -> int:
        return await storage.spool.count()

    return house.ask(ask)


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ring]:
    ring = Ring(tmp_path_factory.mktemp("ring"))
    one, two, three = ring.houses.values()
    with one, two, three:
        yield ring


CIRCLES: dict[str, tuple[str, dict[str, tuple[str, ...]], int]] = {
    "to itself by another house": (
        "self@one.test",
        {"self@one.test": ("x@two.test",), "x@two.test": ("self@one.test",)},
        1,
    ),
    "with details": (
        "d+1@one.test",
        {"d@one.test": ("d+2@two.test",), "d@two.test": ("d+3@three.test",), "d@three.test": ("d+1+1@one.test",)},
        1,
    ),
    "each to the other two": (
        "team@one.test",
        {
            "team@one.test": ("team@two.test", "team@three.test"),
            "team@two.test": ("team@one.test", "team@three.test"),
            "team@three.test": ("team@one.test", "team@two.test"),
        },
        0,
    ),
    "a list that leads to somebody too": (
        "list@one.test",
        {"list@one.test": ("bob@one.test", "list@two.test"), "list@two.test": ("bob@two.test", "list@one.test")},
        1,
    ),
}
"""Where the letter goes, the aliases, and how many reports there are; 0: one for each way that the circle can end."""


@pytest.mark.conformance("C295", "S25")
@pytest.mark.parametrize("name", CIRCLES)
def test_a_circle_ends_where_it_began_and_the_sender_hears_of_it(ring: Ring, name: str) -> None:
    first, aliases, reports = CIRCLES[name]
    ring.lead(aliases)
    count = ring.send(first)
    told = ring.reports()
    assert count <= 30
    assert len(told) == reports or (not reports and 1 <= len(told) <= 10)
    assert all(subject.startswith("Could not be delivered: ") for subject in told)


@pytest.mark.conformance("C295", "S25")
def test_a_report_that_goes_in_circles_ends_and_nothing_is_told_of_it(ring: Ring) -> None:
    """Its recipient, who was the sender, is a circle; so is the sender of what comes by a circle."""
    ring.lead(
        {
            "echo@one.test": ("echo@two.test",),
            "echo@two.test": ("echo@one.test",),
            "dead@two.test": ("nobody@three.test",),
            "round@three.test": ("round@two.test",),
            "round@two.test": ("round@three.test",),
        }
    )
    assert ring.send("dead@two.test", sender="echo@one.test") <= 5
    assert ring.send("round@three.test", sender="echo@one.test") <= 8
    assert ring.send("echo@one.test", sender="") <= 3
    assert ring.reports() == []


@pytest.mark.conformance("C295")
def test_a_way_without_end_ends_at_a_hundred_hops(ring: Ring) -> None:
    """No alias is passed twice: only the count of Received fields can know."""
    hops = MAX_RECEIVED_FIELDS // 2 + 5
    ring.lead({f"hop{n}@one.test": (f"hop{n}@two.test",) for n in range(hops)})
    ring.lead({f"hop{n}@two.test": (f"hop{n + 1}@one.test",) for n in range(hops)})
    ring.lead({f"hop{hops}@one.test": ("bob@one.test",)})
    ring.reports("bob@one.test")
    count = ring.send("hop0@one.test")
    # The report is written by one house, and may go on to the other.
    assert MAX_RECEIVED_FIELDS + 1 <= count <= MAX_RECEIVED_FIELDS + 2
    assert len(ring.reports()) == 1
    assert ring.reports("bob@one.test") == []
