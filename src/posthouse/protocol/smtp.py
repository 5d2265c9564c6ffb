"""The grammar of SMTP commands, once: lines to command values (RFC 5321 §4.1, §4.5.3.1).

Each verb is a row of `VERBS`; a parser returns a command value, or the reply that refuses the line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from posthouse.mail.acceptance import Notify, Ret
from posthouse.mail.address import (
    Address,
    AddressError,
    AddressNeedsUtf8,
    AddressTooLong,
    ReversePath,
    parse_address,
    parse_domain,
)
from posthouse.mail.record import record
from posthouse.mail.reply import Reply, reply
from posthouse.protocol.events import Command
from posthouse.protocol.sasl import MAX_LINE_OCTETS
from posthouse.protocol.smtp_parameters import (
    BAD_PARAMETER,
    MAIL_PARAMETERS,
    RECIPIENT_PARAMETERS,
    MailParameters,
    RecipientParameters,
    Refused,
    parse_parameters,
)

MAX_COMMAND_LINE_OCTETS = 512
MAX_ENVELOPE_LINE_OCTETS = 2048
"""MAIL and RCPT with all their parameters: 1036 (RFC 3461 §5.4), 500 for AUTH (RFC 4954 §5), and room."""
LONGEST_LINE_OCTETS = MAX_LINE_OCTETS
MAX_HELLO_NAME_OCTETS = 255
MAX_CHUNK_SIZE_DIGITS = 20

UNKNOWN_COMMAND = reply(500, "5.5.2", "Command not recognised")
NOT_IMPLEMENTED = reply(502, "5.5.1", "Command not implemented")
LINE_TOO_LONG = reply(500, "5.5.2", "Line too long")
NO_ARGUMENT_ALLOWED = reply(501, "5.5.4", "This command takes no argument")
BAD_CHUNK = reply(501, "5.5.4", "Syntax: BDAT octets [LAST]")
ARGUMENT_NEEDED = reply(501, "5.5.4", "This command needs an argument")
BAD_HELLO_NAME = reply(501, "5.5.4", "A domain or address literal is needed")
NEEDS_UTF8 = reply(553, "5.6.7", "The address is internationalised, but SMTPUTF8 was not asked for")


@dataclass(frozen=True, slots=True)
class Hello(Command):
    """EHLO (`extended`) or HELO."""

    name: str
    extended: bool


@dataclass(frozen=True, slots=True)
class Authenticate(Command):
    """Credentials to verify: reply 235, 535 or 454. `mechanism` is upper-case.

    `proven` and `stored_key`: what an exchange without a password has shown, and which of several passwords it was
    (`ScramProof`); None where there is a password to check.
    """

    mechanism: str
    authorization_id: str
    login: str
    password: str = field(repr=False)
    proven: bool | None = None
    stored_key: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class ScramVerifierWanted(Command):
    """AUTH SCRAM-SHA-256 named this login: call provide_scram(), for an unknown login too; or reply 454."""

    login: str


@dataclass(frozen=True, slots=True)
class StartTls(Command):
    """Reply 220, write `outgoing()`, shake hands, then call `tls_started`; or reply 454."""


@record
class Mail(Command):
    """MAIL: begins a transaction if the reply is positive."""

    reverse_path: ReversePath
    size_octets: int | None = None
    body: str = "7BIT"
    smtputf8: bool = False
    ret: Ret | None = None
    envelope_id: str | None = None


@record
class Recipient(Command):
    """RCPT. The domain is "" only for `<Postmaster>`."""

    forward_path: Address
    notify: frozenset[Notify] | None = None
    original_recipient: str | None = None


@dataclass(frozen=True, slots=True)
class BeginContent(Command):
    """DATA, or the first BDAT, after at least one accepted recipient: reply 354, or refuse and so end the transaction.

    `chunked`: it is BDAT. Its octets come right behind; the 354 is not written, a refusal only when they were read.
    """

    chunked: bool = False


@dataclass(frozen=True, slots=True)
class Chunk(Command):
    """BDAT, which the core conducts. `fault`: the line is wrong, and yet says how many octets follow."""

    size_octets: int
    last: bool
    fault: Reply | None = None


@dataclass(frozen=True, slots=True)
class EndOfContent(Command):
    """All content was handed over. Whatever the reply, the transaction is over (RFC 5321 §4.1.1.4)."""

    size_octets: int


@dataclass(frozen=True, slots=True)
class Verify(Command):
    """VRFY."""

    argument: str


@dataclass(frozen=True, slots=True)
class AuthLine(Command):
    """AUTH: begins an exchange, which the core conducts."""

    mechanism: str
    initial_response: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reset(Command):
    """RSET."""


@dataclass(frozen=True, slots=True)
class Noop(Command):
    """NOOP."""


@dataclass(frozen=True, slots=True)
class Help(Command):
    """HELP."""


@dataclass(frozen=True, slots=True)
class Quit(Command):
    """QUIT."""


@dataclass(frozen=True, slots=True)
class Unimplemented(Command):
    """A verb that is known, not offered (RFC 5321 §4.2.4)."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the meaning of a line depends on: the extensions in force, and whether the transaction is SMTPUTF8."""

    offered: frozenset[str]
    smtputf8: bool = False


