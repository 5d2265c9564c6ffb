"""How an outgoing SMTP session fails. What the peer answered to a transaction is no failure but its outcome."""

from __future__ import annotations

from posthouse.mail.reply import Reply


class ConnectionFailed(Exception):
    """There is no session to send in. `reply` is the peer's where it said something."""

    def __init__(self, text: str, reply: Reply | None = None) -> None:
        super().__init__(text)
        self.reply = reply


class ClosedAtHello(ConnectionFailed):
    """The peer went away at EHLO. Some old ones know no better: a new connection may begin with HELO."""


class TlsNotOffered(ConnectionFailed):
    """There is no STARTTLS here. The connection is as it was, in clear."""


class TlsRefused(ConnectionFailed):
    """STARTTLS was offered and refused by `reply`. In clear the connection is as it was, unless that was 421."""


class HandshakeFailed(ConnectionFailed):
    """TLS did not come about; the connection is lost. The text is half a sentence: "its certificate has expired"."""


class LoginImpossible(ConnectionFailed):
    """Nothing was tried: no mechanism in common, no TLS, or a login that cannot be sent."""


class PeerUntrusted(ConnectionFailed):
    """The peer did not show that it knows the password, as SCRAM demands; the connection was dropped."""


class ConnectionBroke(Exception):
    """The connection was lost during a transaction. After `final_dot_sent`, the message may have arrived.

    `recipients`: what those of the transaction were answered before; None, or nothing at all, where they were not.
    """

    def __init__(self, text: str, *, final_dot_sent: bool, recipients: tuple[Reply | None, ...] = ()) -> None:
        super().__init__(text)
        self.final_dot_sent = final_dot_sent
        self.recipients = recipients
