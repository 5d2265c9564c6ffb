"""The least time between two logins at one account (RFC 2449 §6.5)."""

from __future__ import annotations

from collections import OrderedDict

from posthouse.mail.ids import AccountId
from posthouse.mail.world import Clock


class LoginDelay:
    """Remembers, in the memory of this process, who logged in during the last `delay_s` seconds.

    Each of several processes counts for itself, and a restart forgets: the delay spares the house the work of
    programs that come too often, and nobody is harmed by one login more.
    """

    def __init__(self, delay_s: float, clock: Clock) -> None:
        self.delay_s = delay_s
        self._clock = clock
        self._logged_in: OrderedDict[AccountId, float] = OrderedDict()

    def left_s(self, account: AccountId) -> float:
        """How long the account has to wait; 0 when it need not."""
        since = self._logged_in.get(account)
        return 0.0 if since is None else max(0.0, since + self.delay_s - self._clock.monotonic())

    def note(self, account: AccountId) -> None:
        """The account has logged in. Those whose delay is over are forgotten."""
        now = self._clock.monotonic()
        self._logged_in[account] = now
        self._logged_in.move_to_end(account)
        while next(iter(self._logged_in.values())) <= now - self.delay_s:
            self._logged_in.popitem(last=False)