Parser = Callable[[bytes, Context], Command]


@dataclass(frozen=True, slots=True)
class Verb:
    """One row of the grammar. `limit_octets` counts the CRLF."""

    command: type[Command]
    parse: Parser
    limit_octets: int = MAX_COMMAND_LINE_OCTETS


def split_line(line: bytes) -> tuple[bytes, bytes]:
    """Verb in upper case, and argument. White space at the end is tolerated (RFC 5321 §4.1.1)."""
    verb, _, argument = line.partition(b" ")
    return verb.rstrip(b"\t").upper(), argument.rstrip(b" \t")


def parse_argument(verb: Verb, line_octets: int, argument: bytes, context: Context) -> Command | Reply:
    """The command value, or the reply that refuses it. `line_octets` counts the CRLF."""
    if line_octets > verb.limit_octets:
        return LINE_TOO_LONG
    try:
        return verb.parse(argument, context)
    except Refused as refused:
        return refused.reply


def _without_argument(command: Command) -> Parser:
    def parse(argument: bytes, _context: Context) -> Command:
        if argument:
            raise Refused(NO_ARGUMENT_ALLOWED)
        return command

    return parse


def _ignoring_argument(command: Command) -> Parser:
    return lambda _argument, _context: command


def _hello(extended: bool) -> Parser:
    def parse(argument: bytes, _context: Context) -> Command:
        # Real clients send bare names and underscores, which harm nobody; controls and 8 bits do.
        name = argument.decode("ascii", "replace").lstrip(" ")
        printable = name.isascii() and name.isprintable()
        if not name or " " in name or not printable or len(name) > MAX_HELLO_NAME_OCTETS:
            raise Refused(BAD_HELLO_NAME)
        if name.startswith("["):
            _check_domain(name, BAD_HELLO_NAME)
        return Hello(name, extended)

    return parse


def _mail(argument: bytes, context: Context) -> Command:
    path, rest = _split_path(argument, b"FROM:", _SENDER)
    asked = MailParameters()
    if rest:
        parse_parameters(rest, MAIL_PARAMETERS, context.offered, asked)
    return Mail(
        reverse_path=_mailbox(path, _SENDER, asked.smtputf8) if path else None,
        size_octets=asked.size_octets,
        body=asked.body,
        smtputf8=asked.smtputf8,
        ret=asked.ret,
        envelope_id=asked.envelope_id,
    )


def _recipient(argument: bytes, context: Context) -> Command:
    path, rest = _split_path(argument, b"TO:", _RECIPIENT)
    asked = RecipientParameters()
    if rest:
        parse_parameters(rest, RECIPIENT_PARAMETERS, context.offered, asked)
    if path.isascii() and path.upper() == "POSTMASTER":
        forward_path = Address(path, "")
    else:
        forward_path = _mailbox(path, _RECIPIENT, context.smtputf8)
    return Recipient(forward_path=forward_path, notify=asked.notify, original_recipient=asked.original_recipient)


def _auth(argument: bytes, _context: Context) -> Command:
    mechanism, space, initial = argument.partition(b" ")
    if not mechanism or not argument.isascii():
        raise Refused(ARGUMENT_NEEDED)
    if not space:
        return AuthLine(mechanism.decode().upper(), None)
    # "=" is how an empty initial response is spelled (RFC 4954 §4).
    return AuthLine(mechanism.decode().upper(), b"" if initial == b"=" else initial)


def _chunk(argument: bytes, _context: Context) -> Command:
    # bytes.isdigit() knows ASCII digits only; int() would take signs, spaces and underscores.
    size, *markers = argument.split(b" ")
    if not size.isdigit() or len(size) > MAX_CHUNK_SIZE_DIGITS:
        raise Refused(BAD_CHUNK)
    last = [marker.upper() for marker in markers] == [b"LAST"]
    return Chunk(int(size), last, BAD_CHUNK if markers and not last else None)


