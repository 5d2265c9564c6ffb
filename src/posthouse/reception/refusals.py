"""Journeys of mail that was refused: who, from, to, at which command, why. Written beside the sessions, never in them.

A session only puts an event into a bounded list; one task of the house writes some of them each second. What comes
faster than that is counted and not written: a flood of refused mail must cost less than accepted mail.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from posthouse.admission.peer import Peer
from posthouse.log import Log
from posthouse.mail.address import Address, ReversePath
from posthouse.mail.ids import new_queue_id
from posthouse.mail.journey import JourneyEvent, Refused
from posthouse.mail.refusal import refusal_reason
from posthouse.mail.reply import Reply
from posthouse.mail.world import Clock, Random
from posthouse.metrics import Metrics

MOST_WAITING = 1024
MOST_AT_ONCE = 128
"""Events in one commit; there is one each INTERVAL_S."""
INTERVAL_S = 1.0
MOST_RECIPIENTS = 100
"""Forward-paths kept of one refused transaction."""
UNINTERESTING_CODES = frozenset({500, 502, 503, 504})
"""The peer's dialogue was wrong; no mail was judged."""


class Journey(Protocol):
    """Where the events go."""

    async def append(self, events: Sequence[JourneyEvent]) -> None: ...


class Refusals:
    """The list and its writer. `dropped`: how many events were not written."""

    def __init__(
        self, journey: Journey, clock: Clock, random: Random, log: Log, metrics: Metrics | None = None
    ) -> None:
        self._journey = journey
        self._clock = clock
        self._random = random
        self._log = log
        self._metrics = metrics or Metrics()
        self._waiting: deque[Refused] = deque()
        self._came = asyncio.Event()
        self._ending = asyncio.Event()
        self._told = 0
        self.dropped = 0

    def note(
        self,
        *,
        command: str,
        refusal: Reply,
        peer: Peer,
        reverse_path: ReversePath | str,
        forward_paths: tuple[Address, ...],
    ) -> None:
        """Remember a refusal. `reverse_path` "" where none is known, None for the null path."""
        if refusal.code in UNINTERESTING_CODES:
            return
        self._metrics.refused(refusal_reason(refusal, logged_in=peer.account is not None))
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
            return
        now = self._clock.now()
        event = Refused(
            queue_id=new_queue_id(now, self._random),
            at=now,
            command=command,
            reply=str(refusal),
            peer=peer.address,
            hello=peer.hello,
            reverse_path=None if reverse_path == "" else str(reverse_path or ""),
            forward_paths=tuple(map(str, forward_paths[:MOST_RECIPIENTS])),
            login=peer.account.login if peer.account is not None else None,
            session=peer.session,
        )
        self._waiting.append(event)
        self._came.set()

    async def run(self) -> None:
        """Write until `stop`, then what is left."""
        while not self._ending.is_set():
            await self._came.wait()
            self._came.clear()
            await self._write()
            if self._waiting:
                self._came.set()
            # What comes meanwhile is one commit, and a flood is one each interval.
            try:
                async with asyncio.timeout(INTERVAL_S):
                    await self._ending.wait()
            except TimeoutError:
                pass
        while self._waiting:
            await self._write()

    def stop(self) -> None:
        """Write what waits, and end."""
        self._ending.set()
        self._came.set()

    async def _write(self) -> None:
        """Write some. A storage that fails costs these events, not the house."""
        events = [self._waiting.popleft() for _ in range(min(MOST_AT_ONCE, len(self._waiting)))]
        try:
            if events:
                await self._journey.append(events)
        except Exception:  # noqa: BLE001  (told, counted; the house goes on)
            self.dropped += len(events)
            self._log.exception("refusals not written", refusals=len(events))
        if self.dropped > self._told:
            self._log.warning("refusals not written", dropped=self.dropped - self._told)
            self._told = self.dropped
