"""The server half of POP3 (RFC 1939): CAPA and response codes (RFC 2449, RFC 3206), STLS (RFC 2595), AUTH (RFC 5034),
UTF8 and LANG (RFC 6856).

The core keeps the listing and the deletion marks and answers by itself whatever needs nothing else; the driver
looks up logins, reads messages and deletes. Numbers are places in the listing and never shift (RFC 1939 §4).

    octets ──receive()──► next_event() ──► driver: open_maildrop / refuse / begin_message … / updated ──► outgoing()

Command lines are taken one at a time, so pipelined ones wait in the buffer until the last is answered
(RFC 2449 §6.6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from posthouse.mail.maildrop import Listing
from posthouse.protocol.errors import LocalProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA, Command, Signal
from posthouse.protocol.lines import BadLine, ContentWriter, EndlessLine, LineBuffer, LineFault
from posthouse.protocol.pop3 import (
    COMMAND_LIMIT_OCTETS,
    SYS_TEMP,
    Response,
    encode_response,
    nameable_verb,
    parse_command,
)
from posthouse.protocol.pop3_arguments import Refusal, no_argument, text_argument
from posthouse.protocol.pop3_events import (
    Event,
    Login,
    OutgoingFull,
    QuitReceived,
    Rejected,
    Retrieve,
    ScramVerifierWanted,
    StartTls,
    Top,
    Update,
)
from posthouse.protocol.pop3_maildrop import MarkedMaildrop
from posthouse.protocol.pop3_options import LANGUAGES, Pop3Options, capabilities, find_language
from posthouse.protocol.pop3_sasl import SaslLogin, Step
from posthouse.protocol.pop3_top import TopCutter
from posthouse.protocol.sasl import MAX_LINE_OCTETS, ScramVerifier

OUTGOING_FULL_OCTETS: Final = 64 * 1024
"""From here on the driver is asked to write before the next command is taken."""


class State(Enum):
    """RFC 1939 §3; UPDATE lasts from QUIT in TRANSACTION to the driver's answer."""

    CONNECTED = auto()
    """The greeting has not been given."""
    AUTHORIZATION = auto()
    HANDSHAKE = auto()
    """STLS was answered `+OK`; tls_started() leads back to AUTHORIZATION."""
    TRANSACTION = auto()
    UPDATE = auto()
    CLOSED = auto()


