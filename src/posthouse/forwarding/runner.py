"""The queue runner: claims what is due, by destination, and has the attempts settled.

Due destinations take turns: first those with the fewest claims under way, then those whose last turn is longest ago.
How many claims one next hop has at once say its `places`: one until a host of it has greeted us, so that a dead
destination holds one place however many rows it has. Next hops that nobody has reached yet, and those that failed,
share a part of the places: the others always find one.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from posthouse.forwarding.bounce import Bouncer
from posthouse.forwarding.dial import OpenConnection
from posthouse.forwarding.places import Places
from posthouse.forwarding.relay import Attempt, Relay
from posthouse.forwarding.schedule import RetrySchedule
from posthouse.forwarding.session import ClaimLost, RelaySession
from posthouse.forwarding.settling import Settler
from posthouse.forwarding.transaction import OUR_SIDE
from posthouse.log import Log
from posthouse.mail.acceptance import Destination
from posthouse.mail.address import ReversePath
from posthouse.mail.ids import QueueId
from posthouse.mail.outcome import Deferred, Delivered
from posthouse.mail.spool import Claim, DueDestination, SpoolRow
from posthouse.mail.world import Clock, Random
from posthouse.storage.interfaces import Storage

POLL_S = 1.0
ROWS_PER_CLAIM = 100
DUE_LIMIT = 1000
TURNS_LIMIT = 20_000
CLOCK_CHECK_S = 600.0
LEAVE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerLimits:
    """How many claims at once, in all and for one next hop, and the pause after an error of storage."""

    concurrency: int
    per_destination: int
    after_error_s: float = 5.0

    @property
    def unproven(self) -> int:
        """Of all places, those for next hops that have not greeted us."""
        return max(1, self.concurrency * 3 // 4)

    @property
    def failing(self) -> int:
        """Of these, those for next hops that did not answer the last time."""
        return max(1, self.concurrency // 2)


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
        self._clock = clock
        self._random = random
        self._log = log
        self._places = Places(clock)
        self._running: Counter[str] = Counter()
        self._tokens: set[str] = set()
        self._turns: OrderedDict[Destination, int] = OrderedDict()
        self._turn = 0
        self._after: Destination | None = None
        self._looked_after_at = self._clock_checked_at = -math.inf
        self._stopping = False
        self.looked_at = clock.monotonic()
        """When it last looked at the queue."""
        self.configure(relay, bouncer, schedule, limits)

    def configure(self, relay: Relay, bouncer: Bouncer, schedule: RetrySchedule, limits: RunnerLimits) -> None:
        """Go on with these; attempts under way end as they began."""
        self._relay = relay
        self._schedule = schedule
        self._limits = limits
        self._settler = Settler(
            self._storage,
            bouncer,
            schedule,
            self._clock,
            self._random,
            self._log,
            after_error_s=limits.after_error_s,
        )

    async def run(self) -> None:
        """Claim and attempt until `stop` and the messages under way have ended."""
        try:
            async with asyncio.TaskGroup() as group:
                while not self._stopping:
                    try:
                        await self._look_after(group)
                        started = await self.step(group)
                        self.looked_at = self._clock.monotonic()
                    except Exception:  # noqa: BLE001
                        self._log.warning("queue cannot be read", exc_info=True)
                        await asyncio.sleep(self._limits.after_error_s)
                        continue
                    if not started:
                        await self._storage.changes.wait(POLL_S)
            await self._leave_all()
        finally:
            for opened in self._relay.pool.tired(everything=True):
                opened.connection.abort()

    def stop(self) -> None:
        """Begin no further message."""
        self._stopping = True
        self._storage.changes.notify()

    async def step(self, group: asyncio.TaskGroup) -> bool:
        """Start one claim of each due destination that has room, as a task; whether any was started."""
        if self._running.total() >= self._limits.concurrency:
            return False
        now = self._clock.now()
        await self._mend_clock(now)
        started = False
        for destination in self._in_turn(await self._due(now)):
            if self._running.total() >= self._limits.concurrency or self._stopping:
                break
            hop = self._relay.together(destination)
            if not self._has_room(hop):
                continue
            claim = await self._storage.spool.claim(destination, ROWS_PER_CLAIM, now)
            if claim is not None:
                self._tokens.add(claim.token)
                self._running[hop] += 1
                self._take_turn(destination)
                group.create_task(self._serve(destination, hop, claim))
                started = True
        return started

    async def _due(self, now: float) -> Sequence[DueDestination]:
        """A page of due destinations; where there are more, the next page the next time, so that all get a turn."""
        due = await self._storage.spool.due(now, DUE_LIMIT, self._after)
        if not due and self._after is not None:
            due = await self._storage.spool.due(now, DUE_LIMIT, None)
        self._after = max(each.destination for each in due) if len(due) == DUE_LIMIT else None
        return due

    def _in_turn(self, due: Sequence[DueDestination]) -> list[Destination]:
        for each in due:
            # Whoever is new stands behind those that are waiting for their next turn, not before them.
            self._turns.setdefault(each.destination, self._turn)
        hops = {each.destination: self._relay.together(each.destination) for each in due}
        in_turn = sorted(
            due,
            key=lambda each: (
                self._running[hops[each.destination]],
                self._turns[each.destination],
                each.oldest_not_before,
            ),
        )
        return [each.destination for each in in_turn]

    def _take_turn(self, destination: Destination) -> None:
        self._turn += 1
        self._turns[destination] = self._turn
        self._turns.move_to_end(destination)
        while len(self._turns) > TURNS_LIMIT:
            self._turns.popitem(last=False)

    def _has_room(self, hop: str) -> bool:
        if self._running[hop] >= self._places.places(hop, self._limits.per_destination):
            return False
        if self._places.has_answered(hop):
            return True
        unproven = [each for each in self._running if not self._places.has_answered(each)]
        if sum(self._running[each] for each in unproven) >= self._limits.unproven:
            return False
        if not self._places.has_failed(hop):
            return True
        return sum(self._running[each] for each in unproven if self._places.has_failed(each)) < self._limits.failing

    async def _mend_clock(self, now: float) -> None:
        """What waits longer than the schedule ever says was put off by a clock that was wrong: it is due.

        Looked for when starting and then from time to time.
        """
        if self._clock.monotonic() - self._clock_checked_at < CLOCK_CHECK_S:
            return
        self._clock_checked_at = self._clock.monotonic()
        mended = await self._storage.spool.make_due(now + self._schedule.longest_s, now)
        if mended:
            self._log.warning("recipients waited too far in the future, and are due", recipients=mended)

    async def _look_after(self, group: asyncio.TaskGroup) -> None:
        """Each second: leave hosts that nothing was sent to for a while; free claims that no task works on."""
        if self._clock.monotonic() - self._looked_after_at < POLL_S:
            return
        self._looked_after_at = self._clock.monotonic()
        for opened in self._relay.pool.tired():
            group.create_task(self._leave(opened))
        freed = await self._storage.spool.free_idle(lambda: self._tokens)
        if freed:
            self._log.error("claims without a task were freed", recipients=freed)

    async def _leave(self, opened: OpenConnection) -> None:
        try:
            await opened.connection.quit()
        except Exception:  # noqa: BLE001
            self._log.warning("a connection did not end in good order", exc_info=True)
            opened.connection.abort()

    async def _leave_all(self) -> None:
        """Say QUIT wherever a connection waits; nobody holds up the end of the house."""
        waiting = self._relay.pool.tired(everything=True)
        try:
            async with asyncio.timeout(LEAVE_S), asyncio.TaskGroup() as group:
                for opened in waiting:
                    group.create_task(self._leave(opened))
        except TimeoutError:
            pass
        finally:
            for opened in waiting:
                opened.connection.abort()

    async def _serve(self, destination: Destination, hop: str, claim: Claim) -> None:
        """Attempt one claim. An unknown failure defers what is not settled; it never becomes a bounce."""
        waiting = by_message(claim.rows)
        session = self._relay.session(
            destination,
            lambda: self._reached(hop),
            lambda rows: self._storage.spool.mark_sending(claim.token, _keys(rows), self._clock.now()),
        )
        settler, tried = self._settler, False
        try:
            # When stopping, the rest stays claimed until storage is closed, which frees it.
            while waiting and not self._stopping:
                tried = True
                attempt = await self._attempt(session, waiting[0])
                self._adapt(hop, attempt)
                if not await settler.settle(claim, attempt):
                    raise ClaimLost
                waiting[:1] = _rest(waiting[0], attempt.rows)
            await session.close()
        except ClaimLost:
            await settler.give_back(claim, _all(waiting), self._clock.now())
        except Exception:  # noqa: BLE001
            self._log.exception("attempt failed", destination=destination.domain)
            await settler.give_back(claim, _all(waiting), self._clock.now() + self._schedule.intervals_s[0])
        finally:
            session.abort()
            if tried and not session.has_reached:
                self._places.unreachable(hop)
            self._tokens.discard(claim.token)
            self._running[hop] -= 1
            if not self._running[hop]:
                del self._running[hop]
            self._storage.changes.notify()

    def _reached(self, hop: str) -> None:
        self._places.reached(hop)
        self._storage.changes.notify()

    def _adapt(self, hop: str, attempt: Attempt) -> None:
        """Send more at once, or less, as the next hop takes it."""
        if attempt.slow_down is not None:
            pause_s = self._places.slow_down(hop)
            if pause_s is not None:
                bound = self._limits.per_destination
                self._log.warning(
                    "next hop asks to slow down",
                    next_hop=attempt.next_hop,
                    reply=str(attempt.slow_down),
                    pause_s=pause_s,
                    connections=self._places.size(hop, bound),
                )
        elif any(isinstance(outcome, Delivered) for outcome in attempt.outcomes):
            self._places.took(hop, self._limits.per_destination)

    async def _attempt(self, session: RelaySession, rows: tuple[SpoolRow, ...]) -> Attempt:
        started = self._clock.monotonic()
        try:
            return await session.attempt(rows)
        except ClaimLost:
            raise
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


def by_message(rows: Iterable[SpoolRow]) -> list[tuple[SpoolRow, ...]]:
    """Rows that can share a transaction: one message, one reverse-path, each in its order."""
    groups: dict[tuple[QueueId, ReversePath], list[SpoolRow]] = {}
    for row in rows:
        groups.setdefault((row.message.queue_id, row.reverse_path), []).append(row)
    return [tuple(group) for group in groups.values()]


def _rest(rows: tuple[SpoolRow, ...], tried: Sequence[SpoolRow]) -> list[tuple[SpoolRow, ...]]:
    """Those of one message that were left out of an attempt, and are next; nothing where all were tried."""
    numbers = {row.recipient_number for row in tried}
    rest = tuple(row for row in rows if row.recipient_number not in numbers)
    return [rest] if rest else []


def _all(waiting: Iterable[tuple[SpoolRow, ...]]) -> list[SpoolRow]:
    return [row for rows in waiting for row in rows]


def _keys(rows: Iterable[SpoolRow]) -> list[tuple[QueueId, int]]:
    return [(row.message.queue_id, row.recipient_number) for row in rows]
