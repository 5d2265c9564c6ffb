"""Connections that wait for the next message to the same host, for some seconds.

A connection is kept only where the last transaction ended cleanly, and given out only if the other server has said
nothing since: unsure ones are dropped.
"""

from __future__ import annotations

from posthouse.forwarding.dial import OpenConnection, Target
from posthouse.mail.world import Clock

IDLE_S = 5.0
"""Long enough for the next claim of a busy destination, which comes at once; servers have few places for idle ones."""
POOL_LIMIT = 20


class Pool:
    """Idle connections, the oldest first. Whoever gets one back from here closes it."""

    def __init__(self, clock: Clock, *, limit: int = POOL_LIMIT, idle_s: float = IDLE_S) -> None:
        self._clock = clock
        self._limit = limit
        self._idle_s = idle_s
        self._idle: list[tuple[float, OpenConnection]] = []

    def take(self, target: Target) -> OpenConnection | None:
        """A connection to this host, protected, logged in and bound as asked for; the one used last."""
        for index in range(len(self._idle) - 1, -1, -1):
            if self._idle[index][1].target == target:
                _since, found = self._idle.pop(index)
                if found.is_quiet:
                    return found
                found.connection.abort()
        return None

    def put(self, opened: OpenConnection) -> OpenConnection | None:
        """Keep it; returns the one that there is no room for."""
        self._idle.append((self._clock.monotonic(), opened))
        return self._idle.pop(0)[1] if len(self._idle) > self._limit else None

    def tired(self, *, everything: bool = False) -> list[OpenConnection]:
        """Those that waited long enough, which are kept no longer. What the other server ended or broke is dropped."""
        long_ago = self._clock.monotonic() - self._idle_s
        quiet = [(since, opened) for since, opened in self._idle if opened.is_quiet]
        for _since, opened in self._idle:
            if not opened.is_quiet:
                opened.connection.abort()
        self._idle = [] if everything else [each for each in quiet if each[0] > long_ago]
        return [opened for since, opened in quiet if everything or since <= long_ago]
