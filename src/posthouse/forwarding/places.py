"""How many connections at once one next hop gets: slowly more while it takes mail, half as many when it says "slower".

The key is whatever mail is sent to together: a next hop that is named, or a domain. Until a host of it has greeted us
it has one place.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from posthouse.mail.world import Clock

PAUSE_S = 10.0
LONGEST_PAUSE_S = 300.0
HOPS_LIMIT = 10_000


@dataclass(slots=True)
class _Window:
    """`size` places; none is taken before `paused_until` (monotonic). `reached` is None where nobody knows yet."""

    size: float = 1.0
    pause_s: float = PAUSE_S
    paused_until: float = -math.inf
    reached: bool | None = None


class Places:
    """What is remembered of next hops; of at most HOPS_LIMIT, the least recently used is forgotten first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def places(self, hop: str, bound: int) -> int:
        """How many connections to it there may be now."""
        window = self._windows.get(hop)
        if window is None:
            return 1
        if window.paused_until > self._clock.monotonic():
            return 0
        return self.size(hop, bound)

    def size(self, hop: str, bound: int) -> int:
        """How many places it has when it is not paused."""
        window = self._windows.get(hop)
        return max(1, min(int(window.size), bound)) if window is not None and window.reached else 1

    def has_failed(self, hop: str) -> bool:
        """Whether no host of it answered when it was asked last."""
        return (window := self._windows.get(hop)) is not None and window.reached is False

    def has_answered(self, hop: str) -> bool:
        """Whether a host of it greeted us when it was asked last."""
        return (window := self._windows.get(hop)) is not None and window.reached is True

    def reached(self, hop: str) -> None:
        """A host of it greeted us."""
        self._window(hop).reached = True

    def unreachable(self, hop: str) -> None:
        """No host of it did."""
        window = self._window(hop)
        window.reached = False
        window.size = 1.0

    def took(self, hop: str, bound: int) -> None:
        """It took a message: with as many of them as there are places, one place more."""
        window = self._window(hop)
        window.size = min(window.size + 1 / max(1, int(window.size)), float(bound))
        window.pause_s = PAUSE_S

    def slow_down(self, hop: str) -> float | None:
        """It said so. Returns for how many seconds no connection begins, or None: it is slower already."""
        window, now = self._window(hop), self._clock.monotonic()
        if window.paused_until > now:
            return None
        pause_s = window.pause_s
        window.size = max(1.0, window.size / 2)
        window.paused_until = now + pause_s
        window.pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        return pause_s

    def _window(self, hop: str) -> _Window:
        window = self._windows.setdefault(hop, _Window())
        self._windows.move_to_end(hop)
        if len(self._windows) > HOPS_LIMIT:
            self._windows.popitem(last=False)
        return window
