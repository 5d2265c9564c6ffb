"""Accounts, and what an address leads to (design: accounts, addresses, identities)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from posthouse.mail.address import Address
from posthouse.mail.ids import AccountId, CredentialId
from posthouse.mail.source import Mechanism, Protection

PASSWORD = "password"
"""The kind of the one chosen password of an account."""
APP_PASSWORD = "app"
"""The kind of passwords that were made for one program each."""
SCRAM_ITERATIONS = 4096
"""Those of new accounts (RFC 7677 §4). App passwords need no more: nobody guesses 128 random bits."""

_AS = " as "
_NO_CREDENTIAL = CredentialId(0)


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What a server keeps of one password (RFC 5802 §3). Not the password, but enough to guess it at leisure."""

    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One way to prove who one is. How a `verifier` is spelled stands in `identity/hashes.py`."""

    kind: str
    verifier: str = field(repr=False)
    credential: CredentialId = _NO_CREDENTIAL
    name: str = ""
    scram: ScramKeys | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAccount:
    """An account that is moved here. `line`: where it stood in the file; `aliases`: further addresses of it."""

    line: int
    address: Address
    verifier: str = field(repr=False)
    quota_octets: int | None
    suspended: bool
    aliases: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class ImportProblem:
    """Why the account of this line was not taken, in words for the operator."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class AppPassword:
    """A line of `account app-password list`. Times are Unix seconds."""

    name: str
    created_at: float
    last_used_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A login and a maildrop. Account numbers are never used twice."""

    account: AccountId
    login: str
    quota_octets: int | None
    suspended: bool
    credentials: tuple[Credential, ...]
    scram_salt: bytes = field(default=b"", repr=False)
    scram_iterations: int = SCRAM_ITERATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSummary:
    """A line of `account list`."""

    account: AccountId
    login: str
    quota_octets: int | None
    suspended: bool
    message_count: int
    used_octets: int
    recipients_per_hour: int | None = None
    """Its own sending limit: None is the configuration's, 0 is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """How an identity logs in at its own submission server. `secret` says where the password is, never what it is."""

    login: str
    secret: str
    mechanism: Mechanism = Mechanism.PASSWORD
    protection: Protection = Protection.IMPLICIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An address of another house's domain that an account of ours may send as.

    `via`: the submission server (`host:port`) that its mail must leave through; "": it leaves as all other mail does.
    With a `submission` of its own it names the address, too (`own_via`). `name` stands before the address in From.
    """

    address: Address
    account: AccountId
    login: str
    via: str
    name: str = ""
    submission: Submission | None = None


def own_via(server: str, address: Address) -> str:
    """The `via` of an identity with a login of its own: others may log in at the same server as somebody else."""
    return f"{server}{_AS}{address}"


def server_of(via: str) -> tuple[str, str]:
    """`host:port` of a `via`, and the address whose login is used there, "" for that of the configuration."""
    server, _, address = via.partition(_AS)
    return server, address


@dataclass(frozen=True, slots=True)
class Mailbox:
    """The address is a maildrop here. `quota_octets`: None is no limit; 0 takes nothing."""

    account: AccountId
    login: str
    quota_octets: int | None = None


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
