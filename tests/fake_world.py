"""Time, chance and name servers for tests: all of them say what the test wants."""

from __future__ import annotations

import random

from posthouse.net.dns import Addresses, MxHost, NoSuchName, TemporaryDnsFailure

START = 1_700_000_000.0


class FakeClock:
    """Stands still until the test moves it."""

    def __init__(self, now: float = START) -> None:
        self.wall_s = now
        self.steady_s = 1000.0

    def now(self) -> float:
        return self.wall_s

    def monotonic(self) -> float:
        return self.steady_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.wall_s += seconds
        self.steady_s += seconds

    def jump(self, seconds: float) -> None:
        """Set the clock, forwards or back; no time passes."""
        self.wall_s += seconds


class FakeRandom:
    """Chance from a seed. `fixed` makes `uniform` answer that share of its range each time."""

    def __init__(self, seed: int = 5321, *, fixed: float | None = None) -> None:
        self._random = random.Random(seed)
        self._fixed = fixed

    def octets(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high) if self._fixed is None else low + (high - low) * self._fixed


class FakeResolver:
    """Answers from tables. A name that stands in neither does not exist; in `broken`, nobody can say."""

    def __init__(
        self,
        mail_exchangers: dict[str, tuple[MxHost, ...]] | None = None,
        addresses: dict[str, tuple[str, ...]] | None = None,
        broken: frozenset[str] = frozenset(),
    ) -> None:
        self._mail_exchangers = mail_exchangers or {}
        self._addresses = addresses or {}
        self.broken = broken
        self.asked: list[str] = []

    async def mail_exchangers(self, domain: str) -> tuple[MxHost, ...]:
        self._ask(domain)
        if domain not in self._mail_exchangers and domain not in self._addresses:
            raise NoSuchName(domain)
        return self._mail_exchangers.get(domain, ())

    async def addresses(self, host: str) -> Addresses:
        self._ask(host)
        if host not in self._mail_exchangers and host not in self._addresses:
            raise NoSuchName(host)
        return Addresses(self._addresses.get(host, ()))

    def _ask(self, name: str) -> None:
        self.asked.append(name)
        if name in self.broken:
            raise TemporaryDnsFailure(name)
