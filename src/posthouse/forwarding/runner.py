"""The queue runner: claims what is due, by destination, and settles what the attempts came to.

Due destinations take turns: first those with the fewest attempts under way, then those whose last turn is longest ago.
Each has a bound, which is one until a host of it has greeted us, so that a dead destination holds one place however
many rows it has, and starves nobody.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from posthouse.admission.reports import Reports
from posthouse.forwarding.bounce import Bouncer
from posthouse.forwarding.relay import OUR_SIDE, Attempt, Relay, RelaySession
from posthouse.forwarding.schedule import RetrySchedule
from posthouse.forwarding.verdict import Verdict, judge, without_report
from posthouse.log import Log
from posthouse.mail.acceptance import Destination
from posthouse.mail.address import ReversePath
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Attempted, JourneyEvent
from posthouse.mail.outcome import Deferred
from posthouse.mail.spool import Claim, DueDestination, Settled, Settlement, SpoolRow
from posthouse.mail.world import Clock, Random
from posthouse.storage.errors import StorageBusy, StorageError
from posthouse.storage.interfaces import Storage

POLL_S = 1.0
ROWS_PER_CLAIM = 100
DUE_LIMIT = 1000
CLOCK_CHECK_S = 600.0
SETTLE_TRIES = 5


class ReportNotMade(StorageError):
    """A report could not be made now; the outcomes themselves might be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerLimits:
    """How many attempts at once, in all and for one destination, and the pause after an error of storage."""

    concurrency: int
    per_destination: int
    after_error_s: float = 5.0


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
        self._reachable: set[Destination] = set()
        self._turns: dict[Destination, int] = {}
        self._turn = 0
        self._clock_checked_at = -math.inf
        self._stopping = False

    def configure(self, relay: Relay, bouncer: Bouncer, schedule: RetrySchedule, limits: RunnerLimits) -> None:
        """Go on with these; attempts under way end as they began."""
        self._relay = relay
        self._bouncer = bouncer
        self._schedule = schedule
        self._limits = limits

    async def run(self) -> None:
        """Claim and attempt until `stop` and the messages under way have ended."""
        async with asyncio.TaskGroup() as group:
            while not self._stopping:
                try:
                    started = await self.step(group)
                except Exception:  # noqa: BLE001
                    self._log.warning("queue cannot be read", exc_info=True)
                    await asyncio.sleep(self._limits.after_error_s)
                    continue
                if not started:
                    await self._storage.changes.wait(POLL_S)

    def stop(self) -> None:
        """Begin no further message."""
        self._stopping = True
        self._storage.changes.notify()

    async def step(self, group: asyncio.TaskGroup) -> bool:
        """Start one claim of each due destination that has room, as a task; whether any was started."""
        if self._running.total() >= self._limits.concurrency:
            return False
        now = self._clock.now()
        due = await self._storage.spool.due(now, DUE_LIMIT)
        started = await self._start(group, due, now)
        if await self._start(group, await self._put_off_too_far(now), math.inf):
            started = True
        self._forget_idle(due)
        return started

    async def _start(self, group: asyncio.TaskGroup, due: Sequence[DueDestination], until: float) -> bool:
        """Claim rows whose `not_before` is not after `until`."""
        started = False
        for destination in self._in_turn(due):
            if self._running.total() >= self._limits.concurrency or self._stopping:
                break
            if not self._has_room(destination):
                continue
            claim = await self._storage.spool.claim(destination, ROWS_PER_CLAIM, until)
            if claim is not None:
                self._turn += 1
                self._turns[destination] = self._turn
                self._running[destination] += 1
                group.create_task(self._serve(destination, claim))
                started = True
        return started

    def _in_turn(self, due: Sequence[DueDestination]) -> list[Destination]:
        in_turn = sorted(
            due,
            key=lambda each: (
                self._running[each.destination],
                self._turns.get(each.destination, 0),
                each.oldest_not_before,
            ),
        )
        return [each.destination for each in in_turn]

    def _has_room(self, destination: Destination) -> bool:
        bound = self._limits.per_destination if destination in self._reachable else 1
        return self._running[destination] < bound

    async def _put_off_too_far(self, now: float) -> tuple[DueDestination, ...]:
        """Destinations whose rows all wait longer than the schedule ever says: the clock was wrong, they are due.

        Looked for when starting and then from time to time.
        """
        if self._clock.monotonic() - self._clock_checked_at < CLOCK_CHECK_S:
            return ()
        self._clock_checked_at = self._clock.monotonic()
        waiting = await self._storage.spool.due(math.inf, DUE_LIMIT)
        return tuple(each for each in waiting if each.oldest_not_before > now + self._schedule.longest_s)

    def _forget_idle(self, due: Sequence[DueDestination]) -> None:
        """Keep what is remembered of destinations to those that are due or attempted."""
        kept = {each.destination for each in due} | set(self._running)
        self._reachable &= kept
        for destination in self._turns.keys() - kept:
            del self._turns[destination]

    async def _serve(self, destination: Destination, claim: Claim) -> None:
        """Attempt one claim. An unknown failure defers what is not settled; it never becomes a bounce."""
        waiting = by_message(claim.rows)
        session = self._relay.session(destination.domain, lambda: self._reached(destination))
        try:
            # When stopping, the rest stays claimed until storage is closed, which frees it.
            while waiting and not self._stopping:
                attempt = await self._attempt(session, waiting[0])
                if not await self._settle(claim, attempt):
                    await self._give_back(claim, waiting, self._clock.now())
                    return
                del waiting[0]
            await session.close()
        except Exception:  # noqa: BLE001
            self._log.exception("attempt failed", destination=destination.domain)
            await self._give_back(claim, waiting, self._clock.now() + self._schedule.intervals_s[0])
        finally:
            session.abort()
            if not session.has_reached:
                self._reachable.discard(destination)
            self._running[destination] -= 1
            if not self._running[destination]:
                del self._running[destination]
            self._storage.changes.notify()

    def _reached(self, destination: Destination) -> None:
        self._reachable.add(destination)
        self._storage.changes.notify()

    async def _attempt(self, session: RelaySession, rows: tuple[SpoolRow, ...]) -> Attempt:
        started = self._clock.monotonic()
        try:
            return await session.attempt(rows)
        except Exception:  # noqa: BLE001
            self._log.exception("attempt failed", queue_id=rows[0].message.queue_id)
            session.abort()
            return Attempt(
                rows=rows,
                outcomes=(Deferred(OUR_SIDE, from_peer=False),) * len(rows),
                next_hop="",
                address="",
                duration_s=self._clock.monotonic() - started,
            )

    async def _settle(self, claim: Claim, attempt: Attempt) -> bool:
        """Write what became of an attempt, however long storage takes; False: the claim was lost."""
        now = self._clock.now()
        verdicts = [
            judge(row, outcome, self._schedule, now, self._random, reports_passed_on=attempt.reports_passed_on)
            for row, outcome in zip(attempt.rows, attempt.outcomes, strict=True)
        ]
        verdicts = self._bouncer.in_pace(verdicts, now)
        settled: bool | None = None
        tries = 0
        while settled is None:
            try:
                settled = await self._write(claim, attempt, verdicts, now)
            except Exception as exc:  # noqa: BLE001
                # An outcome that is forgotten is an attempt repeated: it is written again and again. A report that
                # cannot be written must not stand in the way of the others' outcomes; storage that takes nothing
                # at all now says nothing against the report.
                self._log.warning("outcome not written yet", exc_info=True)
                tries += not isinstance(exc, StorageBusy)
                if tries >= SETTLE_TRIES or not isinstance(exc, StorageError):
                    verdicts = [without_report(verdict, self._schedule, now) for verdict in verdicts]
                await asyncio.sleep(self._limits.after_error_s)
        if not settled:
            self._log.warning("claim was lost", queue_id=attempt.rows[0].message.queue_id)
            return False
        for verdict in verdicts:
            self._tell(attempt, verdict)
        return True

    async def _write(self, claim: Claim, attempt: Attempt, verdicts: Sequence[Verdict], now: float) -> bool:
        reports = Reports()
        try:
            try:
                await self._bouncer.add_reports(reports, attempt, verdicts, now)
            except StorageBusy as exc:
                raise ReportNotMade from exc
            settlement = Settlement(
                token=claim.token,
                rows=tuple(verdict.settled for verdict in verdicts),
                generated=tuple(reports.acceptances),
                events=(*_events(attempt, verdicts, now), *reports.events),
            )
            return await self._storage.settle(settlement)
        finally:
            await reports.discard()

    async def _give_back(self, claim: Claim, waiting: Iterable[tuple[SpoolRow, ...]], not_before: float) -> None:
        """Release the rows that were not settled; those that are not ours any more stay as they are."""
        for row in [row for rows in waiting for row in rows]:
            settled = Settled(
                queue_id=row.message.queue_id,
                recipient_number=row.recipient_number,
                not_before=not_before,
                last_reply=row.last_reply or str(OUR_SIDE),
            )
            released = False
            while not released:
                try:
                    await self._storage.settle(Settlement(token=claim.token, rows=(settled,)))
                    released = True
                except Exception:  # noqa: BLE001
                    self._log.warning("claim not released yet", exc_info=True)
                    await asyncio.sleep(self._limits.after_error_s)

    def _tell(self, attempt: Attempt, verdict: Verdict) -> None:
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


def by_message(rows: Iterable[SpoolRow]) -> list[tuple[SpoolRow, ...]]:
    """Rows that can share a transaction: one message, one reverse-path, each in its order."""
    groups: dict[tuple[QueueId, ReversePath], list[SpoolRow]] = {}
    for row in rows:
        groups.setdefault((row.message.queue_id, row.reverse_path), []).append(row)
    return [tuple(group) for group in groups.values()]


def _events(attempt: Attempt, verdicts: Sequence[Verdict], now: float) -> list[JourneyEvent]:
    """One event for each recipient. The dialogue stands in the first only: it is the same for all of them."""
    return [
        Attempted(
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
            transcript=attempt.transcript if index == 0 else (),
        )
        for index, verdict in enumerate(verdicts)
    ]
