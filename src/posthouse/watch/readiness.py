"""Whether a house can take mail now. Alive is not working: it is ready while the store commits and the loop turns."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from posthouse.mail.world import Clock
from posthouse.storage.errors import StorageError

TICK_S = 1.0
TICKS_KEPT = 60
LATE_S = 5.0
"""A loop that was so late kept every session waiting so long."""
PROOF_GOOD_S = 1.0
"""One commit answers all who ask within this time: nobody can wear out the disk by asking."""
PROOF_WITHIN_S = 3.0
RUNNER_LATE_S = 60.0
SPARE_OCTETS = 64 * 1024 * 1024
"""Room that the database and its log want beside the next message."""
SPARE_FILES = 100

Sleep = Callable[[float], Awaitable[None]]


class Commits(Protocol):
    """What is asked of storage."""

    async def prove(self) -> None: ...


class Pulse:
    """How late the loop is: it wants to be woken each second, and looks when it is. `run` until cancelled."""

    def __init__(self, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._lags: deque[float] = deque([0.0], TICKS_KEPT)
        self._due_at = math.inf

    async def run(self) -> None:
        while True:
            self._due_at = self._clock.monotonic() + TICK_S
            await self._sleep(TICK_S)
            self._lags.append(self._overdue_s())

    @property
    def lag_s(self) -> float:
        """How late it is now, or was when it last looked."""
        return max(self._lags[-1], self._overdue_s())

    @property
    def worst_lag_s(self) -> float:
        """In the last minute."""
        return max(*self._lags, self._overdue_s())

    def _overdue_s(self) -> float:
        return max(0.0, self._clock.monotonic() - self._due_at)


class Prover:
    """Commits when somebody asks, one commit at a time, however long that takes. `run` until cancelled."""

    def __init__(self, storage: Commits, clock: Clock, within_s: float = PROOF_WITHIN_S) -> None:
        self._storage = storage
        self._clock = clock
        self._within_s = within_s
        self._wanted = asyncio.Event()
        self._done = asyncio.Event()
        self._asked_at = 0.0
        self._answered_at = -math.inf
        self._problem: str | None = None

    async def run(self) -> None:
        while True:
            await self._wanted.wait()
            self._problem = await self._prove()
            self._answered_at = self._clock.monotonic()
            self._wanted.clear()
            self._done.set()

    async def problem(self) -> str | None:
        """Why the store does not commit; None where it just has."""
        now = self._clock.monotonic()
        if now - self._answered_at < PROOF_GOOD_S and not self._wanted.is_set():
            return self._problem
        if not self._wanted.is_set():
            self._asked_at = now
            self._done.clear()
            self._wanted.set()
        try:
            # Who comes while a commit hangs waits no longer than the one who asked for it.
            async with asyncio.timeout(max(0.0, self._asked_at + self._within_s - now)):
                await self._done.wait()
        except TimeoutError:
            return f"the store has not committed for {self._clock.monotonic() - self._asked_at:.0f} s"
        return self._problem

    async def _prove(self) -> str | None:
        try:
            await self._storage.prove()
        except StorageError as exc:
            return f"the store cannot commit: {str(exc) or type(exc).__name__}"
        except Exception as exc:  # noqa: BLE001  (told; the next one who asks has it tried again)
            return f"the store cannot commit: {type(exc).__name__}"
        return None


def late_loop(lag_s: float) -> str | None:
    """Why the loop does not serve sessions as it should."""
    return f"the event loop was {lag_s:.0f} s late" if lag_s >= LATE_S else None


def late_runner(looked_s_ago: float) -> str | None:
    """Why nothing is sent on."""
    if looked_s_ago < RUNNER_LATE_S:
        return None
    return f"the queue runner has not looked at the queue for {looked_s_ago:.0f} s"


def full_disk(free_octets: int, free_files: int | None, message_octets: int) -> str | None:
    """Why the next message may find no room. `message_octets`: the largest that is taken."""
    if free_octets < message_octets + SPARE_OCTETS:
        return f"the disk of data_dir is nearly full: {free_octets // 2**20} MiB are left"
    if free_files is not None and free_files < SPARE_FILES:
        return f"the disk of data_dir has room for only {free_files} more files"
    return None
