"""What is looked at after each recovery: maildrops by POP3, the queue, journeys, each row and octet of the store."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from posthouse.config import load
from posthouse.engines import open_storage
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Accepted, Placed, Queued, Reported, kind_of, to_json
from posthouse.mail.spool import Action
from posthouse.prove.houses import SENDER, Town
from posthouse.prove.ledger import NOBODY, Ledger
from posthouse.prove.readers import compare
from posthouse.storage.interfaces import Storage
from posthouse.storage.upkeep import Retention
from posthouse.trial.house import TrialHouse
from posthouse.world import World

WAITING_ROWS = 1_000_000
SWEPT_S = 25 * 3600.0
"""A message that nothing refers to is kept for a day."""
JOURNEYS_KEPT_S = 1800.0


@dataclass(slots=True)
class Inspector:
    """Compares the houses with the ledger, while nobody sends."""

    town: Town
    ledger: Ledger
    chance: random.Random = field(default_factory=random.Random)

    async def look(self) -> None:
        """One check of everything. Raises Gone, TimeoutError, StorageError where a house cannot be asked."""
        async with _opened(self.town.house) as storage:
            # First what waits: what leaves the queue meanwhile is at the neighbour by then.
            rows = await storage.spool.list(WAITING_ROWS)
            waiting = {(str(row.forward_path), str(row.message.queue_id)) for row in rows}
            for house in self.town.houses:
                for person, password in house.passwords.items():
                    await compare(self.ledger, house.pop3, f"{person}@{house.name}", password, self.chance)
            await self._find_owed(storage, waiting)
            self.ledger.judge()
            await self._read_journeys(storage)
            await self._check_store(self.town.house, storage)
        async with _opened(self.town.neighbour) as storage:
            await self._check_store(self.town.neighbour, storage)

    async def waiting(self) -> int:
        """How many recipients wait in the house's queue."""
        async with _opened(self.town.house) as storage:
            return await storage.spool.count()

    async def hurry(self) -> None:
        """Try all that waits again, at once."""
        async with _opened(self.town.house) as storage:
            await storage.spool.operate(Action.RETRY, (), "prove")

    async def journey(self, queue_id: str) -> list[str]:
        """What the houses know of a message, one line for each event."""
        lines = []
        for house in self.town.houses if queue_id else ():
            async with _opened(house) as storage:
                for event in await storage.journey.read(QueueId(queue_id)):
                    lines.append(f"{house.name}: {event.at:.3f} {kind_of(event)} {to_json(event)}")
        return lines

    async def _find_owed(self, storage: Storage, waiting: set[tuple[str, str]]) -> None:
        """What is owed to the neighbour's people waits, or has arrived, or its report waits or has arrived."""
        reports = {queue_id for recipient, queue_id in waiting if recipient == f"{SENDER}@{self.town.neighbour.name}"}
        for recipient, queue_id in self.ledger.owing(waiting):
            if recipient == NOBODY and await self._reported(storage, queue_id) in reports:
                continue
            self.ledger.lose(recipient, queue_id)

    async def _reported(self, storage: Storage, queue_id: str) -> str | None:
        for event in await storage.journey.read(QueueId(queue_id)):
            if isinstance(event, Reported) and event.action == "failed":
                return event.report_queue_id
        return None

    async def _read_journeys(self, storage: Storage) -> None:
        """Each acknowledged message has a journey that begins with it, and names each recipient."""
        for letter in self.ledger.letters.values():
            for queue_id in letter.acknowledged:
                if letter.written_in != self.ledger.round:
                    continue
                events = await storage.journey.read(QueueId(queue_id))
                named = {event.forward_path for event in events if isinstance(event, Placed | Queued)}
                accepted = [event for event in events if isinstance(event, Accepted)]
                if len(accepted) != 1 or not named.issuperset(accepted[0].forward_paths):
                    self.town.troubles.append(f"the journey of {queue_id} does not tell all: {events!r}")

    async def _check_store(self, house: TrialHouse, storage: Storage) -> None:
        """As `posthouse check --store`; then what nobody needs is swept away as if a day had passed."""
        async for flaw in storage.check():
            if not flaw.note:
                self.town.troubles.append(f"{house.name}: check --store: {flaw.check}: {flaw.what}")
        retention = Retention(journeys_s=SWEPT_S + JOURNEYS_KEPT_S, refused_s=SWEPT_S, refused_limit=1000)
        await storage.sweep(time.time() + SWEPT_S, retention)


@asynccontextmanager
async def _opened(house: TrialHouse) -> AsyncGenerator[Storage, None]:
    """Its store, beside the house that serves it."""
    storage = await open_storage(load(house.config), World())
    try:
        yield storage
    finally:
        await storage.close()
