"""A time limit for each wait on a peer, at the cost of two assignments.

`asyncio.timeout` makes and cancels a timer for each wait; a session waits eight times for a message of a peer that
does not pipeline, and those timers took a tenth of its time. Here one timer sleeps on, and looks when it fires
whether the wait of that moment is over time.
"""

from __future__ import annotations

import asyncio

LOOK_EVERY_S = 5.0
"""The timer sleeps no longer than this, so that a shorter limit than the last one seldom has to move it: not that of
closing, which is this long, at the end of each connection."""


class Deadline:
    """The one timer of one task's waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = 0.0
        self._future: asyncio.Future[None] | None = None
        self._expires_at = 0.0

    async def wait(self, future: asyncio.Future[None], timeout_s: float | None) -> None:
        """Wait for the future, for ever if `timeout_s` is None. Raises TimeoutError."""
        self.watch(future, timeout_s)
        try:
            await future
        finally:
            self.forget()

    def watch(self, future: asyncio.Future[None], timeout_s: float | None) -> None:
        """Give the future a TimeoutError when its time is over, until `forget`: for who awaits it himself."""
        if timeout_s is None:
            return
        self._future = future
        self._expires_at = self._loop.time() + timeout_s
        if self._timer is None or self._expires_at < self._armed_for:
            self._arm()

    def forget(self) -> None:
        """The wait is over."""
        self._future = None

    def stop(self) -> None:
        """Forget the timer; a wait that is under way has no limit any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self.stop()
        self._armed_for = min(self._expires_at, self._loop.time() + LOOK_EVERY_S)
        self._timer = self._loop.call_at(self._armed_for, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._future is None or self._future.done():
            return
        if self._loop.time() >= self._expires_at:
            self._future.set_exception(TimeoutError())
        else:
            self._arm()
