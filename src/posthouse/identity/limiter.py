"""The one limiter of logins: whoever guesses becomes slow, whoever knows the password gets in.

Failures are counted for the account, for the address (an IPv6 /64 is one) and for the network (/24, /48), over all
protocols, and forgotten by half in each window. After some of them the next attempts wait, each longer, never longer
than `longest_delay_s`: so nobody can lock an owner out. One address that is being slowed has its attempts in a queue,
and those that would wait too long there are refused unchecked; only who shares that address can notice.

Where an account was logged in to before, its owner does not wait for what strangers do; own mistakes there still count,
and whoever guesses at it from the same address stands in a queue of its own. A success resets nothing else. Memory is
bounded; counts are those of this process and end with it.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeVar

from posthouse.mail.world import Clock

LONGEST_QUEUE_S = 30.0
NETWORK_SHARE = 4
"""A network may fail so many times as often as one address: many people share it."""
COUNT_LIMIT = 64.0
"""No count grows above this, so that the worst is forgotten within a few windows."""
KEYS = 20_000
KNOWN_FOR_S = 30 * 86400.0

_DOUBLINGS = 30

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimiterRules:
    """How slowing begins and grows. Times in seconds."""

    failures: int = 5
    delay_s: float = 1.0
    longest_delay_s: float = 8.0
    window_s: float = 900.0


class LoginLimiter:
    """Says how long an attempt has to wait, and is told how it ended."""

    def __init__(self, rules: LimiterRules, clock: Clock) -> None:
        self._clock = clock
        self._accounts = _Counts(rules, clock)
        self._addresses = _Counts(rules, clock)
        self._networks = _Counts(rules, clock)
        self._pairs = _Counts(rules, clock)
        self._queue_ends: OrderedDict[str, float] = OrderedDict()
        self._known: OrderedDict[tuple[str, str], float] = OrderedDict()

    def reconfigure(self, rules: LimiterRules) -> None:
        """Go by other rules from now on; the counts stay."""
        for counts in (self._accounts, self._addresses, self._networks, self._pairs):
            counts.rules = rules

    def wait_s(self, login: str, peer_address: str) -> float | None:
        """How long this attempt has to wait; None: it must be refused, too many wait already at this address."""
        address, network = neighbourhood(peer_address)
        if self._is_known(login, address):
            pair = f"{login} {address}"
            return self._queue(pair, self._pairs.delay_s(pair))
        waits = (self._accounts.delay_s(login), self._networks.delay_s(network, NETWORK_SHARE))
        queue = self._queue(address, self._addresses.delay_s(address))
        return None if queue is None else max(*waits, queue)

    def failed(self, login: str, peer_address: str, *, repeated: bool = False) -> int:
        """Count a failure; the answer is how many of late, of this address. `repeated`: with the same wrong password.

        A program with an old password repeats it for ever: no guess, and no reason to slow its owner elsewhere.
        """
        address, network = neighbourhood(peer_address)
        if self._is_known(login, address):
            # Whoever shares the owner's address guesses against this count, not against what others have to wait for.
            return self._pairs.add(f"{login} {address}", by=0.0 if repeated else 1.0)
        if not repeated:
            self._accounts.add(login)
        self._networks.add(network)
        return self._addresses.add(address)

    def succeeded(self, login: str, peer_address: str) -> None:
        """Remember that this account is used from this address."""
        address, _network = neighbourhood(peer_address)
        pair = (login, address)
        self._known[pair] = self._clock.monotonic() + KNOWN_FOR_S
        _bound(self._known, pair)
        self._pairs.forget(f"{login} {address}")

    def _is_known(self, login: str, address: str) -> bool:
        return self._known.get((login, address), 0.0) > self._clock.monotonic()

    def _queue(self, key: str, delay_s: float) -> float | None:
        """Attempts of one slowed address, or at one account from there, one after the other.

        However many sessions are opened for them: a hundred that wait beside each other would be a hundred guesses.
        """
        if not delay_s:
            return 0.0
        now = self._clock.monotonic()
        end = max(now, self._queue_ends.get(key, 0.0)) + delay_s
        if end - now > max(LONGEST_QUEUE_S, delay_s):
            return None
        self._queue_ends[key] = end
        _bound(self._queue_ends, key)
        return end - now


class _Counts:
    """Numbers of failures that halve in each window. The keys longest not counted are the first forgotten."""

    def __init__(self, rules: LimiterRules, clock: Clock) -> None:
        self.rules = rules
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def add(self, key: str, by: float = 1.0) -> int:
        """Count; the new number."""
        count = min(self._count(key) + by, COUNT_LIMIT)
        self._counts[key] = (count, self._clock.monotonic())
        _bound(self._counts, key)
        return round(count)

    def forget(self, key: str) -> None:
        """Begin anew."""
        self._counts.pop(key, None)

    def delay_s(self, key: str, share: int = 1) -> float:
        """How long the next attempt waits; `share` times as many failures are free."""
        beyond = round(self._count(key)) - self.rules.failures * share
        if beyond < 0:
            return 0.0
        return min(self.rules.longest_delay_s, self.rules.delay_s * 2.0 ** min(beyond, _DOUBLINGS))

    def _count(self, key: str) -> float:
        count, at = self._counts.get(key, (0.0, 0.0))
        return float(count * 0.5 ** ((self._clock.monotonic() - at) / self.rules.window_s)) if count else 0.0


def neighbourhood(peer_address: str) -> tuple[str, str]:
    """The address and the network that failures are counted for; both "" where a peer has no address any more."""
    try:
        parsed = ipaddress.ip_address(peer_address.partition("%")[0])
    except ValueError:
        return "", ""
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    # Whoever has one IPv6 address has the /64 around it, and often the /48 around that.
    prefixes = (32, 24) if parsed.version == 4 else (64, 48)
    address, network = (str(ipaddress.ip_network((parsed, prefix), strict=False)) for prefix in prefixes)
    return address, network


def _bound(table: OrderedDict[K, V], key: K) -> None:
    """Put the key last, and drop the first ones above KEYS."""
    table.move_to_end(key)
    while len(table) > KEYS:
        table.popitem(last=False)
