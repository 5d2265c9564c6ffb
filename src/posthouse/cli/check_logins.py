"""The part of `posthouse check` that looks at how people log in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posthouse.cli.findings import NOTE, OK, Finding
from posthouse.mail.words import some

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Storage

LOGINS_LOOKED_AT = 10_000


async def scram(config: Config, storage: Storage) -> Finding:
    """Whether SCRAM is offered, which is so where it works for everybody."""
    auth = config.auth
    if not auth.scram:
        return Finding("SCRAM", OK, "not offered, as auth.scram says")
    without = await storage.directory.logins_without_scram(LOGINS_LOOKED_AT)
    if not without:
        return Finding("SCRAM", OK, "offered: it works with every password")
    mend = (
        "it is again when all of them have logged in by PLAIN, or got a password with: posthouse account password"
        if auth.scram_for_passwords
        else "set auth.scram_for_passwords = true, and it is when all of them have logged in; or auth.scram = false"
    )
    return Finding("SCRAM", NOTE, f"not offered: it would not work with the passwords of {some(without)}; {mend}")
