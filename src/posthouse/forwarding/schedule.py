"""When a deferred recipient is tried again, and when it is given up (RFC 5321 §4.5.4.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from posthouse.mail.world import Random

JITTER = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySchedule:
    """Intervals in seconds, one for each attempt that failed; the last one repeats."""

    intervals_s: tuple[float, ...]
    delay_notice_after_s: float
    expire_after_s: float = math.inf

    def expiry(self, now: float, expires_at: float) -> float:
        """When a recipient expires that is to expire at `expires_at`: what was accepted by a clock that was ahead does
        not wait longer for that than what is accepted now."""
        return min(expires_at, now + self.expire_after_s)

    def next_attempt(self, now: float, attempts: int, expires_at: float, random: Random) -> float | None:
        """Unix time of the attempt after the `attempts`-th, or None when the recipient has expired.

        A recipient expires only after an attempt that was made after its expiry time: so the last attempt is at
        that time, and a house that was switched off for a week still tries once.
        """
        if now >= expires_at:
            return None
        interval_s = self.intervals_s[max(1, min(attempts, len(self.intervals_s))) - 1]
        jittered_s = interval_s * random.uniform(1 - JITTER, 1 + JITTER)
        return min(now + jittered_s, expires_at)

    @property
    def longest_s(self) -> float:
        """No time is set further ahead than this. What waits longer was put off by a clock that was wrong."""
        return max(self.intervals_s) * (1 + JITTER)

    def wants_delay_notice(self, now: float, accepted_at: float, *, already: bool) -> bool:
        """Whether the sender should hear now that a recipient still waits."""
        return not already and now - accepted_at >= self.delay_notice_after_s
