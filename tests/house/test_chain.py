"""Three houses in a row, each killed again and again while mail goes through them: nothing is lost on the way."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from posthouse.config import load
from posthouse.engines import open_storage
from posthouse.mail.address import parse_address
from posthouse.world import World
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
from tests.peers.programs import free_port

ADA = "ada@a.test"
PEOPLE = tuple(f"r{number}@c.test" for number in range(4))
GONE = tuple(f"gone{number}@c.test" for number in range(4))
KILLS_OF_EACH = 3


def forwarding(routes: dict[str, int]) -> str:
    """The tables of a house that relays for this machine and tries again at once."""
    hops = ", ".join(f'"{domain}" = "127.0.0.1:{port}"' for domain, port in routes.items())
    return (
        '[reception]\ntrusted_networks = ["127.0.0.0/8"]\n[forwarding]\nretry = ["200ms"]\n'
        # Ada gets more reports than a person would.
        "reports_per_minute = 100_000\n"
        f"concurrency_per_destination = {CONNECTIONS}\nroutes = {{ {hops} }}\n"
    )


def add_aliases(house: ServedHouse, domain: str, aliases: dict[str, str]) -> None:
    """Addresses of a house, not running, that lead elsewhere."""

    async def add() -> None:
        storage = await open_storage(load(house.folder / "posthouse.toml"), World())
        try:
            if domain not in await storage.administration.domains():
                await storage.administration.add_domain(domain)
            for address, target in aliases.items():
                await storage.administration.add_alias(parse_address(address), [parse_address(target)])
        finally:
            await storage.close()

    asyncio.run(add())


def queue_length(house: ServedHouse) -> int:
    """As `posthouse queue` sees it, beside the house."""

    async def count() -> int:
        storage = await open_storage(load(house.folder / "posthouse.toml"), World())
        try:
            return await storage.spool.count()
        finally:
            await storage.close()

    return asyncio.run(count())


def until(condition: Callable[[], bool], reason: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, reason
        time.sleep(0.1)


def over_b(address: str) -> str:
    """An address of c.test by way of its alias at `b.test`."""
    return address.replace("@c.", "@b.")


@contextmanager
def houses(folder: Path) -> Iterator[tuple[ServedHouse, ServedHouse, ServedHouse]]:
    """A knows Ada, and aliases that lead to B; B has aliases that lead to C; C has the maildrops."""
    ports = {name: free_port() for name in "abc"}
    routes = {"a": {"*": ports["b"]}, "b": {"a.test": ports["a"], "*": ports["c"]}, "c": {"*": ports["b"]}}
    people = {"a": (ADA,), "b": ("bo@b.test",), "c": PEOPLE}
    with ExitStack() as running:
        made = {}
        for name in "abc":
            (folder / name).mkdir()
            made[name] = running.enter_context(
                ServedHouse(
                    folder / name,
                    people[name],
                    forwarding(routes[name]),
                    hostname=f"mx.{name}.test",
                    fixed_ports={"smtp": ports[name]},
                )
            )
        everybody = (*PEOPLE, *GONE)
        add_aliases(made["a"], "a.test", {address.replace("@c.", "@a."): over_b(address) for address in everybody})
        add_aliases(made["b"], "b.test", {over_b(address): address for address in everybody})
        yield made["a"], made["b"], made["c"]


def recipient(serial: int, exists: bool, chance: random.Random) -> str:
    """By the aliases of A and B, by those of B, or straight on."""
    address = chance.choice(PEOPLE if exists else GONE)
    return chance.choice((address, over_b(address), address.replace("@c.", "@a.")))


@pytest.mark.conformance("C103")
@pytest.mark.long
def test_a_chain_of_houses_loses_nothing(tmp_path: Path, seed: int) -> None:
    print(f"seed {seed}, {MESSAGES} messages")
    account, chance = Account(), random.Random(seed)
    with houses(tmp_path) as chain:
        a, _, c = chain
        for house in chain:
            house.start()
        stations = [Station(name, house.kill, house.start) for name, house in zip("abc", chain, strict=True)]
        with dying(stations, account, chance):
            send_all(a.ports["smtp"], account, recipient, ADA, seed)
            until(lambda: min(account.kills[each.name] for each in stations) >= KILLS_OF_EACH, "too few kills")
        arrived = [Reader(person, lambda: c.ports["pop3"]) for person in PEOPLE]
        returned = Reader(ADA, lambda: a.ports["pop3"])
        until_all_is_read(account, arrived, returned)
        # Second copies may still be on their way, and between two looks.
        for _ in range(2):
            until(lambda: not any(queue_length(house) for house in chain), "the queues did not become empty")
        for reader in (*arrived, returned):
            reader.read_on()
    account.check(arrived, returned, most_received=4)
