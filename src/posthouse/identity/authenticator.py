"""Verifies a login and a password: Argon2id with OWASP's parameters, in a bounded pool of threads."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import argon2

from posthouse.mail.account import PASSWORD, Account
from posthouse.mail.address import AddressError, parse_address
from posthouse.mail.world import Clock, Random

HASHING_THREADS = 2
WAITING_LIMIT = 200
CACHE_ENTRIES = 10_000
CACHE_KEEP_S = 900.0
MAX_PASSWORD_OCTETS = 1024
"""Longer ones cannot be chosen, and cost no more to refuse than others."""

_HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class Directory(Protocol):
    """What the authenticator asks of storage."""

    async def account(self, login: str) -> Account | None: ...


class TooManyLogins(Exception):
    """More logins wait to be checked than may: answer with a temporary failure."""


def hash_password(password: str) -> str:
    """An Argon2id verifier for a chosen password (19 MiB, two passes, one lane: about 20 ms). Raises ValueError."""
    octets = _octets(password)
    if len(octets) > MAX_PASSWORD_OCTETS:
        raise ValueError(f"a password has at most {MAX_PASSWORD_OCTETS} octets")
    return _HASHER.hash(octets)


def login_key(login: str) -> str | None:
    """The one spelling of a login, or None when it is not an address."""
    try:
        return parse_address(login).key
    except AddressError:
        return None


class Authenticator:
    """The same work for known and unknown logins, so that timing tells nothing.

    A verified pair of login and password is remembered for a while under a keyed hash, since mail programs log in
    every few minutes; the memory is dropped when the account's credentials change.
    """

    def __init__(self, directory: Directory, clock: Clock, random: Random) -> None:
        self._directory = directory
        self._clock = clock
        self._pool = ThreadPoolExecutor(HASHING_THREADS, thread_name_prefix="argon2")
        self._waiting = 0
        self._cache_key = random.octets(32)
        self._verified: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._nobody = hash_password(random.octets(16).hex())

    async def authenticate(self, login: str, password: str) -> Account | None:
        """The account, or None for a wrong login, a wrong password or a suspended account.

        Raises TooManyLogins, or what storage raises: neither may become "wrong password".
        """
        key = login_key(login)
        account = await self._directory.account(key) if key is not None else None
        octets = _octets(password)
        if len(octets) > MAX_PASSWORD_OCTETS:
            account, octets = None, b""
        if key is None or account is None:
            await self._verify(self._nobody, octets)
            return None
        return await self._check(key, account, octets)

    async def _check(self, key: str, account: Account, password: bytes) -> Account | None:
        """One hash in every case but the remembered one, which only who knows the password can meet."""
        verifiers = [c.verifier for c in account.credentials if c.kind == PASSWORD] or [self._nobody]
        for verifier in verifiers:
            if not account.suspended and self._remembered(key, password, verifier):
                return account
            if await self._verify(verifier, password) and verifier != self._nobody:
                if account.suspended:
                    return None
                self._remember(key, password, verifier)
                return account
        self._verified.pop(self._digest(key, password), None)
        return None

    def close(self) -> None:
        """End the hashing threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _verify(self, verifier: str, password: bytes) -> bool:
        if self._waiting >= WAITING_LIMIT:
            raise TooManyLogins
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, _matches, verifier, password)
        finally:
            self._waiting -= 1

    def _remembered(self, key: str, password: bytes, verifier: str) -> bool:
        entry = self._verified.get(self._digest(key, password))
        return entry is not None and entry[1] == verifier and self._clock.monotonic() < entry[0]

    def _remember(self, key: str, password: bytes, verifier: str) -> None:
        digest = self._digest(key, password)
        self._verified[digest] = (self._clock.monotonic() + CACHE_KEEP_S, verifier)
        self._verified.move_to_end(digest)
        if len(self._verified) > CACHE_ENTRIES:
            self._verified.popitem(last=False)

    def _digest(self, key: str, password: bytes) -> bytes:
        # The login cannot hold a NUL, so the two cannot be moved into each other.
        return hmac.digest(self._cache_key, key.encode() + b"\0" + password, hashlib.sha256)


def _octets(password: str) -> bytes:
    # Whatever a peer sends as text is compared, and is no error.
    return password.encode("utf-8", "surrogatepass")


def _matches(verifier: str, password: bytes) -> bool:
    try:
        return _HASHER.verify(verifier, password)
    except argon2.exceptions.VerificationError:
        return False
