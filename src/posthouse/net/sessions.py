"""How many sessions are open at a service, over all its doors, and from where."""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Admittance:
    """How many sessions may be open at a door's service, in all and from one address (IPv6: one /64)."""

    sessions: int
    sessions_per_address: int


class SessionCounter:
    """Counts open sessions of one service over all its doors."""

    def __init__(self, admittance: Admittance) -> None:
        self.admittance = admittance
        self.open = 0
        self._by_network: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count one more session, or say that it is too many; then `leave` must not be called."""
        network = _network(address)
        if self.open >= self.admittance.sessions:
            return False
        if self._by_network[network] >= self.admittance.sessions_per_address:
            return False
        self.open += 1
        self._by_network[network] += 1
        return True

    def leave(self, address: str) -> None:
        network = _network(address)
        self.open -= 1
        self._by_network[network] -= 1
        if not self._by_network[network]:
            del self._by_network[network]


@lru_cache(maxsize=4096)
def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return address
