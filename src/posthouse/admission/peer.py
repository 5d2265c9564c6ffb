"""Who stands at the door, as policy sees it."""

from __future__ import annotations

from enum import Enum, auto

from posthouse.mail.account import Account
from posthouse.mail.record import record


class Role(Enum):
    """What a door is for."""

    EXCHANGE = auto()
    """Port 25: mail from other houses; nobody logs in."""
    SUBMISSION = auto()
    """Ports 587 and 465: mail from our own people, after a login (RFC 6409)."""


@record
class Peer:
    """One session's other side. `hello` is what it called itself."""

    address: str
    hello: str
    role: Role
    extended: bool
    tls: bool
    trusted: bool
    account: Account | None
    session: str
    local_address: str = ""
    """Our IP address of the connection."""

    @property
    def is_here(self) -> bool:
        """Whether it is a person at this house's own pages or commands, with no connection in between."""
        return not self.address

    def protocol(self, *, smtputf8: bool = False) -> str:
        """SMTP, ESMTP or UTF8SMTP, with S for TLS and A for a login (RFC 3848, RFC 6531 §4.3); "": none was spoken."""
        if self.is_here:
            return ""
        if not self.extended:
            return "SMTP"
        return ("UTF8SMTP" if smtputf8 else "ESMTP") + ("S" if self.tls else "") + ("A" if self.account else "")

    @property
    def may_relay(self) -> bool:
        """Whether mail for domains that are not ours is taken from this peer."""
        return self.account is not None or self.trusted
