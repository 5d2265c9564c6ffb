"""Changes to the directory, each one transaction. What contradicts it is refused in words for the operator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import apsw

from posthouse.mail.account import (
    PASSWORD,
    SCRAM_ITERATIONS,
    AccountSummary,
    Identity,
    ImportProblem,
    NewAccount,
    ScramKeys,
)
from posthouse.mail.address import Address, AddressError, parse_domain, unquoted
from posthouse.mail.folders import INBOX
from posthouse.mail.ids import AccountId
from posthouse.mail.world import Random
from posthouse.storage.errors import DirectoryConflict
from posthouse.storage.sqlite.connection import row, rows
from posthouse.storage.sqlite.credentials import add_credential, find_account
from posthouse.storage.sqlite.directory import bump
from posthouse.storage.sqlite.identities import all_identities, delete_identity, insert_identity, require_no_identity
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.sqlite.writer import T, Work, Writer

_SCRAM_SALT_OCTETS = 16

_ADD_ACCOUNT = """
INSERT INTO accounts(login, login_key, quota_octets, created_at, scram_salt, scram_iterations)
VALUES (?, ?, ?, ?, ?, ?)"""
_BY_LOGIN = "SELECT account FROM accounts WHERE login_key = ? AND removed_at IS NULL"
_SUMMARIES = """
SELECT account, login, quota_octets, suspended, recipients_per_hour, coalesce(sum(message_count), 0),
    coalesce(sum(used_octets), 0)
