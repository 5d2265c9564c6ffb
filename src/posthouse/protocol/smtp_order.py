"""The order of commands as data (RFC 5321 §4.1.4, RFC 4954 §6), and what the server half answers by itself."""

from __future__ import annotations

from enum import Enum, auto
from functools import lru_cache

from posthouse.mail.reply import Reply, reply
from posthouse.protocol.events import Command
from posthouse.protocol.smtp import (
    HTTP_METHODS,
    NOT_IMPLEMENTED,
    VERBS,
    AuthLine,
    BeginContent,
    Chunk,
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
from posthouse.protocol.smtp_options import ServerOptions
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
    CHUNK = auto()
    """The octets that a BDAT announced are being read, or thrown away."""
    CHUNKS = auto()
    """Between the chunks of a message."""
    AUTHENTICATING = auto()
    HANDSHAKE = auto()
    CLOSED = auto()

    # Enum's own hash is a call of Python, for each command.
    __hash__ = object.__hash__


_UNWILLING = State.UNWILLING
_ALWAYS: frozenset[type[Command]] = frozenset({Hello, Noop, Help, Reset, Quit, Verify, Unimplemented})

ALLOWED: dict[State, frozenset[type[Command]]] = {
    State.UNWILLING: frozenset({Quit}),
    State.GREETED: _ALWAYS,
    State.READY: _ALWAYS | {Mail, AuthLine, StartTls},
    State.MAIL: _ALWAYS | {Recipient, StartTls},
    State.RECIPIENTS: _ALWAYS | {Recipient, BeginContent, Chunk, StartTls},
    State.CHUNKS: _ALWAYS | {Chunk, StartTls},
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
ENCRYPTION_NEEDED = reply(538, "5.7.11", "Encryption is needed; begin with STARTTLS")
TOO_MANY_MESSAGES = reply(421, "4.7.0", "Too many messages in one session; open another")
TALKED_PAST_STARTTLS = reply(554, "5.5.1", "Nothing may follow STARTTLS before the handshake")


@lru_cache(maxsize=16)
def goodbye(hostname: str) -> bytes:
    """The answer to QUIT."""
    return encode_reply(reply(221, "2.0.0", f"{hostname} closing connection"))


def out_of_order(
    command: type[Command], state: State, options: ServerOptions, *, authenticated: bool, extended: bool
) -> Reply | None:
    """Why a command of this kind may not come now."""
    if state is _UNWILLING and command is not Quit:
        return NO_SERVICE
    if options.auth_required and not authenticated and command not in ALLOWED_UNAUTHENTICATED:
        return AUTH_REQUIRED
    if command is AuthLine and not options.auth_mechanisms:
        return ENCRYPTION_NEEDED if options.auth_after_tls else NOT_IMPLEMENTED
    if (command is StartTls and not options.starttls) or (command is Chunk and "CHUNKING" not in options.extensions):
        return NOT_IMPLEMENTED
    if command not in ALLOWED[state]:
        return NO_RECIPIENTS if command in (BeginContent, Chunk) and state is State.MAIL else BAD_ORDER
    if (command in (AuthLine, Chunk) and not extended) or (command is AuthLine and authenticated):
        return BAD_ORDER
    return None


def printable(name: bytes) -> str:
    """A verb as it may stand in the log: one that is known, else none, since it may be a password.

    A client that was refused the mechanism and goes on all the same sends its secret where a command stands.
    """
    return name.decode() if name in VERBS or name in HTTP_METHODS else "?"
