"""Identities whose submission server has no login here: mail from them waits, and leaves no other way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posthouse.cli.findings import PROBLEM, Finding
from posthouse.mail.words import some

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Storage


def login_wanted(config: Config, via: str) -> str | None:
    """What to write into the configuration, where it has no login for that submission server."""
    if not via or via in config.forwarding.login:
        return None
    table = f'[forwarding.login."{via}"]'
    return f"there is no login for {via}, and mail waits until there is one; write into the configuration: {table}"


async def identities(storage: Storage, config: Config) -> list[Finding]:
    """A problem for each submission server without a login."""
    found: dict[str, list[str]] = {}
    for identity in await storage.administration.identities():
        if identity.submission is not None:
            continue
        found.setdefault(identity.via, []).append(str(identity.address))
    wanted = [(login_wanted(config, via), addresses) for via, addresses in found.items()]
    return [
        Finding("identity", PROBLEM, f"for mail from {some(addresses)}: {text}")
        for text, addresses in wanted
        if text is not None
    ]