FROM accounts LEFT JOIN folders USING (account) WHERE removed_at IS NULL GROUP BY account ORDER BY login_key"""


class SqliteAdministration:
    """The operator's changes; every process sees them at once."""

    def __init__(self, writer: Writer, readers: Readers, random: Random) -> None:
        self._writer = writer
        self._readers = readers
        self._random = random

    async def add_domain(self, domain: str) -> None:
        name = _domain(domain)

        def work(connection: apsw.Connection) -> None:
            if _is_local(connection, name):
                raise DirectoryConflict(f"the domain {name} is there already")
            require_no_identity(connection, name)
            connection.execute("INSERT INTO domains VALUES (?)", (name,))

        await self._change(work)

    async def remove_domain(self, domain: str) -> None:
        name = _domain(domain)

        def work(connection: apsw.Connection) -> None:
            if not _is_local(connection, name):
                raise DirectoryConflict(f"the domain {name} is not local; see: posthouse domain list")
            for table, command in (("addresses", "account"), ("aliases", "alias")):
                used = row(connection, f"SELECT local_part FROM {table} WHERE domain = ? LIMIT 1", (name,))
                if used is not None:
                    address = f"{used[0]}@{name}"
                    raise DirectoryConflict(
                        f"the domain {name} still has {address}; run: posthouse {command} remove {address}"
                    )
            connection.execute("DELETE FROM domains WHERE domain = ?", (name,))

        await self._change(work)

    async def domains(self) -> tuple[str, ...]:
        sql = "SELECT domain FROM domains ORDER BY domain"
        return tuple(domain for (domain,) in await self._readers.query(lambda connection: rows(connection, sql)))

    async def add_account(self, address: Address, *, verifier: str, quota_octets: int | None, now: float) -> AccountId:
        salt = self._random.octets(_SCRAM_SALT_OCTETS)

        def work(connection: apsw.Connection) -> AccountId:
            return insert_account(connection, address, verifier, quota_octets=quota_octets, now=now, salt=salt)

        return await self._change(work)

    async def import_accounts(
        self, accounts: Sequence[NewAccount], *, now: float, skip_errors: bool, dry_run: bool
    ) -> tuple[ImportProblem, ...]:
        def work(connection: apsw.Connection) -> tuple[ImportProblem, ...]:
            connection.execute("SAVEPOINT import")
            problems = tuple(self._import(connection, accounts, now))
            if dry_run or (problems and not skip_errors):
                connection.execute("ROLLBACK TO import")
            connection.execute("RELEASE import")
            return problems

        return await self._change(work)

    async def system_maildrop(self, login: Address, now: float) -> AccountId:
        salt = self._random.octets(_SCRAM_SALT_OCTETS)

        def work(connection: apsw.Connection) -> AccountId:
            found = row(connection, _BY_LOGIN, (login.key,))
            return AccountId(found[0]) if found is not None else _insert_maildrop(connection, login, None, now, salt)

        return await self._change(work)

    async def accounts(self) -> tuple[AccountSummary, ...]:
        found = await self._readers.query(lambda connection: rows(connection, _SUMMARIES))
        return tuple(
            AccountSummary(
                account=account,
                login=login,
                quota_octets=quota_octets,
                suspended=bool(suspended),
                recipients_per_hour=recipients_per_hour,
                message_count=message_count,
                used_octets=used_octets,
            )
            for account, login, quota_octets, suspended, recipients_per_hour, message_count, used_octets in found
        )

    async def set_password(self, login: str, verifier: str, now: float, scram: ScramKeys | None = None) -> None:
        def work(connection: apsw.Connection) -> None:
            account = find_account(connection, login)
            connection.execute("DELETE FROM credentials WHERE account = ? AND kind = ?", (account, PASSWORD))
            add_credential(connection, account, PASSWORD, verifier, scram=scram, now=now)

        await self._change(work)

    async def set_suspended(self, login: str, suspended: bool) -> None:
        def work(connection: apsw.Connection) -> None:
            account = find_account(connection, login)
            connection.execute("UPDATE accounts SET suspended = ? WHERE account = ?", (suspended, account))

        await self._change(work)

    async def set_recipients_per_hour(self, login: str, limit: int | None) -> None:
        def work(connection: apsw.Connection) -> None:
            account = find_account(connection, login)
            connection.execute("UPDATE accounts SET recipients_per_hour = ? WHERE account = ?", (limit, account))

        await self._change(work)

    async def set_quota(self, login: str, quota_octets: int | None) -> None:
        def work(connection: apsw.Connection) -> None:
            account = find_account(connection, login)
            connection.execute("UPDATE accounts SET quota_octets = ? WHERE account = ?", (quota_octets, account))

        await self._change(work)

    async def remove_account(self, login: str, *, keep_mail: bool, now: float) -> None:
        def work(connection: apsw.Connection) -> None:
            account = find_account(connection, login)
            connection.execute("UPDATE accounts SET removed_at = ? WHERE account = ?", (now, account))
            connection.execute("DELETE FROM credentials WHERE account = ?", (account,))
            connection.execute("DELETE FROM addresses WHERE account = ?", (account,))
            connection.execute("DELETE FROM identities WHERE account = ?", (account,))
            connection.execute("DELETE FROM sources WHERE account = ?", (account,))
            if not keep_mail:
                _remove_mail(connection, account, now)

        await self._change(work)

    async def add_alias(self, address: Address, targets: Sequence[Address]) -> None:
        await self._change(lambda connection: insert_alias(connection, address, targets))

    async def aliases(self) -> tuple[tuple[Address, tuple[Address, ...]], ...]:
        sql = """
            SELECT aliases.local_part, aliases.domain, alias_targets.local_part, alias_targets.domain
            FROM aliases JOIN alias_targets USING (address_key) ORDER BY address_key, target_number"""
        gathered: dict[Address, list[Address]] = {}
        for local_part, domain, *target in await self._readers.query(lambda connection: rows(connection, sql)):
            gathered.setdefault(Address(local_part, domain), []).append(Address(*target))
        return tuple((address, tuple(targets)) for address, targets in gathered.items())

    async def remove_alias(self, address: Address) -> None:
        def work(connection: apsw.Connection) -> None:
            connection.execute("DELETE FROM aliases WHERE address_key = ?", (address.key,))
            if not connection.changes():
                raise DirectoryConflict(f"there is no alias {address}; see: posthouse alias list")

        await self._change(work)

    async def add_identity(self, address: Address, login: str, via: str = "") -> None:
        def work(connection: apsw.Connection) -> None:
            account = find_account(connection, login)
            insert_identity(connection, Identity(address=address, account=account, login=login, via=via))

        await self._change(work)

    async def identities(self) -> tuple[Identity, ...]:
        return await self._readers.query(all_identities)

    async def remove_identity(self, address: Address) -> None:
        await self._change(lambda connection: delete_identity(connection, address))

    def _import(
        self, connection: apsw.Connection, accounts: Sequence[NewAccount], now: float
    ) -> Iterator[ImportProblem]:
        for new in accounts:
            salt = self._random.octets(_SCRAM_SALT_OCTETS)
            connection.execute("SAVEPOINT one")
            try:
                account = insert_account(
                    connection, new.address, new.verifier, quota_octets=new.quota_octets, now=now, salt=salt
                )
                connection.execute("UPDATE accounts SET suspended = ? WHERE account = ?", (new.suspended, account))
                for alias in new.aliases:
                    insert_alias(connection, alias, (new.address,))
            except DirectoryConflict as exc:
                connection.execute("ROLLBACK TO one")
                yield ImportProblem(new.line, str(exc))
            connection.execute("RELEASE one")

    async def _change(self, work: Work[T]) -> T:
        """Run it in one transaction with the stamp that makes every process see it."""

        def both(connection: apsw.Connection) -> T:
            value = work(connection)
            bump(connection)
            return value

        return await self._writer.submit(both)


