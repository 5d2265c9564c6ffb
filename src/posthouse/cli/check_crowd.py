"""The part of `posthouse check` that asks whether strangers could look like neighbours, who may relay."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from posthouse.cli.findings import NOTE, PROBLEM, Finding
from posthouse.mail.words import duration
from posthouse.net.address_scope import is_loopback
from posthouse.net.arrival import is_among
from posthouse.net.crowd import Crowded, read_note
from posthouse.net.own_addresses import default_gateway

if TYPE_CHECKING:
    from posthouse.config import Config

REMEMBERED_S = 30 * 86400.0


def crowd(config: Config, gateway: str | None = None) -> Iterator[Finding]:
    """What the doors noted, and a trusted network that holds the router of a machine without public addresses."""
    from posthouse.cli.surroundings import outgoing_addresses, public_addresses

    gateway = gateway or default_gateway()
    seen = read_note(config.data_dir)
    if seen is not None and time.time() - seen.at < REMEMBERED_S:
        yield _told(config, seen, gateway)
    elif gateway is not None and _may_relay(config, gateway) and not public_addresses(outgoing_addresses()):
        text = (
            f"{gateway}, the router of this machine, is in reception.trusted_networks: should it rewrite the addresses "
            "of others (NAT), anybody can relay here; take it out"
        )
        yield Finding("open relay", NOTE, text)


def _may_relay(config: Config, address: str) -> bool:
    reception = config.reception
    return is_among(address, reception.trusted_networks) and not is_among(address, reception.proxy_from)


def _told(config: Config, seen: Crowded, gateway: str | None) -> Finding:
    what = f"{seen.sessions} of {seen.of_sessions} sessions came from {seen.address} in an hour"
    when = f"{what}, {duration(time.time() - seen.at)} ago"
    if not _may_relay(config, seen.address):
        text = f"{when}: limits and logs take all of them for one; let the router pass addresses on, or use proxy_from"
        return Finding("open relay", NOTE, text)
    text = f"{when}, and it may relay: if others hide behind it (NAT), take it out of reception.trusted_networks"
    named = any(network.num_addresses == 1 for network in _trusted_with(config, seen.address))
    expected = is_loopback(seen.address) or (named and seen.address != gateway)
    return Finding("open relay", NOTE if expected else PROBLEM, text)


def _trusted_with(config: Config, address: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [network for network in config.reception.trusted_networks if is_among(address, (network,))]
