"""Which DNS records a house needs, from its configuration alone: what `init` and `dns` print, what `check` compares."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from posthouse.net.address_scope import is_public

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.config_values import Endpoint

TTL_S = 3600
_SERVICES = {"submissions": (465, 0), "submission": (587, 1), "pop3s": (995, 0), "pop3": (110, 1)}
"""Doors for mail programs: their usual ports, and priorities (RFC 6186 §3.4): TLS at once first (RFC 8314 §3)."""


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """A record that should exist, as in a zone file."""

    name: str
    type: str
    value: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What DNS has to say about a house.

    `addresses`: the public ones it is known to have; none, and it is behind a router, whose address nobody knows here.
    """

    hostname: str
    domains: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    smarthost: Endpoint | None = None
    services: tuple[tuple[str, int], ...] = ()
    """Doors for mail programs: name and port."""
    versions: tuple[int, ...] = (4, 6)
    """Of the Internet Protocol, at which a door takes mail from other houses."""

    @property
    def has_name(self) -> bool:
        """A house without one is an address literal, which DNS knows nothing of."""
        return not self.hostname.startswith("[")

    def of(self, version: int) -> tuple[str, ...]:
        """Its public addresses of one version of the Internet Protocol."""
        return tuple(address for address in self.addresses if ipaddress.ip_address(address).version == version)


def site_of(config: Config, domains: Sequence[str], addresses: Sequence[str]) -> Site:
    """`addresses`: those that connections from here come from, and others of this machine; private ones are left out.

    Doors that listen on one public address are there, whatever the way out is.
    """
    listening = [endpoint.host for endpoint in config.listen.smtp]
    public = [address for address in (*addresses, *listening) if _is_public_host(address)]
    return Site(
        hostname=config.hostname,
        domains=tuple(domains),
        addresses=tuple(dict.fromkeys(public)),
        smarthost=config.forwarding.next_hop("*"),
        services=tuple(_services(config)),
        versions=tuple(sorted({ipaddress.ip_address(e.host).version for e in config.listen.smtp if not e.is_loopback})),
    )


def _is_public_host(address: str) -> bool:
    return not ipaddress.ip_address(address).is_unspecified and is_public(address)


def _services(config: Config) -> list[tuple[str, int]]:
    found = []
    for door, (usual, _priority) in _SERVICES.items():
        ports = [each.port for each in getattr(config.listen, door) if not each.is_loopback and each.port]
        if ports:
            found.append((door, usual if usual in ports else ports[0]))
    return found


def dns_records(site: Site) -> list[DnsRecord]:
    """The records with which other houses find this one and believe it (RFC 5321 §5, RFC 7208, RFC 6186)."""
    if not site.has_name:
        return []
    host = f"{site.hostname}."
    records = [
        DnsRecord(host, "A" if ipaddress.ip_address(address).version == 4 else "AAAA", address, "where this house is")
        for address in site.addresses
    ]
    if not site.of(4):
        records.append(DnsRecord(host, "A", "", "where this house is"))
    if site.hostname not in site.domains:
        records.append(DnsRecord(host, "TXT", "v=spf1 a -all", f"reports come from {site.hostname} itself"))
    for domain in site.domains:
        records += _of_domain(site, domain, host)
    for address in site.addresses:
        pointer = ipaddress.ip_address(address).reverse_pointer
        records.append(DnsRecord(f"{pointer}.", "PTR", host, "many houses refuse mail without it"))
    if not site.of(4):
        records.append(DnsRecord("", "PTR", host, "many houses refuse mail without it"))
    return records


def _of_domain(site: Site, domain: str, host: str) -> list[DnsRecord]:
    records = [
        DnsRecord(f"{domain}.", "MX", f"10 {host}", f"mail for {domain} comes here"),
        DnsRecord(f"{domain}.", "TXT", spf_record(site), f"who may send as {domain}"),
        DnsRecord(f"_dmarc.{domain}.", "TXT", "v=DMARC1; p=none", "large providers ask senders for one"),
    ]
    for service, port in site.services:
        value = f"{_SERVICES[service][1]} 1 {port} {host}"
        records.append(DnsRecord(f"_{service}._tcp.{domain}.", "SRV", value, "mail programs find the house"))
    return records


def spf_record(site: Site) -> str:
    """Who sends as a domain of the house: the house, and the smarthost that its mail leaves through."""
    if site.smarthost is None or site.smarthost.is_loopback:
        return "v=spf1 mx -all"
    return f"v=spf1 mx {_spf_mechanism(site.smarthost.host)} -all"


def _spf_mechanism(host: str) -> str:
    """A host as an SPF record names it (RFC 7208 §5)."""
    try:
        return f"ip{ipaddress.ip_address(host).version}:{host}"
    except ValueError:
        return f"a:{host}"


def zone_lines(records: Sequence[DnsRecord]) -> list[str]:
    """Lines for a zone file. What cannot be pasted there is a comment: reverse DNS, and addresses nobody knows here."""
    mine = [record for record in records if record.type != "PTR"]
    width = max((len(record.name) for record in mine), default=0)
    lines = []
    for record in mine:
        value = f'"{record.value}"' if record.type == "TXT" else record.value or "(the public address of your line)"
        mark = "" if record.value else "; "
        lines.append(f"{mark}{record.name:<{width}} {TTL_S} IN {record.type:<4} {value}")
    for record in records:
        if record.type == "PTR":
            name = record.name or "(the public address of your line)"
            lines.append(f"; whoever gave you the address sets: {name} PTR {record.value}")
    return lines
