"""Which addresses are ours: where a connection would come back to this house (RFC 5321 §5.1)."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

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
        return source_towards(family, address) == address
    return _can_bind(family, address)


def _can_bind(family: socket.AddressFamily, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def source_towards(family: socket.AddressFamily, address: str) -> str:
    """The address that packets to another one come from; "" without a route."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # For a datagram socket this only looks up the route.
            probe.connect((address, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def default_gateway(routes: Path = Path("/proc/net/route")) -> str | None:
    """The IPv4 router that this machine sends through, where the kernel says so (Linux)."""
    try:
        lines = routes.read_text().splitlines()[1:]
    except OSError:
        return None
    for line in lines:
        fields = line.split()
        if len(fields) > 2 and fields[1] == "00000000" and fields[2] != "00000000":
            # A number as the machine orders its octets.
            return str(ipaddress.IPv4Address(int(fields[2], 16).to_bytes(4, sys.byteorder)))
    return None
