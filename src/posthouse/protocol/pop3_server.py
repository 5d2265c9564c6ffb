"""The server half of POP3 (RFC 1939), with CAPA and response codes (RFC 2449, RFC 3206).

The core keeps the listing and the deletion marks and answers by itself whatever needs nothing else; the driver
looks up logins, reads messages and deletes. Numbers are places in the listing and never shift (RFC 1939 §4).

    octets ──receive()──► next_event() ──► driver: open_maildrop / refuse / begin_message … / updated ──► outgoing()

Command lines are taken one at a time, so pipelined ones wait in the buffer until the last is answered
(RFC 2449 §6.6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, TypeAlias

from posthouse.mail.maildrop import Listing
from posthouse.protocol.errors import LocalProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA, Command, Notice, Signal
from posthouse.protocol.lines import BadLine, ContentWriter, EndlessLine, LineBuffer, LineFault
from posthouse.protocol.pop3 import (
    COMMAND_LIMIT_OCTETS,
    RESPONSE_LIMIT_OCTETS,
    SYS_TEMP,
    Response,
    encode_response,
    has_control,
    nameable_verb,
    parse_command,
    parse_number,
)
from posthouse.protocol.pop3_top import TopCutter

OUTGOING_FULL_OCTETS: Final = 64 * 1024
"""From here on the driver is asked to write before the next command is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pop3Options:
    """What this connection offers."""

    hostname: str
    offer_login: bool = True
    """USER and PASS; False on a connection whose octets anybody may read."""
    implementation: str | None = "Posthouse"


class State(Enum):
    """RFC 1939 §3; UPDATE lasts from QUIT in TRANSACTION to the driver's answer."""

    CONNECTED = auto()
    """The greeting has not been given."""
    AUTHORIZATION = auto()
    TRANSACTION = auto()
    UPDATE = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class Login(Command):
    """USER and PASS. Answer: open_maildrop(), refuse() or close()."""

    name: str
    password: str = field(repr=False)


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


Event: TypeAlias = Login | Retrieve | Top | Update | Rejected | QuitReceived | OutgoingFull


class _Refusal(Exception):
    """A command that the core answers `-ERR`; the argument is its text."""


