"""Which addresses are ours: where a connection would come back to this house (RFC 5321 §5.1)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from posthouse.config_values import Endpoint

_NOBODY = {socket.AF_INET: "240.0.0.1", socket.AF_INET6: "100::1"}
"""Addresses that no machine has: reserved (RFC 1112 §4), and for discarding (RFC 6666)."""


def listens_at(endpoints: Iterable[Endpoint], address: str, port: int) -> bool:
    """Whether one of these doors is at an address and port; one on the wildcard is at each address of this machine."""
    parsed = ipaddress.ip_address(address)
    for endpoint in endpoints:
        door = ipaddress.ip_address(endpoint.host)
        if endpoint.port != port or door.version != parsed.version:
            continue
        if door == parsed or (door.is_unspecified and is_of_this_machine(address)):
            return True
    return False


def is_of_this_machine(address: str) -> bool:
    """Whether it is an address of this machine. Sends nothing: only one's own addresses can be bound."""
    if ipaddress.ip_address(address).is_loopback:
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    if _can_bind(family, _NOBODY[family]):
        # Where an administrator allows to bind any (ip_nonlocal_bind), the route to it tells.
        return _source_towards(family, address) == address
    return _can_bind(family, address)


def _can_bind(family: socket.AddressFamily, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _source_towards(family: socket.AddressFamily, address: str) -> str:
    """The address that packets to another one come from; "" without a route."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # For a datagram socket this only looks up the route.
            probe.connect((address, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""
