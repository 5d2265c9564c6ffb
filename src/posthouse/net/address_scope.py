"""What an IP address that strangers named leads to: the Internet, this machine, or a private network.

An IPv4 address inside an IPv6 one counts as itself, so that no spelling leads where the plain address may not.
"""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

IpAddress: TypeAlias = IPv4Address | IPv6Address

_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that is given out of IPv6 (RFC 4291 §2.4)."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 through a translator (RFC 6052 §2.1)."""
_TUNNELS = (ipaddress.IPv6Network("2002::/16"), ipaddress.IPv6Network("2001::/32"))
"""6to4 (deprecated by RFC 7526) and Teredo: IPv4 hosts behind relays of strangers, where no mail server is."""


def plain_address(address: str) -> str:
    """The one spelling of an address; an IPv4-mapped one is the IPv4 address that it stands for (RFC 4291 §2.5.5)."""
    return str(_plain(ipaddress.ip_address(address)))


def is_public(address: str) -> bool:
    """Whether it is a host on the Internet, not one of this machine or of a private network."""
    parsed = _plain(ipaddress.ip_address(address))
    if parsed in _NAT64 and isinstance(parsed, IPv6Address):
        parsed = IPv4Address(parsed.packed[12:])
    if isinstance(parsed, IPv4Address):
        return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved
    return parsed in _GLOBAL_UNICAST and parsed.is_global and not any(parsed in tunnel for tunnel in _TUNNELS)


def is_host(address: str) -> bool:
    """Whether one host can have it: the unspecified address, which some systems take for loopback, is nobody's."""
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_unspecified or parsed.is_multicast or str(parsed) == "255.255.255.255")


def is_loopback(address: str) -> bool:
    """Whether every machine calls itself so."""
    return ipaddress.ip_address(address).is_loopback


def _plain(parsed: IpAddress) -> IpAddress:
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed
