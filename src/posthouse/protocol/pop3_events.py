"""What the server half of POP3 hands to its driver: commands to answer, and notices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from posthouse.protocol.events import Command, Notice


@dataclass(frozen=True, slots=True)
class Login(Command):
    """USER and PASS, or an exchange of AUTH that came to its end. Answer: open_maildrop(), refuse() or close().

    `authorization_id` is "" when the login acts as itself. `proven` and `stored_key`: what an exchange without a
    password has shown, and which of several passwords it was (`ScramProof`); None where there is a password to check.
    """

    name: str
    password: str = field(repr=False)
    mechanism: str = "USER"
    authorization_id: str = ""
    proven: bool | None = None
    stored_key: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class ScramVerifierWanted(Command):
    """AUTH SCRAM-SHA-256 named this login. Answer: provide_scram(), for an unknown login too; or refuse()."""

    login: str


@dataclass(frozen=True, slots=True)
class StartTls(Command):
    """STLS. Answer: begin_tls(), then, after the handshake, tls_started(); or refuse()."""


@dataclass(frozen=True, slots=True)
class Retrieve(Command):
    """RETR. Answer: begin_message(), content() as often as needed, end_message(); or refuse()."""

    number: int


@dataclass(frozen=True, slots=True)
class Top(Command):
    """TOP, answered like RETR with the whole message; the core cuts it, content() says when to stop."""

    number: int
    lines: int


@dataclass(frozen=True, slots=True)
class Update(Command):
    """QUIT in TRANSACTION. Answer: updated() when what is marked is durably deleted, else refuse()."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rejected(Notice):
    """A line was answered `-ERR` by the core. `verb` is empty where it was no keyword."""

    verb: str
    text: str


@dataclass(frozen=True, slots=True)
class QuitReceived(Notice):
    """QUIT before a login; answered. CLOSED follows."""


@dataclass(frozen=True, slots=True)
class OutgoingFull(Notice):
    """OUTGOING_FULL_OCTETS are waiting: write outgoing() before the next event is asked for.

    Without it one read full of pipelined LISTs would grow without bound in memory.
    """


Event: TypeAlias = (
    Login | ScramVerifierWanted | StartTls | Retrieve | Top | Update | Rejected | QuitReceived | OutgoingFull
)
