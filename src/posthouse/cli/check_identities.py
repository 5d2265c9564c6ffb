"""Identities whose submission server has no login here, without which few take mail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posthouse.cli.findings import NOTE, Finding
from posthouse.mail.words import some

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Storage


def login_wanted(config: Config, via: str) -> str | None:
    """What to write into the configuration, where it has no login for that submission server."""
    if not via or via in getattr(config.forwarding, "login", {}):
        return None
    table = f'[forwarding.login."{via}"]'
    return f"there is no login for {via}; unless it takes mail without one, write into the configuration: {table}"


async def identities(storage: Storage, config: Config) -> list[Finding]:
    """A note for each submission server without a login."""
    found: dict[str, list[str]] = {}
    for identity in await storage.administration.identities():
        found.setdefault(identity.via, []).append(str(identity.address))
    wanted = [(login_wanted(config, via), addresses) for via, addresses in found.items()]
    return [
        Finding("identity", NOTE, f"for mail from {some(addresses)}: {text}")
        for text, addresses in wanted
        if text is not None
    ]
