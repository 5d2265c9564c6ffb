"""Identities: addresses of other houses' domains that an account of ours may send as."""

from __future__ import annotations

import apsw

from posthouse.mail.account import Identity, Submission
from posthouse.mail.address import Address
from posthouse.mail.ids import AccountId
from posthouse.mail.source import Mechanism, Protection
from posthouse.storage.errors import DirectoryConflict
from posthouse.storage.sqlite.connection import row, rows

_COLUMNS = """
SELECT identities.local_part, identities.domain, account, login, via, name, submission_login, secret, mechanism,
    protection FROM identities JOIN accounts USING (account)"""
_ONE = f"{_COLUMNS} WHERE address_key = ?"
_ADD = """
INSERT INTO identities(address_key, local_part, domain, account, via, name, submission_login, secret, mechanism,
    protection) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_CHANGE = """
UPDATE identities SET via = ?, name = ?, submission_login = ?, secret = ?, mechanism = ?, protection = ?
WHERE address_key = ?"""
_ALL = f"{_COLUMNS} ORDER BY identities.domain, address_key"


def find_identity(connection: apsw.Connection, key: str) -> Identity | None:
    """The identity of that `Address.key`."""
    found = row(connection, _ONE, (key,))
    return _identity(*found) if found is not None else None


def all_identities(connection: apsw.Connection) -> tuple[Identity, ...]:
    """In order of their domains."""
    return tuple(_identity(*found) for found in rows(connection, _ALL))


def insert_identity(connection: apsw.Connection, identity: Identity) -> None:
    """One more. Raises DirectoryConflict."""
    address, login = identity.address, identity.login
    if address.domain.startswith("["):
        raise DirectoryConflict(f"{address} is at an IP address; an identity is an address such as you@example.org")
    if row(connection, "SELECT 1 FROM domains WHERE domain = ?", (address.domain,)) is not None:
        raise DirectoryConflict(
            f"{address.domain} is a domain of this house, where who reads an address may send as it; "
            f"run: posthouse alias add {address} {login}"
        )
    there = find_identity(connection, address.key)
    if there is not None:
        raise DirectoryConflict(
            f"{there.address} is an identity of {there.login} already; run: posthouse identity remove {there.address}"
        )
    whose = (address.key, address.local_part, address.domain, identity.account)
    connection.execute(_ADD, (*whose, *_spelled(identity)))


def update_identity(connection: apsw.Connection, identity: Identity) -> None:
    """Another way out or another name, for the same account. Raises DirectoryConflict."""
    connection.execute(_CHANGE, (*_spelled(identity), identity.address.key))
    _require_one(connection, identity.address)


def delete_identity(connection: apsw.Connection, address: Address) -> None:
    """One less. Raises DirectoryConflict."""
    connection.execute("DELETE FROM identities WHERE address_key = ?", (address.key,))
    _require_one(connection, address)


def require_no_identity(connection: apsw.Connection, domain: str) -> None:
    """A domain that becomes ours has addresses, not identities. Raises DirectoryConflict."""
    found = row(connection, "SELECT local_part FROM identities WHERE domain = ? LIMIT 1", (domain,))
    if found is not None:
        address = f"{found[0]}@{domain}"
        raise DirectoryConflict(
            f"{address} is an identity, so {domain} is another house's; if it is yours now, run: "
            f"posthouse identity remove {address}"
        )


def _require_one(connection: apsw.Connection, address: Address) -> None:
    if not connection.changes():
        raise DirectoryConflict(f"there is no identity {address}; see: posthouse identity list")


def _spelled(identity: Identity) -> tuple[str, ...]:
    own = identity.submission
    if own is None:
        return identity.via, identity.name, "", "", "", ""
    return identity.via, identity.name, own.login, own.secret, own.mechanism, own.protection


def _identity(
    local_part: str,
    domain: str,
    account: int,
    login: str,
    via: str,
    name: str,
    own_login: str,
    secret: str,
    mechanism: str,
    protection: str,
) -> Identity:
    own = None
    if secret:
        own = Submission(
            login=own_login, secret=secret, mechanism=Mechanism(mechanism), protection=Protection(protection)
        )
    return Identity(
        address=Address(local_part, domain),
        account=AccountId(account),
        login=login,
        via=via,
        name=name,
        submission=own,
    )
