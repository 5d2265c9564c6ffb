"""How many sessions are open at a service, over all its doors, and from where."""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

BLOCK_SHARE = 4
"""One IPv6 /48 may have so many times as many sessions as one address: a line to a home brings up to 65,536 of /64."""


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
        self.turned_away = 0
        self._by_network: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count one more session, or say that it is too many; then `leave` must not be called."""
        if self._is_full(address):
            self.turned_away += 1
            return False
        self.open += 1
        for network, _share in _networks(address):
            self._by_network[network] += 1
        return True

    def _is_full(self, address: str) -> bool:
        if self.open >= self.admittance.sessions:
            return True
        most = self.admittance.sessions_per_address
        return any(self._by_network[network] >= most * share for network, share in _networks(address))

    def leave(self, address: str) -> None:
        self.open -= 1
        for network, _share in _networks(address):
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]


@lru_cache(maxsize=4096)
def _networks(address: str) -> tuple[tuple[str, int], ...]:
    """What the address is counted for, and how many addresses' share each may have."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ((address, 1),)
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return ((str(parsed.ipv4_mapped), 1),)
        site, block = (str(ipaddress.IPv6Network((parsed, prefix), strict=False)) for prefix in (64, 48))
        return (site, 1), (block, BLOCK_SHARE)
    return ((address, 1),)