class Pop3Server:
    """One session. Everything that calls out of turn raises LocalProtocolError; no input raises anything.

    The driver may look at `state`, at `utf8` (RFC 6856 §2.1) and at `lines_taken`, good and bad ones.
    """

    def __init__(self, options: Pop3Options) -> None:
        self.state = State.CONNECTED
        self._options = options
        self._lines = LineBuffer()
        self._ended = False
        self._outgoing: list[bytes] = []
        self._outgoing_octets = 0
        self._told_full = False
        self._name: str | None = None
        self._exchange: SaslLogin | None = None
        self.utf8 = False
        self.lines_taken = 0
        self._maildrop = MarkedMaildrop(Listing())
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
        if self._pending is not None or self.state in (State.CONNECTED, State.HANDSHAKE):
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

    def provide_scram(self, verifier: ScramVerifier, nonce: str) -> None:
        """Answer ScramVerifierWanted. `nonce` is fresh and random, printable ASCII without a comma."""
        self._answer(ScramVerifierWanted)
        assert self._exchange is not None
        self._put(self._exchange.provide(verifier, nonce))

    def begin_tls(self) -> None:
        """Answer StartTls: write outgoing(), then the handshake begins."""
        self._answer(StartTls)
        self.state = State.HANDSHAKE
        self._ok("Begin TLS")

    def tls_started(self, options: Pop3Options) -> None:
        """The handshake is done: what was said before it is forgotten (RFC 2595 §4), other things are offered."""
        if self.state is not State.HANDSHAKE:
            raise LocalProtocolError("tls_started() without begin_tls()")
        self._options = options
        self._name = None
        self.utf8 = False
        self._lines.clear()
        self.state = State.AUTHORIZATION

    def open_maildrop(self, listing: Listing) -> None:
        """Answer Login: the peer is who it says, its maildrop is locked, this is what it holds."""
        self._answer(Login)
        self._maildrop = MarkedMaildrop(listing)
        self.state = State.TRANSACTION
        self._ok(self._totals())

    def refuse(self, code: str | None, text: str) -> None:
        """Answer `-ERR` to any command. After Update the session ends with it (RFC 1939 §6)."""
        if self._writer is not None:
            raise LocalProtocolError("the message has begun; close() is all that is left")
        command = self._answer(Command)
        self._exchange = None
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
            line = self._lines.next_line(COMMAND_LIMIT_OCTETS if self._exchange is None else MAX_LINE_OCTETS)
        except EndlessLine:
            rejected = self._reject(b"", "Line without end")
            self._end()
            return rejected
        if line is None:
            if not self._ended:
                return NEED_DATA
            self._end()
            return None
        self.lines_taken += 1
        if isinstance(line, BadLine):
            self._exchange = None
            too_long = line.fault is LineFault.TOO_LONG
            return self._reject(b"", "Line too long" if too_long else "CR or LF inside the line")
        return self._obey(line)

    def _obey(self, line: bytes) -> Event | None:
        # A line of an exchange is no command, and no log may hold any of it.
        verb, argument = parse_command(line) if self._exchange is None else (b"AUTH", None)
        rule = _RULES.get(verb)
        try:
            if self._exchange is not None:
                return self._hold(self._advance(self._exchange.take(line)))
            if rule is None:
                raise Refusal("Unknown command")
            if self.state not in rule.states:
                raise Refusal(_WRONG_STATE[self.state])
            return self._hold(rule.act(self, argument))
        except Refusal as refusal:
            self._exchange = None
            return self._reject(verb, str(refusal))

    def _hold(self, event: Event | None) -> Event | None:
        """A command waits for its answer."""
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
        self._pending = self._writer = self._cutter = self._exchange = None
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
        self._name = text_argument((argument or b"").strip(b" "))
        self._ok("Send PASS")

    def _pass(self, argument: bytes | None) -> Login:
        """The password is the rest of the line, spaces included; the name is used up, whatever comes of it."""
        self._check_login_offered()
        name, self._name = self._name, None
        if name is None:
            raise Refusal("Send USER first")
        return Login(name, text_argument(argument or b""))

    def _check_login_offered(self) -> None:
        if not self._options.offer_login:
            raise Refusal("No login with a password on this connection; use TLS")

    def _auth(self, argument: bytes | None) -> Event | None:
        """RFC 5034 §4. An initial response "=" is an empty one."""
        name, _, initial = (argument or b"").rstrip(b" ").partition(b" ")
        mechanism = name.upper().decode("ascii", "replace")
        if mechanism not in self._options.mechanisms:
            offered = " ".join(self._options.mechanisms)
            raise Refusal(f"The mechanisms are {offered}" if offered else "No login on this connection; use TLS")
        self._name = None
        self._exchange = SaslLogin(mechanism)
        return self._advance(self._exchange.begin(initial))

    def _advance(self, step: Step) -> Event | None:
        if isinstance(step, bytes):
            self._put(step)
            return None
        if isinstance(step, Login):
            self._exchange = None
        return step

    def _stls(self, argument: bytes | None) -> Event:
        no_argument(argument)
        if not self._options.stls:
            raise Refusal("TLS is not offered here")
        if len(self._lines):
            # Whoever put them there wanted them to be taken for the peer's own words inside TLS (RFC 2595 §4).
            rejected = self._reject(b"STLS", "Nothing may follow STLS before the handshake")
            self._end()
            return rejected
        return StartTls()

    def _utf8(self, argument: bytes | None) -> None:
        """RFC 6856 §2.1. Sizes and messages of the listing are the driver's, which asks `utf8`."""
        no_argument(argument)
        self.utf8 = True
        self._ok("UTF8")

    # TRANSACTION (RFC 1939 §5, §7).

    def _stat(self, argument: bytes | None) -> None:
        no_argument(argument)
        self._ok(f"{len(self._maildrop)} {self._maildrop.octets}")

    def _list(self, argument: bytes | None) -> None:
        maildrop = self._maildrop
        number = maildrop.optional_number(argument)
        if number is not None:
            self._ok(f"{number} {maildrop.size_octets(number)}")
            return
        self._put_list(self._totals(), (f"{n} {maildrop.size_octets(n)}" for n in maildrop.numbers()))

    def _uidl(self, argument: bytes | None) -> None:
        maildrop = self._maildrop
        number = maildrop.optional_number(argument)
        if number is not None:
            self._ok(f"{number} {maildrop.uidl(number)}")
            return
        self._put_list("", (f"{n} {maildrop.uidl(n)}" for n in maildrop.numbers()))

    def _retr(self, argument: bytes | None) -> Retrieve:
        return Retrieve(self._maildrop.number(argument))

    def _top(self, argument: bytes | None) -> Top:
        return Top(*self._maildrop.number_and_lines(argument))

    def _dele(self, argument: bytes | None) -> None:
        number = self._maildrop.number(argument)
        self._maildrop.mark(number)
        self._ok(f"Message {number} deleted")

    def _rset(self, argument: bytes | None) -> None:
        no_argument(argument)
        self._maildrop.reset()
        self._ok(self._totals())

    def _totals(self) -> str:
        return f"{len(self._maildrop)} messages ({self._maildrop.octets} octets)"

    def _noop(self, argument: bytes | None) -> None:
        no_argument(argument)
        self._ok("")

    # In both states.

    def _capa(self, argument: bytes | None) -> None:
        no_argument(argument)
        before_login = self.state is State.AUTHORIZATION
        self._put_list("Capability list follows", capabilities(self._options, before_login=before_login))

    def _lang(self, argument: bytes | None) -> None:
        """RFC 6856 §3.2. Whatever is chosen, our texts stay English."""
        wanted = text_argument(argument.rstrip(b" ")) if argument and argument.strip(b" ") else None
        if wanted is None:
            self._put_list("Languages follow", (f"{tag} {name}".rstrip() for tag, name in LANGUAGES.items()))
            return
        language = find_language(wanted)
        if language is None:
            raise Refusal("There are no texts in that language")
        self._ok(f"{language} Language chosen")

    def _quit(self, argument: bytes | None) -> Update | QuitReceived:
        no_argument(argument)
        if self.state is State.TRANSACTION:
            self.state = State.UPDATE
            return Update(self._maildrop.marked)
        self._ok("Goodbye")
        self._end()
        return QuitReceived()


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
    b"AUTH": _Rule(_BEFORE, Pop3Server._auth),
    b"STLS": _Rule(_BEFORE, Pop3Server._stls),
    b"UTF8": _Rule(_BEFORE, Pop3Server._utf8),
    b"STAT": _Rule(_AFTER, Pop3Server._stat),
    b"LIST": _Rule(_AFTER, Pop3Server._list),
    b"UIDL": _Rule(_AFTER, Pop3Server._uidl),
    b"RETR": _Rule(_AFTER, Pop3Server._retr),
    b"TOP": _Rule(_AFTER, Pop3Server._top),
    b"DELE": _Rule(_AFTER, Pop3Server._dele),
    b"RSET": _Rule(_AFTER, Pop3Server._rset),
    b"NOOP": _Rule(_AFTER, Pop3Server._noop),
    b"CAPA": _Rule(_BOTH, Pop3Server._capa),
    b"LANG": _Rule(_BOTH, Pop3Server._lang),
    b"QUIT": _Rule(_BOTH, Pop3Server._quit),
}

_WRONG_STATE: Final = {
    State.AUTHORIZATION: "Log in first",
    State.TRANSACTION: "Already logged in",
}
