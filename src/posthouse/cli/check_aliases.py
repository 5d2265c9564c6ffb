"""Aliases that lead to nobody: mail to them is refused, or reaches fewer people than it should."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from posthouse.cli.findings import NOTE, Finding

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.mail.address import Address
    from posthouse.storage.interfaces import Storage

MOST_SHOWN = 20


async def leading_nowhere(storage: Storage, config: Config, targets: Iterable[Address]) -> list[Address]:
    """Those of our own domains that lead to nobody."""
    from posthouse.admission.routing import Home, route

    home = Home(hostname=config.hostname, postmaster=config.postmaster, roles=frozenset(config.reception.roles))
    domains = await storage.directory.domains()
    return [
        target
        for target in targets
        if target.domain in domains and (await route(storage.directory, target, home)).leads_nowhere
    ]


async def aliases(storage: Storage, config: Config) -> list[Finding]:
    """A note for each alias with such a target."""
    found = []
    for address, targets in await storage.administration.aliases():
        for target in await leading_nowhere(storage, config, targets):
            text = f"{address} leads to {target}, which is nobody; see: posthouse alias list"
            found.append(Finding("alias", NOTE, text))
    more = len(found) - MOST_SHOWN
    return found[:MOST_SHOWN] + ([Finding("alias", NOTE, f"and {more} more like that")] if more > 0 else [])
