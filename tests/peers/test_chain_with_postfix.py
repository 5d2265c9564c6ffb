"""A house, Postfix and another house in a row, all of them stopped or killed again and again: nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.house.chain import (
    CONNECTIONS,
    MESSAGES,
    Account,
    Reader,
    Station,
    dying,
    send_all,
    until_all_is_read,
)
from tests.house.served import ServedHouse
from tests.house.test_chain import ADA, GONE, PEOPLE, forwarding, queue_length, until
from tests.peers.postfix import PostfixServer
from tests.peers.programs import free_port

pytestmark = [pytest.mark.peers, pytest.mark.long]

KILLS_OF_EACH = 3
FIELDS_OF_POSTFIX = 1
"""Received fields that Postfix adds to what passes through it; to its own reports as well."""


@contextmanager
def houses(folder: Path, postfix: PostfixServer) -> Iterator[tuple[ServedHouse, ServedHouse]]:
    """A sends everything to Postfix, and C has the maildrops; Postfix knows where Ada lives."""
    ports = {name: free_port() for name in "ac"}
    postfix.relay("a.test", ports["a"])
    postfix.relay("c.test", ports["c"])
    postfix.set("default_destination_concurrency_limit", str(CONNECTIONS))
    postfix.set("local_header_rewrite_clients", "")
    people = {"a": (ADA,), "c": PEOPLE}
    with ExitStack() as running:
        made = []
        for name in "ac":
            (folder / name).mkdir()
            house = ServedHouse(
                folder / name,
                people[name],
                forwarding({"*": postfix.port}),
                hostname=f"mx.{name}.test",
                fixed_ports={"smtp": ports[name]},
            )
            made.append(running.enter_context(house))
        yield made[0], made[1]


def recipient(_serial: int, exists: bool, chance: random.Random) -> str:
    return chance.choice(PEOPLE if exists else GONE)


@pytest.mark.conformance("C103")
def test_a_chain_with_postfix_loses_nothing(
    new_postfix: Callable[[str], PostfixServer], tmp_path: Path, seed: int
) -> None:
    print(f"seed {seed}, {MESSAGES} messages")
    account, chance = Account(), random.Random(seed)
    postfix = new_postfix("mx.b.test")
    with houses(tmp_path, postfix) as (a, c):
        postfix.start()
        a.start()
        c.start()
        stations = [
            Station("a", a.kill, a.start),
            Station("postfix", postfix.stop, postfix.start),
            Station("c", c.kill, c.start),
        ]
        with dying(stations, account, chance):
            send_all(a.ports["smtp"], account, recipient, ADA, seed)
            until(lambda: min(account.kills[each.name] for each in stations) >= KILLS_OF_EACH, "too few kills")
        arrived = [Reader(person, lambda: c.ports["pop3"]) for person in PEOPLE]
        returned = Reader(ADA, lambda: a.ports["pop3"])
        until_all_is_read(account, arrived, returned)
        for _ in range(2):
            until(lambda: not (queue_length(a) or queue_length(c) or postfix.queue()), "the queues are not empty")
        for reader in (*arrived, returned):
            reader.read_on()
    account.check(arrived, returned, most_received=3 + FIELDS_OF_POSTFIX)
