"""A whole house on loopback for tests: the real `House` in a thread of its own, with real sockets and a real store."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from posthouse.app import House
from posthouse.config import Config, parse
from posthouse.engines import open_storage
from posthouse.identity.hashes import hash_password
from posthouse.log import make_log
from posthouse.mail.address import parse_address
from posthouse.protocol.sasl_scram import derive_keys
from posthouse.storage.interfaces import Storage
from posthouse.world import World

T = TypeVar("T")

PASSWORD = "correct horse"
DOORS = ("smtp", "submission", "pop3")
VERIFIER = hash_password(PASSWORD)


def house_config(folder: Path, hostname: str = "mx.here.test", **tables: Any) -> Config:
    """A configuration with every clear door on a free port of loopback. `tables` are TOML tables, or None."""
    table: dict[str, Any] = {
        "hostname": hostname,
        "data_dir": ".",
        "postmaster": "ada@here.test",
        "listen": {door: ["127.0.0.1:0"] for door in DOORS},
        "auth": {"allow_cleartext": True},
        "forwarding": {"routes": {"*": "127.0.0.1:1"}},
    }
    # No test asks the machine's name servers.
    reception = {"refuse_null_mx_senders": False, "recipients_per_hour": 0, **tables.pop("reception", {})}
    return parse({**table, "reception": reception, **tables}, folder / "posthouse.toml")


async def furnish(config: Config, world: World, people: tuple[str, ...]) -> None:
    """Make the store with these accounts and their domains; each has PASSWORD, which may be proven by SCRAM."""
    storage = await open_storage(config, world, create=True)
    try:
        for domain in dict.fromkeys(person.rpartition("@")[2] for person in people):
            await storage.administration.add_domain(domain)
        for person in people:
            now = world.clock.now()
            await storage.administration.add_account(
                parse_address(person), verifier=VERIFIER, quota_octets=None, now=now
            )
            account = await storage.directory.account(person)
            assert account is not None
            keys = derive_keys(PASSWORD, account.scram_salt, account.scram_iterations)
            await storage.administration.set_password(person, VERIFIER, now, keys)
    finally:
        await storage.close()


class RunningHouse:
    """`with RunningHouse(folder) as house:` — ports in `house.ports`, its storage through `house.ask`."""

    def __init__(
        self,
        folder: Path,
        people: tuple[str, ...] = ("ada@here.test", "bob@here.test"),
        *,
        world: World | None = None,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
        **tables: Any,
    ) -> None:
        self.config = house_config(folder, **tables)
        self.world = world or World()
        self.log = io.StringIO()
        self.ports: dict[str, int] = {}
        self._people = people
        self._loop_factory = loop_factory
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._problem: BaseException | None = None

    def __enter__(self) -> RunningHouse:
        self._thread.start()
        assert self._opened.wait(30), "the house did not open"
        if self._problem is not None:
            raise self._problem
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self.house.stop)
        self._thread.join(30)
        assert not self._thread.is_alive(), "the house did not close"
        if self._problem is not None:
            raise self._problem

    def ask(self, question: Callable[[Storage], Coroutine[Any, Any, T]]) -> T:
        """Ask the house's own storage, on its own loop."""
        return asyncio.run_coroutine_threadsafe(question(self.house.storage), self._loop).result(30)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                runner.run(self._serve())
        except BaseException as exc:
            self._problem = exc
        finally:
            self._opened.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        if not (self.config.data_dir / "posthouse.db").exists():
            await furnish(self.config, self.world, self._people)
        self.house = House(self.config, make_log(self.log, json=True), self.world)
        await self.house.start()
        self.ports = {door: ends[0].port for door, ends in self.house.endpoints.items() if ends}
        await self.house.serve(ready=self._opened.set)
