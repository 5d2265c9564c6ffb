"""The queue runner: claims what is due, by destination, and settles what the attempts came to.

A dead destination holds its own places only: due destinations take turns, the longest waiting first, and each
has a bound, so that a million rows for one of them starve nobody.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass

from posthouse.forwarding.bounce import Bouncer, Reports
from posthouse.forwarding.relay import Attempt, Relay
from posthouse.forwarding.schedule import RetrySchedule
from posthouse.forwarding.verdict import Verdict, judge
from posthouse.log import Log
from posthouse.mail.acceptance import Destination
from posthouse.mail.journey import Attempted, JourneyEvent
from posthouse.mail.spool import Claim, Settled, Settlement, SpoolRow
from posthouse.mail.world import Clock, Random
from posthouse.storage.errors import StorageError
from posthouse.storage.interfaces import Storage

POLL_S = 1.0
ROWS_PER_CLAIM = 100
DUE_LIMIT = 200
AFTER_ERROR_S = 5.0
SETTLE_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerLimits:
    """How many attempts at once, in all and for one destination."""

    concurrency: int
    per_destination: int


class QueueRunner:
    """Runs until cancelled. What it was doing then is claimed in storage, and freed when the house is gone."""

    def __init__(
        self,
        storage: Storage,
        relay: Relay,
        bouncer: Bouncer,
        schedule: RetrySchedule,
        limits: RunnerLimits,
        clock: Clock,
        random: Random,
        log: Log,
    ) -> None:
        self._storage = storage
        self._relay = relay
        self._bouncer = bouncer
        self._schedule = schedule
        self._limits = limits
        self._clock = clock
        self._random = random
        self._log = log
        self._running: Counter[Destination] = Counter()
        self._stopping = False

    async def run(self) -> None:
        """Claim and attempt until `stop` and the attempts under way have ended."""
        async with asyncio.TaskGroup() as group:
            while not self._stopping:
                try:
                    claimed = await self._start_due(group)
                except StorageError:
                    self._log.warning("queue cannot be read", exc_info=True)
                    await asyncio.sleep(AFTER_ERROR_S)
                    continue
                if not claimed:
                    await self._storage.changes.wait(POLL_S)

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self._storage.changes.notify()

    async def _start_due(self, group: asyncio.TaskGroup) -> bool:
        """Start one attempt for each due destination with room; whether any was started."""
        if self._running.total() >= self._limits.concurrency:
            return False
        started = False
        for due in await self._storage.spool.due(self._clock.now(), DUE_LIMIT):
            if self._running.total() >= self._limits.concurrency or self._stopping:
                break
            if self._running[due.destination] >= self._limits.per_destination:
                continue
            claim = await self._storage.spool.claim(due.destination, ROWS_PER_CLAIM, self._clock.now())
            if claim is not None:
                self._running[due.destination] += 1
                group.create_task(self._serve(due.destination, claim))
                started = True
        return started

    async def _serve(self, destination: Destination, claim: Claim) -> None:
        """Attempt one claim. An unknown failure defers what is not settled; it never becomes a bounce."""
        settled: set[tuple[str, int]] = set()
        try:
            messages = tuple(_by_message(claim.rows))
            async with aclosing(self._relay.attempt(destination.domain, messages)) as attempts:
                async for attempt in attempts:
                    await self._settle(claim, attempt)
                    settled |= {(row.message.queue_id, row.recipient_number) for row in attempt.rows}
        except Exception:  # noqa: BLE001
            self._log.exception("attempt failed", destination=destination.domain)
            await self._defer_unsettled(claim, settled)
        finally:
            self._running[destination] -= 1
            if not self._running[destination]:
                del self._running[destination]
            self._storage.changes.notify()

    async def _settle(self, claim: Claim, attempt: Attempt) -> None:
        now = self._clock.now()
        verdicts = [
            judge(row, outcome, self._schedule, now, self._random)
            for row, outcome in zip(attempt.rows, attempt.outcomes, strict=True)
        ]
        reports = Reports()
        try:
            await self._bouncer.add_reports(reports, attempt, verdicts, now)
            events = [_event(attempt, verdict, now) for verdict in verdicts]
            settlement = Settlement(
                token=claim.token,
                rows=tuple(verdict.settled for verdict in verdicts),
                generated=tuple(reports.acceptances),
                events=(*events, *reports.events),
            )
            if not await self._settle_surely(settlement):
                self._log.warning("claim was lost", queue_id=attempt.rows[0].message.queue_id)
                return
        finally:
            await reports.discard()
        for verdict in verdicts:
            self._log.info(
                "attempt ended",
                queue_id=verdict.row.message.queue_id,
                forward_path=str(verdict.row.forward_path),
                outcome=verdict.outcome_name,
                next_hop=attempt.next_hop,
                reply=str(verdict.outcome.reply),
                attempt=verdict.row.attempts,
                duration_ms=round(attempt.duration_s * 1000, 1),
            )

    async def _settle_surely(self, settlement: Settlement) -> bool:
        """Settle, and try again while storage is busy: an outcome that is forgotten is an attempt repeated."""
        for _ in range(SETTLE_TRIES - 1):
            try:
                return await self._storage.settle(settlement)
            except StorageError:
                self._log.warning("outcome not written yet", exc_info=True)
                await asyncio.sleep(AFTER_ERROR_S)
        return await self._storage.settle(settlement)

    async def _defer_unsettled(self, claim: Claim, settled: set[tuple[str, int]]) -> None:
        now = self._clock.now()
        interval_s = self._schedule.intervals_s[0]
        for rows in _by_message(claim.rows):
            waiting = [row for row in rows if (row.message.queue_id, row.recipient_number) not in settled]
            settlement = Settlement(
                token=claim.token,
                rows=tuple(
                    Settled(
                        queue_id=row.message.queue_id,
                        recipient_number=row.recipient_number,
                        not_before=now + interval_s,
                        last_reply="451 4.3.0 The attempt failed on our side",
                    )
                    for row in waiting
                ),
            )
            try:
                if settlement.rows:
                    await self._storage.settle(settlement)
            except StorageError:
                # The claim stays ours until the sweep frees what no task works on.
                self._log.warning("outcome not written", queue_id=rows[0].message.queue_id)


def _by_message(rows: Iterable[SpoolRow]) -> list[tuple[SpoolRow, ...]]:
    """Rows that can share a transaction: one message, one reverse-path."""
    groups: dict[tuple[str, str], list[SpoolRow]] = {}
    for row in rows:
        groups.setdefault((row.message.queue_id, str(row.reverse_path)), []).append(row)
    return [tuple(group) for group in groups.values()]


def _event(attempt: Attempt, verdict: Verdict, now: float) -> JourneyEvent:
    return Attempted(
        queue_id=verdict.row.message.queue_id,
        at=now,
        forward_path=str(verdict.row.forward_path),
        outcome=verdict.outcome_name,
        reply=str(verdict.outcome.reply),
        from_peer=verdict.from_peer,
        next_hop=attempt.next_hop,
        address=attempt.address,
        attempt=verdict.row.attempts,
        duration_s=round(attempt.duration_s, 4),
        next_at=verdict.settled.not_before,
        transcript=attempt.transcript,
    )