def _verify(argument: bytes, _context: Context) -> Command:
    if not argument:
        raise Refused(ARGUMENT_NEEDED)
    if argument.rpartition(b" ")[2].upper().startswith(b"SMTPUTF8="):
        # RFC 6531 §3.7.4.2: the parameter has no value here either.
        raise Refused(BAD_PARAMETER)
    return Verify("".join(c if c.isprintable() else "?" for c in argument.decode("utf-8", "replace")))


@dataclass(frozen=True, slots=True)
class _PathRefusals:
    """Replies about a path; the enhanced code tells whose it was (RFC 3463 §3.2)."""

    syntax: Reply
    too_long: Reply


_SENDER = _PathRefusals(reply(501, "5.1.7", "Syntax: MAIL FROM:<address>"), reply(501, "5.1.7", "Path too long"))
_RECIPIENT = _PathRefusals(reply(501, "5.1.3", "Syntax: RCPT TO:<address>"), reply(501, "5.1.3", "Path too long"))


def _split_path(argument: bytes, keyword: bytes, refusals: _PathRefusals) -> tuple[str, str]:
    """What stands between the brackets, and the parameters. Neither space nor bare address is in the grammar."""
    size = len(keyword)
    if argument[:size].upper() != keyword or argument[size : size + 1] != b"<":
        raise Refused(refusals.syntax)
    try:
        text = argument[size + 1 :].decode("utf-8")
    except UnicodeDecodeError as exc:
        raise Refused(refusals.syntax) from exc
    end = _path_end(text) if '"' in text else text.find(">")
    rest = text[end + 1 :]
    if end < 0 or (rest and rest[0] != " "):
        raise Refused(refusals.syntax)
    return text[:end], rest


def _path_end(text: str) -> int:
    """Where the closing bracket is; one inside a quoted string does not count. -1: nowhere."""
    at, quoted = 0, False
    while at < len(text):
        character = text[at]
        if character == ">" and not quoted:
            return at
        if character == '"':
            quoted = not quoted
        at += 2 if character == "\\" and quoted else 1
    return -1


def _mailbox(path: str, refusals: _PathRefusals, utf8: bool) -> Address:
    """The mailbox of a path; a source route is checked and ignored (RFC 5321 §4.1.1.3, appendix C)."""
    if path.startswith("@"):
        route, _, path = path.partition(":")
        for hop in route.split(","):
            if not hop.startswith("@"):
                raise Refused(refusals.syntax)
            _check_domain(hop[1:], refusals.syntax)
    try:
        return parse_address(path, utf8=utf8, long=refusals is _SENDER)
    except AddressNeedsUtf8 as exc:
        raise Refused(NEEDS_UTF8) from exc
    except AddressTooLong as exc:
        raise Refused(refusals.too_long) from exc
    except AddressError as exc:
        raise Refused(refusals.syntax) from exc


def _check_domain(text: str, refusal: Reply) -> None:
    try:
        parse_domain(text)
    except AddressError as exc:
        raise Refused(refusal) from exc


_UNIMPLEMENTED = Verb(Unimplemented, _ignoring_argument(Unimplemented()))

VERBS: dict[bytes, Verb] = {
    b"EHLO": Verb(Hello, _hello(extended=True)),
    b"HELO": Verb(Hello, _hello(extended=False)),
    b"MAIL": Verb(Mail, _mail, MAX_ENVELOPE_LINE_OCTETS),
    b"RCPT": Verb(Recipient, _recipient, MAX_ENVELOPE_LINE_OCTETS),
    b"DATA": Verb(BeginContent, _without_argument(BeginContent())),
    b"BDAT": Verb(Chunk, _chunk),
    b"RSET": Verb(Reset, _without_argument(Reset())),
    b"NOOP": Verb(Noop, _ignoring_argument(Noop())),
    b"QUIT": Verb(Quit, _without_argument(Quit())),
    b"HELP": Verb(Help, _ignoring_argument(Help())),
    b"VRFY": Verb(Verify, _verify),
    b"AUTH": Verb(AuthLine, _auth, MAX_LINE_OCTETS),
    b"STARTTLS": Verb(StartTls, _without_argument(StartTls())),
    b"EXPN": _UNIMPLEMENTED,
    b"SEND": _UNIMPLEMENTED,
    b"SOML": _UNIMPLEMENTED,
    b"SAML": _UNIMPLEMENTED,
    b"TURN": _UNIMPLEMENTED,
    b"ETRN": _UNIMPLEMENTED,
}
HTTP_METHODS = frozenset({b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE", b"PATCH"})
