"""Readers: POP3 sessions that read, delete, break off, and the one that compares a whole maildrop with the ledger."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

from posthouse.prove.ledger import Ledger
from posthouse.prove.wire import Gone, NotShown, Wire, connected

PAUSE_S = 0.05
READ_AT_ONCE = 8
KEPT = 60
"""Entries that a check leaves in a maildrop, so that maildrops do not grow with the run."""
READ_AGAIN = 5
"""Entries that a check reads though they were read before."""
PATIENCE_S = 30.0


@dataclass(slots=True)
class Reader:
    """One program that reads one maildrop until it is told to stop."""

    ledger: Ledger
    port: int
    maildrop: str
    password: str
    chance: random.Random
    stopping: asyncio.Event

    async def run(self) -> None:
        """Sessions, one after the other."""
        while not self.stopping.is_set():
            try:
                async with connected(self.port) as wire:
                    if await wire.login(self.maildrop, self.password):
                        await self._visit(wire)
            except (Gone, NotShown):
                # (A check finds out whether it is shown later.)
                pass
            await asyncio.sleep(self.chance.uniform(PAUSE_S, 4 * PAUSE_S))

    async def _visit(self, wire: Wire) -> None:
        chance = self.chance
        uidls = await wire.scan("UIDL")
        self.ledger.listed(self.maildrop, uidls)
        sizes = await wire.scan("LIST")
        marked: list[str] = []
        for index in chance.sample(range(len(uidls)), min(len(uidls), chance.randrange(READ_AT_ONCE + 1))):
            octets = await wire.retrieve(index + 1)
            self.ledger.retrieved(self.maildrop, uidls[index], octets, int(sizes[index]))
            if chance.random() < 0.7 and await wire.status(f"DELE {index + 1}"):
                marked.append(uidls[index])
        dice = chance.random()
        if self.stopping.is_set() or dice < 0.2:
            # Broken off before QUIT: nothing may be deleted.
            return
        if dice < 0.25 and await wire.status("RSET"):
            marked.clear()
        await quit_and_note(wire, self.ledger, self.maildrop, marked)


async def quit_and_note(wire: Wire, ledger: Ledger, maildrop: str, marked: list[str]) -> None:
    """QUIT, with the promise in it. Raises Gone."""
    ledger.leave(maildrop, marked)
    if await wire.status("QUIT"):
        ledger.left(maildrop, marked)


async def compare(ledger: Ledger, port: int, maildrop: str, password: str, chance: random.Random) -> None:
    """Read what nobody has read yet of a maildrop, compare the whole, delete some. Raises Gone."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        async with connected(port) as wire:
            if await wire.login(maildrop, password):
                await _compare(wire, ledger, maildrop, chance)
                return
        # A session from before still holds the maildrop.
        await asyncio.sleep(PAUSE_S)
    raise Gone(f"{maildrop} could not be opened for {PATIENCE_S:.0f} s")


async def _compare(wire: Wire, ledger: Ledger, maildrop: str, chance: random.Random) -> None:
    uidls = await wire.scan("UIDL")
    sizes = await wire.scan("LIST")
    to_read = set(ledger.unread(maildrop, uidls))
    to_read |= set(chance.sample(uidls, min(len(uidls), READ_AGAIN)))
    for number, uidl in enumerate(uidls, 1):
        if uidl in to_read:
            try:
                octets = await wire.retrieve(number)
            except NotShown:
                ledger.not_shown(maildrop, uidl)
            else:
                ledger.retrieved(maildrop, uidl, octets, int(sizes[number - 1]))
    ledger.compare(maildrop, uidls)
    surplus = chance.sample(range(len(uidls)), max(0, len(uidls) - KEPT))
    marked = [uidls[index] for index in surplus if await wire.status(f"DELE {index + 1}")]
    await quit_and_note(wire, ledger, maildrop, marked)