def insert_account(
    connection: apsw.Connection, address: Address, verifier: str, *, quota_octets: int | None, now: float, salt: bytes
) -> AccountId:
    """An account with its password, its address and its Inbox. Raises DirectoryConflict."""
    _require_local(connection, address.domain)
    _require_free(connection, address)
    _require_no_login(connection, address)
    account = _insert_maildrop(connection, address, quota_octets, now, salt)
    add_credential(connection, account, PASSWORD, verifier, now=now)
    spelled = (address.key, address.local_part, address.domain, account)
    connection.execute("INSERT INTO addresses VALUES (?, ?, ?, ?)", spelled)
    return account


def insert_alias(connection: apsw.Connection, address: Address, targets: Sequence[Address]) -> None:
    """An address that leads to others. Raises DirectoryConflict."""
    if not targets:
        raise DirectoryConflict(f"the alias {address} needs at least one target")
    if address.key in {target.key for target in targets}:
        raise DirectoryConflict(f"the alias {address} leads to itself")
    _require_local(connection, address.domain)
    _require_free(connection, address)
    connection.execute("INSERT INTO aliases VALUES (?, ?, ?)", (address.key, address.local_part, address.domain))
    connection.executemany(
        "INSERT INTO alias_targets VALUES (?, ?, ?, ?, ?)",
        [(address.key, number, t.local_part, t.domain, t.key) for number, t in enumerate(targets)],
    )


def _domain(text: str) -> str:
    try:
        name = parse_domain(text)
    except AddressError as exc:
        raise DirectoryConflict(f"{text!r} is not a domain: {exc}") from exc
    if name.startswith("["):
        raise DirectoryConflict(f"{text} is an address literal, not a domain")
    return name


def _is_local(connection: apsw.Connection, domain: str) -> bool:
    return row(connection, "SELECT 1 FROM domains WHERE domain = ?", (domain,)) is not None


def _require_local(connection: apsw.Connection, domain: str) -> None:
    if not _is_local(connection, domain):
        raise DirectoryConflict(f"the domain {domain} is not local; run: posthouse domain add {domain}")


def _insert_maildrop(
    connection: apsw.Connection, login: Address, quota_octets: int | None, now: float, salt: bytes
) -> AccountId:
    """The account and its Inbox; how it is logged in to and found is for others to add."""
    connection.execute(_ADD_ACCOUNT, (str(login), login.key, quota_octets, now, salt, SCRAM_ITERATIONS))
    account = AccountId(connection.last_insert_rowid())
    folder = (account, INBOX, int(now))
    connection.execute("INSERT INTO folders(account, name, uid_validity) VALUES (?, ?, ?)", folder)
    return account


def _require_no_login(connection: apsw.Connection, address: Address) -> None:
    """A system maildrop has a login and no address."""
    if row(connection, _BY_LOGIN, (address.key,)) is not None:
        raise DirectoryConflict(
            f"{address} is this house's system maildrop; log in to it after: posthouse account password {address}"
        )


def _require_free(connection: apsw.Connection, address: Address) -> None:
    if address.local_part and not unquoted(address.local_part):
        raise DirectoryConflict(f"{address} names nobody; all other addresses of a domain are @{address.domain}")
    for table, kind in (("addresses", "account"), ("aliases", "alias")):
        if row(connection, f"SELECT 1 FROM {table} WHERE address_key = ?", (address.key,)) is not None:
            raise DirectoryConflict(f"there is an {kind} {address} already; run: posthouse {kind} list")


def _remove_mail(connection: apsw.Connection, account: AccountId, now: float) -> None:
    connection.execute(
        "INSERT OR IGNORE INTO unreferenced SELECT ?2, queue_id FROM entries WHERE account = ?1", (account, now)
    )
    connection.execute("DELETE FROM entries WHERE account = ?", (account,))
    connection.execute("DELETE FROM folders WHERE account = ?", (account,))
