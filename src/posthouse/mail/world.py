"""What a house is handed from outside so that tests and simulation can drive it: time and chance."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time. Only `app.py` knows the real one."""

    def now(self) -> float:
        """Unix seconds, UTC. May jump in both directions."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow; for durations."""
        ...


class Random(Protocol):
    """Chance: unpredictable where it makes ids and secrets, seeded in simulation."""

    def octets(self, count: int) -> bytes:
        """`count` random octets."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """A number between `low` and `high`, for jitter and shuffling."""
        ...