class Pop3Server:
    """One session. Everything that calls out of turn raises LocalProtocolError; no input raises anything."""

    def __init__(self, options: Pop3Options) -> None:
        self.state = State.CONNECTED
        self._options = options
        self._lines = LineBuffer()
        self._ended = False
        self._outgoing: list[bytes] = []
        self._outgoing_octets = 0
        self._told_full = False
        self._name: str | None = None
        self._listing = Listing()
        self._marked: set[int] = set()
        self._remaining_octets = 0
        self._retrieved: set[int] = set()
        self._pending: Command | None = None
        self._writer: ContentWriter | None = None
        self._cutter: TopCutter | None = None

    # What the driver may ask.

    @property
    def retrieved(self) -> frozenset[int]:
        """The numbers whose RETR was answered to the end."""
        return frozenset(self._retrieved)

    @property
    def outgoing_octets(self) -> int:
        """How much outgoing() would return."""
        return self._outgoing_octets

    def receive(self, octets: bytes) -> None:
        """Take what the peer sent; b"" is its end of stream. Commands that came whole before it are still served."""
        if not octets:
            self._ended = True
        elif self.state is not State.CLOSED:
            self._lines.feed(octets)

    def next_event(self) -> Event | Signal:
        """What comes next; raises LocalProtocolError while a command waits for its answer."""
        if self._pending is not None or self.state is State.CONNECTED:
            raise LocalProtocolError("next_event() before the answer or the greeting")
        while self.state is not State.CLOSED:
            if self._outgoing_octets >= OUTGOING_FULL_OCTETS and not self._told_full:
                self._told_full = True
                return OutgoingFull()
            event = self._next()
            if event is not None:
                return event
        return CLOSED

    def outgoing(self) -> bytes:
        """Take what is to be written to the peer."""
        octets = b"".join(self._outgoing)
        self._outgoing.clear()
        self._outgoing_octets = 0
        self._told_full = False
        return octets

    # What the driver answers.

    def greet(self) -> None:
        """Open the dialogue. No "<": that would offer APOP (RFC 1939 §7)."""
        if self.state is not State.CONNECTED:
            raise LocalProtocolError("greeted twice")
        self.state = State.AUTHORIZATION
        self._ok(f"{self._options.hostname.replace('<', '')} POP3 ready")

    def open_maildrop(self, listing: Listing) -> None:
        """Answer Login: the peer is who it says, its maildrop is locked, this is what it holds."""
        self._answer(Login)
        self._listing = listing
        self._remaining_octets = sum(listing.sizes_octets)
        self.state = State.TRANSACTION
        self._ok(f"{len(listing)} messages ({self._remaining_octets} octets)")

    def refuse(self, code: str | None, text: str) -> None:
        """Answer `-ERR` to any command. After Update the session ends with it (RFC 1939 §6)."""
        if self._writer is not None:
            raise LocalProtocolError("the message has begun; close() is all that is left")
        command = self._answer(Command)
        self._error(text, code)
        if isinstance(command, Update):
            self._end()

    def begin_message(self, size_octets: int | None) -> None:
        """Answer Retrieve or Top; content follows."""
        if not isinstance(self._pending, Retrieve | Top) or self._writer is not None:
            raise LocalProtocolError("no message was asked for")
        self._writer = ContentWriter()
        self._cutter = TopCutter(self._pending.lines) if isinstance(self._pending, Top) else None
        self._ok("" if size_octets is None else f"{size_octets} octets")

    def content(self, octets: bytes) -> bool:
        """A part of the message, cut anywhere. False when no more is wanted: TOP has its lines."""
        if self._writer is None:
            raise LocalProtocolError("content before begin_message()")
        if self._cutter is not None:
            octets = self._cutter.cut(octets)
        self._put(self._writer.encode(octets))
        return self._cutter is None or not self._cutter.done

    def end_message(self) -> None:
        """The message is whole."""
        if self._writer is None:
            raise LocalProtocolError("end_message() before begin_message()")
        self._put(self._writer.finish())
        self._writer = None
        command = self._answer(Command)
        if isinstance(command, Retrieve):
            self._retrieved.add(command.number)

    def updated(self) -> None:
        """Answer Update: all that was marked is durably deleted."""
        self._answer(Update)
        self._ok("Goodbye")
        self._end()

    def close(self, text: str | None = None) -> None:
        """End the session now, without UPDATE. Without a text nothing is said, as RFC 1939 §3 wants after a timeout.

        Nothing is said inside a message either: it must not look whole.
        """
        if self.state is State.CLOSED:
            return
        if text is not None and self._writer is None:
            self._error(text, SYS_TEMP)
        self._end()

    # From here on private.

    def _next(self) -> Event | Signal | None:
        """Take one line. None: it was answered and said nothing the driver must know."""
        try:
            line = self._lines.next_line(COMMAND_LIMIT_OCTETS)
        except EndlessLine:
            rejected = self._reject(b"", "Line without end")
            self._end()
            return rejected
        if line is None:
            if not self._ended:
                return NEED_DATA
            self._end()
            return None
        if isinstance(line, BadLine):
            too_long = line.fault is LineFault.TOO_LONG
            return self._reject(b"", "Line too long" if too_long else "CR or LF inside the line")
        return self._obey(line)

    def _obey(self, line: bytes) -> Event | None:
        verb, argument = parse_command(line)
        rule = _RULES.get(verb)
        try:
            if rule is None:
                raise _Refusal("Unknown command")
            if self.state not in rule.states:
                raise _Refusal(_WRONG_STATE[self.state])
            event = rule.act(self, argument)
        except _Refusal as refusal:
            return self._reject(verb, str(refusal))
        if isinstance(event, Command):
            self._pending = event
        return event

    def _reject(self, verb: bytes, text: str) -> Rejected:
        self._error(text)
        return Rejected(nameable_verb(verb), text)

    def _answer(self, kind: type[Command]) -> Command:
        """The command that is being answered; it is pending no longer."""
        command = self._pending
        if not isinstance(command, kind):
            raise LocalProtocolError(f"this does not answer {command}")
        self._pending = None
        return command

    def _end(self) -> None:
        self.state = State.CLOSED
        self._pending = self._writer = self._cutter = None
        self._lines.clear()

    def _ok(self, text: str) -> None:
        self._put(encode_response(Response(True, text)))

    def _error(self, text: str, code: str | None = None) -> None:
        self._put(encode_response(Response(False, text, code)))

    def _put(self, octets: bytes) -> None:
        self._outgoing.append(octets)
        self._outgoing_octets += len(octets)

    def _put_list(self, text: str, lines: Iterator[str]) -> None:
        """A multi-line response of lines that are ASCII and begin with no dot."""
        self._ok(text)
        body = "\r\n".join(lines)
        self._put(f"{body}\r\n.\r\n".encode("ascii") if body else b".\r\n")

    # AUTHORIZATION (RFC 1939 §4, §7).

    def _user(self, argument: bytes | None) -> None:
        self._check_login_offered()
        self._name = None
        self._name = _text((argument or b"").strip(b" "))
        self._ok("Send PASS")

    def _pass(self, argument: bytes | None) -> Login:
        """The password is the rest of the line, spaces included; the name is used up, whatever comes of it."""
        self._check_login_offered()
        name, self._name = self._name, None
        if name is None:
            raise _Refusal("Send USER first")
        return Login(name, _text(argument or b""))

    def _check_login_offered(self) -> None:
        if not self._options.offer_login:
            raise _Refusal("No login with a password on this connection; use TLS")

    # TRANSACTION (RFC 1939 §5, §7).

    def _stat(self, argument: bytes | None) -> None:
        _no_argument(argument)
        self._ok(f"{self._remaining()} {self._remaining_octets}")

    def _list(self, argument: bytes | None) -> None:
        sizes = self._listing.sizes_octets
        number = self._optional_number(argument)
        if number is not None:
            self._ok(f"{number} {sizes[number - 1]}")
            return
        text = f"{self._remaining()} messages ({self._remaining_octets} octets)"
        self._put_list(text, (f"{n} {sizes[n - 1]}" for n in self._numbers()))

    def _uidl(self, argument: bytes | None) -> None:
        uidls = self._listing.uidls
        number = self._optional_number(argument)
        if number is not None:
            self._ok(f"{number} {uidls[number - 1]}")
            return
        self._put_list("", (f"{n} {uidls[n - 1]}" for n in self._numbers()))

    def _retr(self, argument: bytes | None) -> Retrieve:
        return Retrieve(self._number(argument))

    def _top(self, argument: bytes | None) -> Top:
        number, _, lines_octets = (argument or b"").rstrip(b" ").partition(b" ")
        lines = parse_number(lines_octets)
        if lines is None:
            raise _Refusal("TOP wants a message number and a number of lines")
        return Top(self._number(number), lines)

    def _dele(self, argument: bytes | None) -> None:
        number = self._number(argument)
        self._marked.add(number)
        self._remaining_octets -= self._listing.sizes_octets[number - 1]
        self._ok(f"Message {number} deleted")

    def _rset(self, argument: bytes | None) -> None:
        _no_argument(argument)
        self._marked.clear()
        self._remaining_octets = sum(self._listing.sizes_octets)
        self._ok(f"{len(self._listing)} messages ({self._remaining_octets} octets)")

    def _noop(self, argument: bytes | None) -> None:
        _no_argument(argument)
        self._ok("")

    # In both states.

    def _capa(self, argument: bytes | None) -> None:
        _no_argument(argument)
        self._put_list("Capability list follows", self._capabilities())

    def _capabilities(self) -> Iterator[str]:
        """RFC 2449 §6. Both states list the same, as §5 demands of those that matter before a login."""
        yield from ("TOP", "UIDL")
        if self._options.offer_login:
            yield "USER"
        yield from ("RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER")
        if self._options.implementation:
            yield f"IMPLEMENTATION {self._options.implementation}"[: RESPONSE_LIMIT_OCTETS - 2]

    def _quit(self, argument: bytes | None) -> Update | QuitReceived:
        _no_argument(argument)
        if self.state is State.TRANSACTION:
            self.state = State.UPDATE
            return Update(tuple(sorted(self._marked)))
        self._ok("Goodbye")
        self._end()
        return QuitReceived()

    # Numbers.

    def _remaining(self) -> int:
        return len(self._listing) - len(self._marked)

    def _numbers(self) -> Iterator[int]:
        return (n for n in range(1, len(self._listing) + 1) if n not in self._marked)

    def _optional_number(self, argument: bytes | None) -> int | None:
        return self._number(argument) if argument and argument.strip(b" ") else None

    def _number(self, argument: bytes | None) -> int:
        """The number of a message that is there and not marked."""
        number = parse_number((argument or b"").rstrip(b" "))
        if number is None:
            raise _Refusal("That is not a message number")
        if not 1 <= number <= len(self._listing):
            raise _Refusal(f"No such message, the maildrop holds {len(self._listing)}")
        if number in self._marked:
            raise _Refusal(f"Message {number} is already deleted")
        return number


