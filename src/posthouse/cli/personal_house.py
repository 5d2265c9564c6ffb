"""`posthouse init --personal`: a house for its owner alone. No door, no domain that others know, nothing to publish."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from posthouse.cli.accounts import new_password
from posthouse.config import NAME, PERSONAL_HOST, load
from posthouse.mail.address import Address

OWNER = Address("me", PERSONAL_HOST)

_TEMPLATE = f"""\
# A house of one's own: it collects mail from accounts elsewhere, and sends through their servers.
# Add one with: posthouse add-account you@example.org. Relative paths are relative to this file.
hostname = "{PERSONAL_HOST}"  # known to nobody else
data_dir = "."
postmaster = "{OWNER}"  # who reads what the house itself reports

# [listen]  # absent: no door is open, and nobody can connect to this house
"""


def furnish_personal(made: Path) -> None:
    """Configuration and store, in this folder. The account has a password that nobody knows: there is no door."""
    descriptor = os.open(made / NAME, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(_TEMPLATE)
    asyncio.run(_fill(made))


async def _fill(made: Path) -> None:
    from posthouse.cli.passwords import verifier_for
    from posthouse.engines import open_storage
    from posthouse.world import World

    world = World()
    storage = await open_storage(load(made / NAME), world, create=True)
    try:
        await storage.administration.add_domain(PERSONAL_HOST)
        await storage.administration.add_account(
            OWNER, verifier=verifier_for(new_password()), quota_octets=None, now=world.clock.now()
        )
    finally:
        await storage.close()


def tell_personal(folder: Path, option: str) -> None:
    """`option`: what commands need to find it, "" for nothing."""
    print(f"Your house is ready in {folder}. No door of it is open, and nobody else needs to know of it. Next:")
    print(f"  posthouse add-account you@example.org{option}")
