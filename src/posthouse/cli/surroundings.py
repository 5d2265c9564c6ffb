"""What the machine and its network are like: addresses, their names, whether port 25 is open. Every wait is bounded."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from posthouse.cli.findings import OK, PROBLEM, UNKNOWN, Finding
from posthouse.net.address_scope import is_public
from posthouse.net.own_addresses import source_towards

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.net.dns import DnsResolver

LOOKUP_S = 4.0
CONNECT_S = 5.0
NAME_S = 2.0
FAR = ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses for documentation (RFC 5737, RFC 3849): whoever is far away is reached the same way."""
ASKED_FOR_PORT_25 = "gmail.com"
"""A domain whose MX hosts are there for everybody; nothing is sent to them."""


def outgoing_addresses() -> tuple[str, ...]:
    """The addresses that connections to the world come from, public or not. Sends nothing."""
    found = (source_towards(family, far) for family, far in FAR)
    return tuple(address for address in found if address and not ipaddress.ip_address(address).is_loopback)


def public_addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    """Those of them that other houses can reach."""
    return tuple(address for address in addresses if is_public(address))


def resolver_of(config: Config | None) -> DnsResolver:
    """The configured name servers, or the system's; patient enough for one that is slow."""
    from posthouse.config_values import parse_endpoint
    from posthouse.net.dns import DnsResolver

    named = config.dns.servers if config is not None else ()
    servers = (parse_endpoint(server, default_port=53) for server in named)
    return DnsResolver(tuple((server.host, server.port) for server in servers), lifetime_s=LOOKUP_S)


async def name_by_reverse_dns(resolver: DnsResolver, addresses: Sequence[str]) -> str | None:
    """The name that reverse DNS gives one of the addresses and that leads back to it; None where there is none."""
    from posthouse.net.dns import NoSuchName, TemporaryDnsFailure

    for address in addresses:
        try:
            for name in sorted(await resolver.names_of(address)):
                if address in (await resolver.addresses(name)).found:
                    return name.lower()
        except (NoSuchName, TemporaryDnsFailure):
            continue
    return None


def name_of_machine() -> str | None:
    """The machine's own full name, as /etc/hosts or the resolver knows it; None where there is none in time."""
    found: list[str] = []
    # A thread that nobody waits for: the system's resolver may take half a minute where there is no network.
    asking = threading.Thread(target=lambda: found.append(socket.getfqdn()), daemon=True)
    asking.start()
    asking.join(NAME_S)
    name = (found[0] if found else socket.gethostname()).lower()
    return name if "." in name and not name.startswith("localhost") and not name.endswith(".arpa") else None


async def port_25(resolver: DnsResolver, *, domain: str = ASKED_FOR_PORT_25, port: int = 25) -> Finding:
    """Whether mail servers elsewhere can be connected to, as providers of homes and clouds forbid. Sends nothing."""
    from posthouse.net.dns import NoSuchName, TemporaryDnsFailure

    found: list[str] = []
    try:
        hosts = sorted(await resolver.mail_exchangers(domain), key=lambda host: host.preference)
        for host in hosts[:1]:
            found += (await resolver.addresses(host.name)).found
    except (NoSuchName, TemporaryDnsFailure):
        pass
    if not found:
        return Finding(
            "port 25 out", UNKNOWN, f"DNS does not lead to {domain}, so nothing was tried; is there a network?"
        )
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(_connects(address, port)) for address in found[:4]]
    if any(each.result() for each in tries):
        return Finding("port 25 out", OK, f"the mail servers of {domain} can be reached")
    text = (
        f"no connection to the mail servers of {domain}: ask whoever gives you the line to open port {port} outwards, "
        'or send through a smarthost: [forwarding] routes = { "*" = "smtp.example.net:25" }'
    )
    return Finding("port 25 out", PROBLEM, text)


async def _connects(address: str, port: int) -> bool:
    try:
        async with asyncio.timeout(CONNECT_S):
            _reader, writer = await asyncio.open_connection(address, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
