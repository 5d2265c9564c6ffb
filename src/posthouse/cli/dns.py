"""`posthouse dns`: the records to publish, as lines of a zone file."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import typer

from posthouse.cli.check import AddressOption, checked_addresses, site_here
from posthouse.cli.common import ConfigOption, JsonOption, Problem, print_json, with_storage
from posthouse.cli.dns_records import dns_records, zone_lines

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Storage
    from posthouse.world import World


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("dns")(dns)


def dns(config: ConfigOption = None, address: AddressOption = None, json: JsonOption = False) -> None:
    """Print the DNS records to publish.

    They are lines for a zone file. Nothing is asked; `posthouse check` compares them with what DNS says.
    """
    told = checked_addresses(address)

    async def work(storage: Storage, loaded: Config, _world: World) -> tuple[Config, tuple[str, ...]]:
        return loaded, await storage.administration.domains()

    loaded, domains = with_storage(config, work)
    site = site_here(loaded, domains, told)
    if not site.has_name:
        raise Problem(f"hostname is the address {site.hostname}, and DNS has no records of it; set hostname to a name")
    records = dns_records(site)
    if json:
        print_json([dataclasses.asdict(record) for record in records])
        return
    for line in zone_lines(records):
        print(line)
