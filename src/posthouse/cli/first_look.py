"""What `init` sees of the machine before it makes a house, and what it tells when the house is made."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from posthouse.cli.check import print_finding, site_here
from posthouse.cli.check_ports import free_ports
from posthouse.cli.dns_records import dns_records, zone_lines
from posthouse.cli.findings import NOTE, OK, Finding
from posthouse.cli.surroundings import (
    name_by_reverse_dns,
    name_of_machine,
    outgoing_addresses,
    port_25,
    public_addresses,
    resolver_of,
)
from posthouse.mail.words import some

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.net.dns import DnsResolver

LOOK_S = 10.0
PORTS = {"smtp": 25, "submission": 587, "submissions": 465, "pop3s": 995}
"""The doors of a new house."""
SYSTEMD = Path("/run/systemd/system")
"""There where systemd runs (sd_booted(3))."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The machine: the addresses that it sends from, and what stands in the way of a house with that name."""

    addresses: tuple[str, ...]
    findings: tuple[Finding, ...]
    told: tuple[str, ...] = ()
    """Those of the addresses that only the command line knows of."""


def guess_hostname(domain: str | None, told: Sequence[str]) -> str | None:
    """The machine's full name: by reverse DNS of its public addresses, else its own, else the usual one."""

    async def ask() -> str | None:
        async with asyncio.timeout(LOOK_S):
            return await name_by_reverse_dns(resolver_of(None), tuple(told) or public_addresses(outgoing_addresses()))

    try:
        found = asyncio.run(ask())
    except TimeoutError:
        found = None
    return found or name_of_machine() or (f"mx.{domain}" if domain else None)


def default_doors() -> dict[str, str]:
    """The lists of `[listen]`, in one width. IPv6 where the machine has it."""
    hosts = ["0.0.0.0", *(["[::]"] if _has_ipv6() else [])]
    lists = {door: "[" + ", ".join(f'"{host}:{port}"' for host in hosts) + "]" for door, port in PORTS.items()}
    width = max(map(len, lists.values()))
    return {door: text.ljust(width) for door, text in lists.items()}


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def look_around(hostname: str, told: Sequence[str], *, network: bool) -> Surroundings:
    """Ports, addresses, their names, and whether port 25 is open (`network`). Takes LOOK_S for each at most."""
    from posthouse.config_values import Endpoint

    addresses = tuple(told) or outgoing_addresses()
    findings = free_ports((door, Endpoint("0.0.0.0", port)) for door, port in PORTS.items())
    public = public_addresses(addresses)
    if not public:
        findings.append(_behind_nat(addresses))
    findings += asyncio.run(_ask(hostname, public, resolver_of(None), network=network))
    # Not ours to say yet: whoever runs `init` need not be who starts the house.
    ports_of_root = "need root"
    return Surroundings(
        addresses, tuple(f for f in findings if f.state != OK and ports_of_root not in f.text), tuple(told)
    )


def _behind_nat(addresses: Sequence[str]) -> Finding:
    which = f" ({', '.join(addresses)})" if addresses else ""
    text = (
        f"this machine has only private addresses{which}, so it is behind a router: let that one pass the ports on to "
        "it, and publish the address of your line. Many homes cannot send mail by port 25: then use a smarthost"
    )
    return Finding("address", NOTE, text)


async def _ask(hostname: str, public: Sequence[str], resolver: DnsResolver, *, network: bool) -> list[Finding]:
    from posthouse.cli.findings import UNKNOWN

    found: list[Finding] = []
    try:
        async with asyncio.timeout(LOOK_S):
            found += await _names(hostname, public, resolver)
            if network:
                found.append(await port_25(resolver))
    except TimeoutError:
        found.append(Finding("network", UNKNOWN, "it does not answer; look again later with: posthouse check"))
    return found


async def _names(hostname: str, public: Sequence[str], resolver: DnsResolver) -> list[Finding]:
    from posthouse.net.dns import TemporaryDnsFailure

    found = []
    for address in public:
        try:
            names = await resolver.names_of(address)
        except TemporaryDnsFailure:
            continue
        if hostname not in map(str.lower, names):
            called = f"is called {some(sorted(names))} by reverse DNS" if names else "has no name in reverse DNS"
            text = f"{address} {called}; let whoever gave it to you call it {hostname}: many houses refuse mail without"
            found.append(Finding("reverse name", NOTE, text))
    return found


def tell(config: Config, file: Path, domain: str, seen: Surroundings) -> None:
    """The records to publish, what to look at, and the next commands."""
    site = site_here(config, (domain,), seen.addresses)
    named = f"--config {file}"
    again = " ".join((named, *(f"--address {address}" for address in seen.told)))
    if site.has_name:
        print(f"\nPublish these DNS records (shown again by: posthouse dns {again}):\n")
        for line in zone_lines(dns_records(site)):
            print(line)
    if seen.findings:
        print()
    for finding in seen.findings:
        print_finding(finding)
    print(f"\nLook whether all is well:  posthouse check {again}")
    if os.getuid() == 0 and SYSTEMD.is_dir():
        print(f"Start it, at boot too:     posthouse service install {named}")
    else:
        print(f"Start it:                  posthouse serve {named}")
