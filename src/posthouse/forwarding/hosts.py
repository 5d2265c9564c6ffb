"""Hosts that did not answer, remembered for a while (RFC 5321 §4.5.4.1), so that not every message waits for them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from posthouse.config_values import Endpoint
from posthouse.mail.world import Clock

FIRST_S = 60.0
GROWTH = 2.0
LONGEST_S = 900.0
"""Above the first intervals of the schedule: a host that has been dead for long is asked less often than it is due."""
BUSY_S = 10.0
"""A host that answered so short a time ago is not dead: it takes no more connections at the moment."""
HOSTS_LIMIT = 10_000


@dataclass(slots=True)
class _Dead:
    """Since it failed last, for how long it is left alone, and until when (monotonic)."""

    back_off_s: float
    until: float


class DeadHosts:
    """Addresses with their ports that took no connection, or never greeted. Refusals are answers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first_s, self._longest_s = FIRST_S, LONGEST_S
        self._dead: OrderedDict[Endpoint, _Dead] = OrderedDict()
        self._answered_at: OrderedDict[Endpoint, float] = OrderedDict()

    def keep_within(self, intervals_s: Sequence[float]) -> None:
        """A house that tries again sooner than usual also forgets sooner: nobody's next attempt is left out by it."""
        self._first_s = min(FIRST_S, intervals_s[0] / 2)
        self._longest_s = min(LONGEST_S, max(intervals_s) / 2)

    def dead_for_s(self, host: Endpoint) -> float:
        """How long a host is still left alone; 0.0: it may be asked."""
        known = self._dead.get(host)
        return max(0.0, known.until - self._clock.monotonic()) if known is not None else 0.0

    def failed(self, host: Endpoint) -> None:
        """It did not answer. Several connections that fail together count as one failure; it answers others: none."""
        now = self._clock.monotonic()
        if now - self._answered_at.get(host, -math.inf) < BUSY_S:
            return
        known = self._dead.get(host)
        if known is None:
            known = self._dead[host] = _Dead(self._first_s, now + self._first_s)
        elif known.until <= now:
            known.back_off_s = min(known.back_off_s * GROWTH, self._longest_s)
            known.until = now + known.back_off_s
        self._dead.move_to_end(host)
        if len(self._dead) > HOSTS_LIMIT:
            self._dead.popitem(last=False)

    def answered(self, host: Endpoint) -> None:
        """It greeted us, or took part in a transaction: what was is forgotten."""
        self._dead.pop(host, None)
        self._answered_at[host] = self._clock.monotonic()
        self._answered_at.move_to_end(host)
        if len(self._answered_at) > HOSTS_LIMIT:
            self._answered_at.popitem(last=False)
