"""What the commands need for passwords. Imported where it is used: Argon2 takes its time to load."""

from __future__ import annotations

from posthouse.cli.common import Problem
from posthouse.config import Config
from posthouse.identity.hashes import hash_password
from posthouse.mail.account import ScramKeys
from posthouse.mail.address import Address
from posthouse.protocol.sasl import SaslError
from posthouse.protocol.sasl_scram import derive_keys
from posthouse.storage.errors import DirectoryConflict
from posthouse.storage.interfaces import Storage

MIN_CHARACTERS = 8
"""Of a chosen password, as NIST SP 800-63B §5.1.1.1 asks for."""


def verifier_for(password: str) -> str:
    """The hash of a chosen password."""
    if len(password) < MIN_CHARACTERS:
        raise Problem(f"a password has at least {MIN_CHARACTERS} characters; leave it out to have one made")
    try:
        return hash_password(password)
    except ValueError as exc:
        raise Problem(str(exc)) from exc


async def scram_keys(
    storage: Storage, config: Config, login: Address, password: str, *, made: bool
) -> ScramKeys | None:
    """The keys of a password under the account's salt, or None. Raises DirectoryConflict.

    What we `made` cannot be guessed, so its keys do no harm in wrong hands; those of what people choose are opt-in.
    """
    account = await storage.directory.account(login.key)
    if account is None:
        raise DirectoryConflict(f"there is no account {login}; see: posthouse account list")
    if not (made or (config.auth.scram and config.auth.scram_for_passwords)):
        return None
    try:
        return derive_keys(password, account.scram_salt, account.scram_iterations)
    except SaslError:
        return None
