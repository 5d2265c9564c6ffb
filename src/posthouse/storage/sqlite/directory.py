"""Who is there: point look-ups on the loop's own connection, with a bounded cache that one query keeps fresh."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import apsw

from posthouse.mail.account import (
    Account,
    Credential,
    Expansion,
    Identity,
    Mailbox,
    Remote,
    Resolution,
    ScramKeys,
    Unknown,
)
from posthouse.mail.address import Address, AddressError, parse_address, quoted, unquoted
from posthouse.mail.ids import AccountId, CredentialId
from posthouse.storage.sqlite.connection import row, rows
from posthouse.storage.sqlite.errors import storage_errors
from posthouse.storage.sqlite.identities import find_identity
from posthouse.storage.sqlite.threads import Readers

CACHE_ENTRIES = 8192

_VERSION = "SELECT version FROM directory_version"
_MAILBOX = """
SELECT account, login, quota_octets FROM addresses JOIN accounts USING (account)
WHERE address_key = ? AND removed_at IS NULL"""
_TARGETS = "SELECT local_part, domain FROM alias_targets WHERE address_key = ? ORDER BY target_number"
_ACCOUNT = """
SELECT account, login, quota_octets, suspended, scram_salt, scram_iterations
FROM accounts WHERE login_key = ? AND removed_at IS NULL"""
_CREDENTIALS = """
SELECT credential, kind, verifier, name, scram_stored_key, scram_server_key
FROM credentials WHERE account = ? ORDER BY credential"""
_WITHOUT_SCRAM = """
SELECT DISTINCT login FROM credentials JOIN accounts USING (account)
WHERE scram_stored_key IS NULL AND removed_at IS NULL AND suspended = 0 ORDER BY credentials.account LIMIT ?"""
# Whoever is a direct target of an alias may answer as it.
_IDENTITIES = """
SELECT local_part, domain FROM addresses WHERE account = ?1
UNION ALL
SELECT aliases.local_part, aliases.domain FROM addresses
JOIN alias_targets ON target_key = addresses.address_key
JOIN aliases ON aliases.address_key = alias_targets.address_key
WHERE addresses.account = ?1
UNION ALL
SELECT local_part, domain FROM identities WHERE account = ?1"""


class SqliteDirectory:
    """Answers are cached until any process changes the directory."""

    def __init__(self, readers: Readers) -> None:
        self._connection = readers.here
        self._version = -1
        self._resolve = lru_cache(CACHE_ENTRIES)(self._look_up)
        self._account = lru_cache(CACHE_ENTRIES)(self._look_up_account)
        self._identities = lru_cache(CACHE_ENTRIES)(self._look_up_identities)
        self._identity = lru_cache(CACHE_ENTRIES)(self._look_up_identity)
        self._without_scram = lru_cache(1)(self._look_up_without_scram)
        self._is_local = lru_cache(CACHE_ENTRIES)(self._look_up_domain)
        self._domains = lru_cache(1)(self._look_up_domains)
        self._caches = (
            self._resolve,
            self._account,
            self._identities,
            self._identity,
            self._without_scram,
            self._is_local,
            self._domains,
        )

    async def resolve(self, forward_path: Address) -> Resolution:
        with storage_errors():
            self._freshen()
            return self._resolve(forward_path.key, forward_path.domain)

    async def account(self, login: str) -> Account | None:
        key = login_key(login)
        if key is None:
            return None
        with storage_errors():
            self._freshen()
            return self._account(key)

    async def identities(self, account: AccountId) -> tuple[Address, ...]:
        with storage_errors():
            self._freshen()
            return self._identities(account)

    async def identity(self, address: Address) -> Identity | None:
        with storage_errors():
            self._freshen()
            return self._identity(address.key)

    async def logins_without_scram(self, limit: int) -> tuple[str, ...]:
        with storage_errors():
            self._freshen()
            return self._without_scram(limit)

    async def domains(self) -> tuple[str, ...]:
        with storage_errors():
            self._freshen()
            return self._domains()

    def _freshen(self) -> None:
        """Drop the cache if the directory changed since it was filled."""
        version = row(self._connection, _VERSION)[0]
        if version != self._version:
            for cache in self._caches:
                cache.cache_clear()
            self._version = version

    def _look_up(self, key: str, domain: str) -> Resolution:
        if not domain:
            return Unknown()
        if not self._is_local(domain):
            return Remote(domain)
        for candidate in _candidates(key, domain):
            mailbox = row(self._connection, _MAILBOX, (candidate,))
            if mailbox is not None:
                return Mailbox(*mailbox)
            targets = rows(self._connection, _TARGETS, (candidate,))
            if targets:
                return Expansion(tuple(Address(*target) for target in targets))
        return Unknown()

    def _look_up_account(self, key: str) -> Account | None:
        found = row(self._connection, _ACCOUNT, (key,))
        if found is None:
            return None
        account, login, quota_octets, suspended, salt, iterations = found
        credentials: list[Any] = rows(self._connection, _CREDENTIALS, (account,))
        return Account(
            account=account,
            login=login,
            quota_octets=quota_octets,
            suspended=bool(suspended),
            credentials=tuple(_credential(*credential) for credential in credentials),
            scram_salt=salt,
            scram_iterations=iterations,
        )

    def _look_up_identities(self, account: AccountId) -> tuple[Address, ...]:
        return tuple(Address(*found) for found in rows(self._connection, _IDENTITIES, (account,)))

    def _look_up_identity(self, key: str) -> Identity | None:
        return find_identity(self._connection, key)

    def _look_up_without_scram(self, limit: int) -> tuple[str, ...]:
        return tuple(login for (login,) in rows(self._connection, _WITHOUT_SCRAM, (limit,)))

    def _look_up_domain(self, domain: str) -> bool:
        return row(self._connection, "SELECT 1 FROM domains WHERE domain = ?", (domain,)) is not None

    def _look_up_domains(self) -> tuple[str, ...]:
        return tuple(domain for (domain,) in rows(self._connection, "SELECT domain FROM domains ORDER BY domain"))


def _credential(
    credential: CredentialId, kind: str, verifier: str, name: str, stored_key: bytes | None, server_key: bytes | None
) -> Credential:
    scram = None if stored_key is None or server_key is None else ScramKeys(stored_key, server_key)
    return Credential(kind=kind, verifier=verifier, credential=credential, name=name, scram=scram)


def login_key(login: str) -> str | None:
    """The key of a login, which is an address; None when it is none."""
    try:
        return parse_address(login).key
    except AddressError:
        return None


def _candidates(key: str, domain: str) -> tuple[str, ...]:
    """The keys to try: the address itself, the one without its `+detail`, the domain's catch-all."""
    local_part = unquoted(key[: -len(domain) - 1])
    base, plus, _ = local_part.partition("+")
    catch_all = Address("", domain).key
    return (key, f"{quoted(base)}@{domain}", catch_all) if plus and base else (key, catch_all)


def bump(connection: apsw.Connection) -> None:
    """Tell every process that the directory changed, in the transaction that changes it."""
    connection.execute("UPDATE directory_version SET version = version + 1")
