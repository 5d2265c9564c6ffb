"""How often one sender hears of failure or delay: a thousand failures are no thousand reports at once."""

from __future__ import annotations

from dataclasses import dataclass

from posthouse.mail.address import Address
from posthouse.mail.world import Clock

MINUTE_S = 60.0
SENDERS_LIMIT = 10_000
"""Of so many senders it is known when they were told last; beyond that of the latest ones."""


@dataclass(slots=True)
class _Turns:
    """Monotonic seconds. `spent_until`: when what was told is forgotten. `line_ends`: the last turn that was given."""

    spent_until: float = 0.0
    line_ends: float = 0.0


class ReportPace:
    """To one sender `per_minute` reports at once, and from then on as many in each minute.

    A report whose turn has not come is not made: its recipient stays in the queue until then, so nothing is lost, and
    what is remembered here is only a matter of pace.
    """

    def __init__(self, clock: Clock, per_minute: int) -> None:
        self._clock = clock
        self._interval_s = MINUTE_S / per_minute
        self._at_once_s = MINUTE_S - self._interval_s
        self._senders: dict[str, _Turns] = {}

    def wait_s(self, sender: Address) -> float:
        """0.0: tell now, which counts as told. Else ask again after so many seconds; those who wait form a line."""
        now = self._clock.monotonic()
        turns = self._turns(sender, now)
        earliest = turns.spent_until - self._at_once_s
        # Half an interval: whoever waited by another clock, which ran slightly faster, is not sent to the end again.
        if earliest <= now + self._interval_s / 2:
            turns.spent_until = max(turns.spent_until, now) + self._interval_s
            return 0.0
        turns.line_ends = max(turns.line_ends + self._interval_s, earliest)
        return turns.line_ends - now

    def _turns(self, sender: Address, now: float) -> _Turns:
        turns = self._senders.get(sender.key)
        if turns is None:
            if len(self._senders) >= SENDERS_LIMIT:
                self._forget(now)
            turns = self._senders[sender.key] = _Turns()
        return turns

    def _forget(self, now: float) -> None:
        """Forget whoever may be told at once again, or else who has been known longest."""
        self._senders = {key: turns for key, turns in self._senders.items() if turns.spent_until > now}
        if len(self._senders) >= SENDERS_LIMIT:
            del self._senders[next(iter(self._senders))]