def _no_argument(argument: bytes | None) -> None:
    # Trailing spaces are forgiven: some clients send them.
    if argument and argument.strip(b" "):
        raise _Refusal("This command takes no argument")


def _text(octets: bytes) -> str:
    """A name or a password. UTF-8 is taken even without RFC 6856: ASCII is the same in both."""
    if not octets:
        raise _Refusal("An argument is missing")
    if has_control(octets):
        raise _Refusal("The argument holds a control character")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise _Refusal("The argument is not UTF-8") from None


@dataclass(frozen=True, slots=True)
class _Rule:
    """In which states a verb is allowed, and what it does."""

    states: frozenset[State]
    act: Callable[[Pop3Server, bytes | None], Event | None]


_BEFORE: Final = frozenset({State.AUTHORIZATION})
_AFTER: Final = frozenset({State.TRANSACTION})
_BOTH: Final = _BEFORE | _AFTER

_RULES: Final[dict[bytes, _Rule]] = {
    b"USER": _Rule(_BEFORE, Pop3Server._user),
    b"PASS": _Rule(_BEFORE, Pop3Server._pass),
    b"STAT": _Rule(_AFTER, Pop3Server._stat),
    b"LIST": _Rule(_AFTER, Pop3Server._list),
    b"UIDL": _Rule(_AFTER, Pop3Server._uidl),
    b"RETR": _Rule(_AFTER, Pop3Server._retr),
    b"TOP": _Rule(_AFTER, Pop3Server._top),
    b"DELE": _Rule(_AFTER, Pop3Server._dele),
    b"RSET": _Rule(_AFTER, Pop3Server._rset),
    b"NOOP": _Rule(_AFTER, Pop3Server._noop),
    b"CAPA": _Rule(_BOTH, Pop3Server._capa),
    b"QUIT": _Rule(_BOTH, Pop3Server._quit),
}

_WRONG_STATE: Final = {
    State.AUTHORIZATION: "Log in first",
    State.TRANSACTION: "Already logged in",
}
