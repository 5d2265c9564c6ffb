"""The order of commands as data (RFC 5321 §4.1.4, RFC 4954 §6), and what the server half answers by itself."""

from __future__ import annotations

from enum import Enum, auto

from posthouse.mail.reply import reply
from posthouse.protocol.events import Command
from posthouse.protocol.smtp import (
    AuthLine,
    BeginContent,
    Hello,
    Help,
    Mail,
    Noop,
    Quit,
    Recipient,
    Reset,
    StartTls,
    Unimplemented,
    Verify,
)
from posthouse.protocol.smtp_reply import encode_reply


class State(Enum):
    """Where the dialogue stands."""

    UNGREETED = auto()
    UNWILLING = auto()
    """Service was refused in the greeting: only QUIT is served (RFC 5321 §3.1)."""
    GREETED = auto()
    READY = auto()
    MAIL = auto()
    """MAIL was accepted, no recipient yet."""
    RECIPIENTS = auto()
    CONTENT = auto()
    AUTHENTICATING = auto()
    HANDSHAKE = auto()
    CLOSED = auto()


_ALWAYS: frozenset[type[Command]] = frozenset({Hello, Noop, Help, Reset, Quit, Verify, Unimplemented})

ALLOWED: dict[State, frozenset[type[Command]]] = {
    State.UNWILLING: frozenset({Quit}),
    State.GREETED: _ALWAYS,
    State.READY: _ALWAYS | {Mail, AuthLine, StartTls},
    State.MAIL: _ALWAYS | {Recipient, StartTls},
    State.RECIPIENTS: _ALWAYS | {Recipient, BeginContent, StartTls},
}
"""The order of commands (RFC 5321 §4.1.4); in the other states no command line is read."""

ALLOWED_UNAUTHENTICATED: frozenset[type[Command]] = frozenset({Hello, Noop, Help, Reset, Quit, AuthLine, StartTls})
"""RFC 4954 §6, RFC 6409 §4.3."""

OK = encode_reply(reply(250, "2.0.0", "OK"))
HELP = encode_reply(reply(214, "2.0.0", "See RFC 5321"))
BAD_ORDER = reply(503, "5.5.1", "Bad sequence of commands")
NO_RECIPIENTS = reply(554, "5.5.1", "No valid recipients")
NO_SERVICE = reply(503, "5.5.1", "No service here; only QUIT is left")
AUTH_REQUIRED = reply(530, "5.7.0", "Authentication required")
BARE_LINE_END = reply(500, "5.5.2", "A line ends in CRLF only")
LINE_TOO_LONG = reply(500, "5.5.6", "Line too long")
NOT_HTTP = reply(421, "4.7.0", "This is a mail server")
TOO_MANY_RECIPIENTS = reply(452, "4.5.3", "Too many recipients")
TOO_LARGE = reply(552, "5.3.4", "The message is larger than this server accepts")
BARE_LINE_END_IN_CONTENT = reply(550, "5.6.11", "The message holds CR or LF outside CRLF")
UNKNOWN_MECHANISM = reply(504, "5.5.4", "Mechanism not offered")
CANCELLED = reply(501, "5.7.0", "Authentication cancelled")
TALKED_PAST_STARTTLS = reply(554, "5.5.1", "Nothing may follow STARTTLS before the handshake")
