"""Whom an account may send as: whoever reads an address may answer from it.

That is asked of the same look-up that delivers, so that `+detail`, aliases, catch-alls, quoting, NFC and IDNA cannot
mean one thing at the front of the house and another at its back.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from posthouse.admission.routing import FOLLOWED_PER_TURN, Home, resolve
from posthouse.admission.routing import Directory as RoutingDirectory
from posthouse.mail.account import Expansion, Identity, Mailbox, Unavailable
from posthouse.mail.address import Address
from posthouse.mail.ids import AccountId
from posthouse.storage.errors import StorageBusy


class Directory(RoutingDirectory, Protocol):
    """What admission asks of storage."""

    async def identities(self, account: AccountId) -> tuple[Address, ...]: ...

    async def identity(self, address: Address) -> Identity | None: ...


async def may_send_as(directory: Directory, account: AccountId, address: Address, home: Home) -> bool:
    """Whether mail to the address comes to the account, by itself or as a direct target of an alias.

    Raises StorageBusy when the directory cannot say.
    """
    resolution = await resolve(directory, address, home)
    if isinstance(resolution, Mailbox):
        return resolution.account == account
    if isinstance(resolution, Unavailable):
        raise StorageBusy("the directory cannot be asked now")
    if isinstance(resolution, Expansion):
        for number, target in enumerate(resolution.targets, start=1):
            if not number % FOLLOWED_PER_TURN:
                await asyncio.sleep(0)
            found = await resolve(directory, target, home)
            if isinstance(found, Mailbox) and found.account == account:
                return True
    # Identities elsewhere are no addresses of ours, and no look-up of ours leads to them.
    return address.key in {identity.key for identity in await directory.identities(account)}
