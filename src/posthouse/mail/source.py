"""Sources: accounts at other houses that mail is collected from over POP3. Times are Unix seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from posthouse.mail.address import Address
from posthouse.mail.folders import INBOX
from posthouse.mail.ids import AccountId, QueueId, SourceId

DAY_S = 86_400.0
GONE_KEPT_S = 90 * DAY_S
"""How long a UIDL that the server lists no more is remembered: some come back."""


class Protection(StrEnum):
    """How the connection to a server is protected; a password leaves in clear only with `NONE`."""

    IMPLICIT = "implicit"
    STARTTLS = "starttls"
    NONE = "none"


class Mechanism(StrEnum):
    """How one logs in there: with a password, or with an OAuth 2 token (XOAUTH2; RFC 7628)."""

    PASSWORD = "password"
    XOAUTH2 = "xoauth2"
    OAUTHBEARER = "oauthbearer"


class Keeping(StrEnum):
    """What happens to a message at the server once it is here."""

    LEAVE = "leave"
    DAYS = "days"
    MIRROR = "mirror"
    """Deleted there when it is deleted here."""
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Policy:
    """`days`: with `Keeping.DAYS`, how long after it was collected."""

    keeping: Keeping = Keeping.LEAVE
    days: int = 0


@dataclass(frozen=True, slots=True)
class Server:
    """Where to connect, and how the connection is protected."""

    host: str
    port: int
    protection: Protection

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """What a person sets. `secret` says where the password or token is kept, never what it is."""

    address: Address
    account: AccountId
    server: Server
    login: str
    secret: str
    mechanism: Mechanism = Mechanism.PASSWORD
    folder: str = INBOX
    policy: Policy = Policy()
    interval_s: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """How collecting goes. `collected_at`: the last time that it ended well."""

    collected_at: float | None = None
    next_at: float = 0.0
    """0: at once."""
    failures: int = 0
    """In a row."""
    failure: str = ""
    """Why it failed the last time, for its owner."""
    refused: bool = False
    """The server took the password for wrong: nothing is tried until there is another."""
    empty: int = 0
    """How many times in a row the server said that its maildrop is empty although it was not the last time."""


@dataclass(frozen=True, slots=True)
class Source:
    """One source with its state."""

    source: SourceId
    settings: SourceSettings
    state: SourceState


@dataclass(frozen=True, slots=True)
class KnownMessage:
    """What is remembered of a message that was collected. `gone_at`: since when the server lists it no more."""

    uidl: str
    queue_id: QueueId
    size_octets: int
    fingerprint: bytes
    collected_at: float
    gone_at: float | None
    here: bool
    """Whether its owner still has it, other than in the Trash."""
