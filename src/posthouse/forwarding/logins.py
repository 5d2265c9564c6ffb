"""Logins of identities at their own submission servers: where they are kept is in the store, what they are is not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from posthouse.config_forwarding import Credentials, TlsMode
from posthouse.mail.address import AddressError, parse_address
from posthouse.mail.source import Protection
from posthouse.storage.interfaces import Directory

FindLogin: TypeAlias = Callable[[str], Awaitable[Credentials | None]]
"""The login of the identity with this address, as it is now. Raises SecretMissing."""

MODES = {
    Protection.IMPLICIT: TlsMode.IMPLICIT,
    Protection.STARTTLS: TlsMode.REQUIRED,
    Protection.NONE: TlsMode.NEVER,
}


async def nobodys(_identity: str) -> None:
    """No identity has a login of its own."""


@dataclass(frozen=True, slots=True)
class IdentityLogins:
    """Reads each time what is there: a new password needs no restart, a token is never old.

    `secret`: reads what a reference refers to.
    """

    directory: Directory
    secret: Callable[[str], Awaitable[str]]

    async def __call__(self, identity: str) -> Credentials | None:
        """See FindLogin."""
        try:
            found = await self.directory.identity(parse_address(identity))
        except AddressError:
            return None
        if found is None or found.submission is None:
            return None
        own = found.submission
        secret = await self.secret(own.secret)
        return Credentials(own.login, secret, own.mechanism, MODES[own.protection])
