"""One process of a house, watched: it counts and tells; the first one also answers at the admin door for all."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from posthouse.config import Config
from posthouse.log import Log
from posthouse.mail.world import Clock, Random
from posthouse.metrics import Families, Metrics, exposition, from_octets, to_octets
from posthouse.net import siblings
from posthouse.storage.interfaces import Storage
from posthouse.watch.facts import Facts
from posthouse.watch.readiness import Prover, Pulse, full_disk, late_loop, late_runner
from posthouse.workers import Part

if TYPE_CHECKING:
    from posthouse.web.server import WebServer

CLOSING = "the house is closing"
ANSWER_WITHIN_S = 2.0


class World(Protocol):
    """What a house is handed from outside."""

    @property
    def clock(self) -> Clock: ...
    @property
    def random(self) -> Random: ...


class Runner(Protocol):
    """Who sends on."""

    @property
    def looked_at(self) -> float:
        """When it last looked at the queue, on the monotonic clock."""
        ...


class Doors(Protocol):
    """Who lets in."""

    @property
    def admin(self) -> tuple[socket.socket, ...]:
        """The sockets of the admin door, bound; `Watch.run` closes them."""
        ...

    def turned_away(self) -> Mapping[str, int]: ...


class House(Protocol):
    """What is looked at: its configuration may change, and its runner is there once it serves."""

    @property
    def config(self) -> Config: ...
    @property
    def part(self) -> Part: ...
    @property
    def world(self) -> World: ...
    @property
    def storage(self) -> Storage: ...
    @property
    def doors(self) -> Doors: ...
    @property
    def runner(self) -> Runner: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def log(self) -> Log: ...


class Watch:
    """`run` until `stop`. From `closing` on, the house is not ready."""

    def __init__(self, house: House) -> None:
        self._house = house
        clock, lines = house.world.clock, house.part.lines
        self._clock = clock
        self._lines = lines
        self._pulse = Pulse(clock)
        self._prover = Prover(house.storage, clock)
        self._facts = Facts(house.storage, lambda: house.config, clock, house.log)
        self._answering = siblings.Answering(lines, lambda: to_octets(self._collect()))
        self._asking = asyncio.Lock()
        self._closing = False
        self._stopped = asyncio.Event()
        self._server = self._open_door() if house.part.leads and house.doors.admin else None
        house.metrics.turned_away(house.doors.turned_away)
        house.storage.observe(house.metrics)

    async def run(self) -> None:
        self._answering.open()
        try:
            async with asyncio.TaskGroup() as group:
                background = [group.create_task(self._pulse.run()), group.create_task(self._prover.run())]
                if self._server is not None:
                    group.create_task(self._keep_door(self._server))
                await self._stopped.wait()
                if self._server is not None:
                    self._server.stop()
                for task in background:
                    task.cancel()
        finally:
            self._answering.close()
            for opened in self._house.doors.admin:
                opened.close()

    def closing(self) -> None:
        """Say so to who asks, while sessions end."""
        self._closing = True

    def stop(self) -> None:
        self._stopped.set()

    async def unready(self) -> str | None:
        """Why the house is not ready, in one line; None: it is."""
        async with self._asking:
            answers = await self._ask() if not self._closing else {}
        return await self._unready(answers)

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics, as this `Accept` header wants them, and their media type."""
        async with self._asking:
            answers = await self._ask()
        workers = {siblings.LEADER: True, **{number: number in answers for number in self._lines}}
        ready = await self._unready(answers) is None
        facts = await self._facts.gather(ready=ready, workers=workers)
        parts = {siblings.LEADER: self._collect()}
        parts |= {number: from_octets(answer) for number, answer in sorted(answers.items())}
        return exposition(parts, facts, accept)

    async def _unready(self, answers: dict[int, bytes]) -> str | None:
        if self._closing:
            return CLOSING
        silent = [number for number in self._lines if number not in answers]
        return (
            late_loop(self._pulse.lag_s)
            or await self._prover.problem()
            or await self._full_disk()
            or late_runner(self._clock.monotonic() - self._house.runner.looked_at)
            or (f"worker {silent[0]} does not answer" if silent else None)
        )

    async def _full_disk(self) -> str | None:
        sizes = await self._facts.sizes.get()
        if sizes is None:
            return "nobody can say how much room the disk of data_dir has"
        largest = self._house.config.reception.message_size_octets
        return full_disk(sizes.disk_free_octets, sizes.free_files, largest)

    async def _ask(self) -> dict[int, bytes]:
        token = self._house.world.random.octets(siblings.TOKEN_OCTETS)
        return await siblings.ask(self._lines, token, ANSWER_WITHIN_S)

    def _collect(self) -> Families:
        self._house.metrics.loop_lag.set(self._pulse.worst_lag_s)
        return self._house.metrics.collect()

    def _open_door(self) -> WebServer:
        """Who connects from now on waits in the backlog. Only a house with this door loads a web framework for it."""
        from posthouse.web.operations import operations
        from posthouse.web.server import WebServer

        return WebServer(operations(self, self._house.log), self._house.doors.admin)

    async def _keep_door(self, server: WebServer) -> None:
        """A door that breaks is told, and keeps no mail waiting."""
        try:
            await server.run()
        except Exception:
            self._house.log.exception("admin door broke; mail goes on without it")
