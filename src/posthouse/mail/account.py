"""Accounts, and what an address leads to (design: accounts, addresses, identities)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from posthouse.mail.address import Address
from posthouse.mail.ids import AccountId

PASSWORD = "password"
"""The kind of the one chosen password of an account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One way to prove who one is. `verifier` is an Argon2id hash in its usual `$argon2id$…` spelling."""

    kind: str
    verifier: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A login and a maildrop. Account numbers are never used twice."""

    account: AccountId
    login: str
    quota_octets: int | None
    suspended: bool
    credentials: tuple[Credential, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSummary:
    """A line of `account list`."""

    account: AccountId
    login: str
    quota_octets: int | None
    suspended: bool
    message_count: int
    used_octets: int


@dataclass(frozen=True, slots=True)
class Mailbox:
    """The address is a maildrop here."""

    account: AccountId
    login: str


@dataclass(frozen=True, slots=True)
class Expansion:
    """The address is an alias: mail goes to these instead, the reverse-path unchanged (RFC 5321 §3.9.1)."""

    targets: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Remote:
    """The domain is not ours."""

    domain: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The domain is ours; there is no such mailbox."""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The directory cannot answer now; never a reason for a permanent reply."""


Resolution: TypeAlias = Mailbox | Expansion | Remote | Unknown | Unavailable
