"""Messages on their way from a POP3 server into the store: many are committed together while the next ones come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from posthouse.admission.collected import plan_collected
from posthouse.collection.fingerprint import fingerprint
from posthouse.collection.listing import Listed
from posthouse.mail.acceptance import Collected
from posthouse.mail.content import ContentScanner
from posthouse.mail.ids import new_queue_id
from posthouse.mail.source import Source
from posthouse.mail.words import size
from posthouse.mail.world import Clock, Random
from posthouse.net.pop3_connection import Begun, Missing, Pop3Connection, Pop3Failed, Whole
from posthouse.storage.errors import StorageError
from posthouse.storage.interfaces import Draft, Storage

COMMITS = 64
"""Messages that wait for their commit while further ones come."""


Hear = Callable[[int, int, int, int], None]
"""Told how far it is: messages and octets committed, and messages and octets in all, as the server says."""


class TooLarge(Exception):
    """The server goes on and on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What collecting needs of the house that it is for."""

    storage: Storage
    clock: Clock
    random: Random
    hostname: str
    largest_octets: int


@dataclass(slots=True)
class Intake:
    """Takes messages of one session. `missing`: what the server would not give, and why, by name."""

    house: House
    source: Source
    login: str
    hear: Hear | None = None
    collected: int = 0
    octets: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    _failed: StorageError | None = None
    _total: tuple[int, int] = (0, 0)

    async def take(self, connection: Pop3Connection, fetch: Sequence[Listed]) -> None:
        """Fetch and commit them; all are durable when this returns.

        Raises Pop3Failed, StorageError, TooLarge; whatever had come whole until then is durable, too.
        """
        wanted = {each.number: each for each in fetch}
        self._total = len(fetch), sum(each.size_octets for each in fetch)
        broken: Exception | None = None
        async with asyncio.TaskGroup() as commits:
            try:
                await self._fetch(connection, wanted, commits)
            except (Pop3Failed, TooLarge, StorageError) as exc:
                broken = exc
        if self._failed is not None:
            raise self._failed
        if broken is not None:
            raise broken

    async def _fetch(
        self, connection: Pop3Connection, wanted: Mapping[int, Listed], commits: asyncio.TaskGroup
    ) -> None:
        room = asyncio.Semaphore(COMMITS)
        draft: Draft | None = None
        scanner = ContentScanner(lenient=True)
        events = connection.retrieve_all(list(wanted))
        try:
            async for event in events:
                match event:
                    case bytes():
                        assert draft is not None
                        scanner.feed(event)
                        await draft.write(event)
                        if draft.size_octets > self.house.largest_octets:
                            raise TooLarge(f"a message is larger than {size(self.house.largest_octets)}")
                    case Begun():
                        draft, scanner = await self.house.storage.content.draft(), ContentScanner(lenient=True)
                    case Whole(number=number):
                        assert draft is not None
                        await room.acquire()
                        if self._failed is not None:
                            return
                        task = commits.create_task(self._commit(draft, scanner, wanted[number]))
                        draft = None
                        task.add_done_callback(lambda _task: room.release())
                    case Missing(number=number, text=text):
                        self.missing[wanted[number].name] = text
        finally:
            await events.aclose()
            if draft is not None:
                await draft.discard()

    async def _commit(self, draft: Draft, scanner: ContentScanner, listed: Listed) -> None:
        try:
            content = await draft.seal(scanner.facts())
            now = self.house.clock.now()
            acceptance = plan_collected(
                self.source,
                self.login,
                content,
                Collected(self.source.source, listed.name, listed.size_octets, fingerprint(scanner.header)),
                hostname=self.house.hostname,
                queue_id=new_queue_id(now, self.house.random),
                now=now,
            )
            await self.house.storage.accept(acceptance)
        except StorageError as exc:
            # The others may be committed all the same; the session ends.
            self._failed = exc
            return
        finally:
            await draft.discard()
        self.collected += 1
        self.octets += content.size_octets
        if self.hear is not None:
            self.hear(self.collected, self.octets, *self._total)
