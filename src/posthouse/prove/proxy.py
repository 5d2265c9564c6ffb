"""A TCP proxy that breaks what passes: cut, reset, dribbled, half-closed, stopped, at an octet or at a final dot."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from posthouse.prove.wire import reset

PIECE_OCTETS = 64 * 1024
DRIBBLED_OCTETS = 400
"""So many octets of a connection dribble; then it is quick again."""
_TAIL_OCTETS = 64


class Harm(StrEnum):
    """What is done to a connection."""

    CUT = "cut"
    RESET = "reset"
    HALF_CLOSE = "half-closed"
    STOP = "stopped"
    DRIBBLE = "dribbled"
    LOSE_END = "cut before the end"
    """The final dot (or QUIT) does not arrive."""
    LOSE_ANSWER = "answer lost"
    """It arrives, and what is answered does not."""
    LOSE_BOTH = "reset at the end"
    """It arrives, and both sides find the connection reset."""
    STOP_AT_END = "stopped at the end"
    TEAR_ANSWER = "answer torn"
    """Of what is answered the first octets arrive."""


AT_OCTET = (Harm.CUT, Harm.RESET, Harm.HALF_CLOSE, Harm.STOP, Harm.DRIBBLE)
AT_END = (Harm.LOSE_END, Harm.LOSE_ANSWER, Harm.LOSE_BOTH, Harm.STOP_AT_END, Harm.TEAR_ANSWER)


@dataclass(slots=True, eq=False)
class Link:
    """One connection through the proxy, and what is to happen to it. `after`: octets towards `down` or not."""

    harm: Harm | None
    down: bool = False
    after: int = 0
    stop_s: float = 0.0
    ends_before: int = 0
    """Ends (final dots) that pass unharmed first."""
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    answer_octets: int | None = None
    """How many octets may still go down; None: any number."""
    torn: bool = False
    """It is cut when they have."""
    done: bool = False

    def reset(self) -> None:
        """Both sides find the connection broken."""
        self.done = True
        for writer in self.writers:
            reset(writer)

    def cut(self) -> None:
        """Both sides read the end of the stream, after what was on its way."""
        self.done = True
        for writer in self.writers:
            writer.close()


@dataclass(slots=True, eq=False)
class Proxy:
    """One port that leads to another; `share` of its connections are harmed. `mark`: what ends a promise upwards."""

    target: int
    mark: re.Pattern[bytes]
    name: str
    happened: Callable[[str], None]
    port: int = 0
    share: float = 0.0
    seed: str = ""
    _number: int = 0
    _links: set[Link] = field(default_factory=set)
    _flows: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None

    async def open(self) -> None:
        self._flows.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def set_harm(self, share: float, seed: str) -> None:
        """What happens to connections from now on: the same seed, the same harm to the n-th of them."""
        self.share, self.seed, self._number = share, seed, 0

    async def stop_for(self, seconds: float) -> None:
        """Nothing passes for so long."""
        self._flows.clear()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._flows.set()

    def reset_all(self) -> None:
        """Break every connection there is."""
        for link in list(self._links):
            link.reset()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._flows.set()
        self.reset_all()

    def _choose(self) -> Link:
        self._number += 1
        chance = random.Random(f"{self.seed}/{self.name}/{self._number}")
        if chance.random() >= self.share:
            return Link(None)
        harm = chance.choice(AT_OCTET if chance.random() < 0.4 else AT_END)
        return Link(
            harm,
            down=chance.random() < 0.5,
            after=int(10 ** chance.uniform(0, 5)),
            stop_s=chance.uniform(0.3, 2.5),
            ends_before=chance.choice((0, 0, 1, 2, 5)),
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = self._choose()
        link.writers.append(writer)
        self._links.add(link)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            link.reset()
            self._links.discard(link)
            return
        link.writers.append(up_writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(link, reader, up_writer, down=False))
                group.create_task(self._pump(link, up_reader, writer, down=True))
        finally:
            link.cut()
            self._links.discard(link)

    async def _pump(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, down: bool
    ) -> None:
        passage = _Passage(self, link, writer, down)
        try:
            while not link.done and (octets := await reader.read(PIECE_OCTETS)):
                await passage.take(octets)
            if not link.done:
                await self._flows.wait()
                writer.write_eof()
        except (OSError, RuntimeError):
            # What one side sees, the other one does. (RuntimeError is how uvloop says that a connection is closed.)
            link.reset()

    async def flow(self) -> None:
        """Returns when something may pass."""
        await self._flows.wait()


class _Passage:
    """One direction of one link."""

    def __init__(self, proxy: Proxy, link: Link, writer: asyncio.StreamWriter, down: bool) -> None:
        self._proxy = proxy
        self._link = link
        self._writer = writer
        self._down = down
        self._passed = 0
        self._tail = b""
        self._deaf = False

    async def take(self, octets: bytes) -> None:
        """Pass octets on, up to where harm is done, and do it."""
        link = self._link
        if self._deaf:
            return
        if self._down and link.answer_octets is not None:
            await self._answer(octets, link.answer_octets)
            return
        if not self._down and link.harm in AT_END:
            await self._to_end(octets)
            return
        if link.harm is None or link.harm in AT_END or link.down != self._down:
            await self._pass(octets)
            return
        if link.harm is Harm.DRIBBLE:
            await self._dribble(octets)
            return
        left = link.after - self._passed
        await self._pass(octets[:left] if left > 0 else b"")
        if left < len(octets) and not link.done:
            await self._at_octet(octets[max(0, left) :])

    async def _at_octet(self, rest: bytes) -> None:
        link = self._link
        harm, link.harm = link.harm, None
        self._tell(harm)
        match harm:
            case Harm.CUT:
                link.cut()
            case Harm.RESET:
                link.reset()
            case Harm.HALF_CLOSE:
                # Whoever is behind us hears an end; the other direction goes on, and what still comes is lost.
                self._writer.write_eof()
                self._deaf = True
            case _:
                await asyncio.sleep(link.stop_s)
                await self._pass(rest)

    async def _to_end(self, octets: bytes) -> None:
        """Upwards, for harm at the end of content, or at QUIT."""
        link = self._link
        begin = len(self._tail)
        seen = self._tail + octets
        self._tail = seen[-_TAIL_OCTETS:]
        for found in self._proxy.mark.finditer(seen):
            if found.end() <= begin:
                continue
            if link.ends_before:
                link.ends_before -= 1
                continue
            await self._at_end(octets, max(0, found.end() - begin - 3))
            return
        await self._pass(octets)

    async def _at_end(self, octets: bytes, last: int) -> None:
        """`last`: where in `octets` the last three octets of the mark begin."""
        link = self._link
        harm, link.harm = link.harm, None
        self._tell(harm)
        match harm:
            case Harm.LOSE_END:
                await self._pass(octets[:last])
                link.cut()
            case Harm.LOSE_ANSWER:
                link.answer_octets = 0
                await self._pass(octets)
                await asyncio.sleep(link.stop_s)
                link.cut()
            case Harm.LOSE_BOTH:
                await self._pass(octets)
                link.reset()
            case Harm.TEAR_ANSWER:
                link.torn, link.answer_octets = True, 1 + link.after % 20
                await self._pass(octets)
            case _:
                await self._pass(octets[:last])
                await asyncio.sleep(link.stop_s)
                await self._pass(octets[last:])

    async def _answer(self, octets: bytes, left: int) -> None:
        """Downwards, after harm at the end."""
        await self._pass(octets[:left])
        self._link.answer_octets = 0
        if self._link.torn:
            self._link.cut()

    async def _dribble(self, octets: bytes) -> None:
        if not self._passed:
            self._tell(Harm.DRIBBLE)
        at = 0
        while at < len(octets) and self._passed < DRIBBLED_OCTETS:
            step = 1 + self._passed % 7
            await self._pass(octets[at : at + step])
            at += step
            await asyncio.sleep(0.002)
        await self._pass(octets[at:])

    async def _pass(self, octets: bytes) -> None:
        if octets and not self._link.done:
            await self._proxy.flow()
            self._writer.write(octets)
            await self._writer.drain()
            self._passed += len(octets)

    def _tell(self, harm: Harm | None) -> None:
        at_end = harm in AT_END
        direction = "" if at_end else " down" if self._down else " up"
        self._proxy.happened(f"{self._proxy.name}: {harm}{direction}")
