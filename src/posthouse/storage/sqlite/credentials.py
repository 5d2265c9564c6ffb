"""What accounts log in with: app passwords, better hashes, times of last use; and the keys of the house itself."""

from __future__ import annotations

from collections.abc import Mapping

import apsw

from posthouse.mail.account import APP_PASSWORD, AppPassword, ScramKeys
from posthouse.mail.ids import AccountId, CredentialId
from posthouse.mail.world import Random
from posthouse.storage.errors import DirectoryConflict
from posthouse.storage.sqlite.connection import row, rows
from posthouse.storage.sqlite.directory import bump, login_key
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.sqlite.writer import Writer

_SECRET_OCTETS = 32

_ADD = """
INSERT INTO credentials(account, kind, verifier, name, created_at, scram_stored_key, scram_server_key)
VALUES (?, ?, ?, ?, ?, ?, ?)"""
_LIST = """
SELECT name, credentials.created_at, last_used_at FROM credentials
JOIN accounts USING (account) WHERE login_key = ? AND removed_at IS NULL AND kind = ? ORDER BY credential"""
_REPLACE = """
UPDATE credentials SET verifier = ?, scram_stored_key = ?, scram_server_key = ?
WHERE credential = ? AND verifier = ?"""
_USED = "UPDATE credentials SET last_used_at = max(coalesce(last_used_at, 0), ?) WHERE credential = ?"


class SqliteCredentials:
    """Implements `storage.interfaces.Credentials`."""

    def __init__(self, writer: Writer, readers: Readers, random: Random) -> None:
        self._writer = writer
        self._readers = readers
        self._random = random

    async def add_app_password(
        self, login: str, name: str, *, verifier: str, scram: ScramKeys | None, now: float
    ) -> None:
        def work(connection: apsw.Connection) -> None:
            account = find_account(connection, login)
            taken = row(
                connection,
                "SELECT 1 FROM credentials WHERE account = ? AND kind = ? AND name = ?",
                (account, APP_PASSWORD, name),
            )
            if taken is not None:
                raise DirectoryConflict(
                    f"{login} has an app password {name!r} already; see: posthouse account app-password list {login}"
                )
            add_credential(connection, account, APP_PASSWORD, verifier, name=name, scram=scram, now=now)
            bump(connection)

        await self._writer.submit(work)

    async def app_passwords(self, login: str) -> tuple[AppPassword, ...]:
        key = login_key(login)

        def work(connection: apsw.Connection) -> tuple[AppPassword, ...]:
            find_account(connection, login)
            return tuple(AppPassword(*found) for found in rows(connection, _LIST, (key, APP_PASSWORD)))

        return await self._readers.query(work)

    async def revoke_app_password(self, login: str, name: str) -> None:
        def work(connection: apsw.Connection) -> None:
            account = find_account(connection, login)
            connection.execute(
                "DELETE FROM credentials WHERE account = ? AND kind = ? AND name = ?", (account, APP_PASSWORD, name)
            )
            if not connection.changes():
                raise DirectoryConflict(
                    f"{login} has no app password {name!r}; see: posthouse account app-password list {login}"
                )
            bump(connection)

        await self._writer.submit(work)

    async def replace(self, credential: CredentialId, old: str, new: str, scram: ScramKeys | None) -> None:
        keys = (None, None) if scram is None else (scram.stored_key, scram.server_key)

        def work(connection: apsw.Connection) -> None:
            connection.execute(_REPLACE, (new, *keys, credential, old))
            if connection.changes():
                bump(connection)

        await self._writer.submit(work)

    async def note_used(self, used: Mapping[CredentialId, float]) -> None:
        def work(connection: apsw.Connection) -> None:
            # No process has to hear of it: the directory's stamp stays, and with it the caches.
            connection.executemany(_USED, [(at, credential) for credential, at in used.items()])

        await self._writer.submit(work)

    async def secret(self, name: str) -> bytes:
        query = "SELECT octets FROM secrets WHERE name = ?"
        found = await self._readers.query(lambda connection: row(connection, query, (name,)))
        if found is not None:
            return bytes(found[0])
        fresh = self._random.octets(_SECRET_OCTETS)

        def work(connection: apsw.Connection) -> bytes:
            connection.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?)", (name, fresh))
            return bytes(row(connection, query, (name,))[0])

        return await self._writer.submit(work)


def add_credential(
    connection: apsw.Connection,
    account: AccountId,
    kind: str,
    verifier: str,
    *,
    name: str = "",
    scram: ScramKeys | None = None,
    now: float,
) -> None:
    """One more way to log in."""
    keys = (None, None) if scram is None else (scram.stored_key, scram.server_key)
    connection.execute(_ADD, (account, kind, verifier, name, now, *keys))


def find_account(connection: apsw.Connection, login: str) -> AccountId:
    """The account's number. Raises DirectoryConflict."""
    key = login_key(login)
    found = row(connection, "SELECT account FROM accounts WHERE login_key = ? AND removed_at IS NULL", (key,))
    if found is None:
        raise DirectoryConflict(f"there is no account {login}; see: posthouse account list")
    return AccountId(found[0])
