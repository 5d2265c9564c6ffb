"""The client half of POP3 (RFC 1939, RFC 2449 §5, §6.6, RFC 2595 §4, RFC 5034 §4).

Commands may be queued at any time. They leave one at a time, until an answer to CAPA offered PIPELINING; answers
come in the order of the commands. A peer that says anything it was not asked for ends the session: an answer
injected before TLS, or a server that lost count, must never be taken for the answer to the next command.

Nothing a server says is trusted for its size: what comes is bounded here, contents pass through in chunks.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn, TypeAlias

from posthouse.protocol.errors import LocalProtocolError, RemoteProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA, Notice, Signal
from posthouse.protocol.lines import BadLine, ContentReader, EndlessLine, LineBuffer
from posthouse.protocol.pop3 import (
    END_OF_LIST,
    LENIENT_RESPONSE_LIMIT_OCTETS,
    Response,
    parse_number,
    parse_response,
    printable,
)

LIST_LIMIT_LINES: Final = 5_000_000
PIPELINE_DEPTH: Final = 100
"""How many commands may be under way: a server that writes before it reads must not block us both."""

_TOTALS = re.compile(r"([0-9]{1,18}) ([0-9]{1,18})(?: |\Z)")
_UNIQUE_ID = re.compile(rb"[\x21-\x7e]+\Z")
_FORBIDDEN = re.compile(r"[\r\n\0]")


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: the verb ("LOGIN" for USER and PASS together, and for AUTH), and its numbers where it has any."""

    verb: str
    number: int | None = None
    lines: int | None = None


@dataclass(frozen=True, slots=True)
class Greeted(Notice):
    """The greeting. After one that is not ok comes CLOSED, and nothing is sent."""

    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class Answered(Notice):
    """One line was the whole answer: of LOGIN, DELE, RSET, NOOP and QUIT, and of any command that failed."""

    request: Request
    ok: bool
    code: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Totals(Notice):
    """STAT."""

    count: int
    size_octets: int


@dataclass(frozen=True, slots=True)
class Sizes(Notice):
    """LIST: octets by message number, as the server claims them."""

    sizes_octets: dict[int, int]


@dataclass(frozen=True, slots=True)
class Uidls(Notice):
    """UIDL: by message number. They may repeat or be over-long; RFC 1939 §7 forbids it, servers do it."""

    uidls: dict[int, str]


@dataclass(frozen=True, slots=True)
class Capabilities(Notice):
    """CAPA: a line each, tags as they came."""

    lines: tuple[str, ...]

    def has(self, tag: str) -> bool:
        """Whether the tag is listed; case does not matter (RFC 2449 §5)."""
        return self.parameters(tag) is not None

    def parameters(self, tag: str) -> tuple[str, ...] | None:
        """What stands behind the tag, None where the tag is not listed."""
        for line in self.lines:
            first, *rest = line.split(" ")
            if first.upper() == tag.upper():
                return tuple(rest)
        return None


@dataclass(frozen=True, slots=True)
class MessageBegin(Notice):
    """RETR or TOP was answered `+OK`; chunks follow."""

    number: int


@dataclass(frozen=True, slots=True)
class MessageChunk(Notice):
    """A part of the message, free of dot-stuffing, cut anywhere."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class MessageEnd(Notice):
    """The message came whole. `intact` is False where a CR or an LF stood alone in it."""

    number: int
    intact: bool


Event: TypeAlias = Greeted | Answered | Totals | Sizes | Uidls | Capabilities | MessageBegin | MessageChunk | MessageEnd


@dataclass(slots=True)
class _Step:
    """One line to the server, and what its answer means."""

    request: Request
    line: bytes = field(repr=False)
    leads: bool = False
    """USER: an `+OK` says nothing yet, the answer to PASS does; an `-ERR` is the answer to both."""
    void: bool = False
    """A PASS already sent after a USER that failed: its answer is read and thrown away."""
    responses: deque[bytes] | None = field(default=None, repr=False)
    """AUTH: what is to be said at each challenge."""


class Pop3Client:
    """One session. A RemoteProtocolError from next_event() is final: the connection can only be closed."""

    def __init__(self) -> None:
        self.pipelining = False
        self._lines = LineBuffer()
        self._ended = False
        self._greeted = False
        self._closed = False
        self._quitting = False
        self._fault: str | None = None
        self._outgoing = bytearray()
        self._waiting: deque[_Step] = deque()
        self._in_flight: deque[_Step] = deque()
        self._events: deque[Event] = deque()
        self._list: _List | None = None
        self._reader: ContentReader | None = None
        self._number = 0

    # What the driver may ask.

    def login(self, name: str, password: str) -> None:
        """USER and PASS; one Answered."""
        request = Request("LOGIN")
        user, password_step = _step(request, "USER", name), _step(request, "PASS", password)
        user.leads = True
        self._queue(user, password_step)

    def authenticate(self, mechanism: str, responses: Sequence[bytes]) -> None:
        """AUTH, in two steps: none of the responses stands in the command line, which is short; one Answered.

        A server that has more challenges than there are responses gets `*`, and answers with `-ERR`.
        """
        step = _step(Request("LOGIN"), "AUTH", mechanism)
        step.responses = deque(responses)
        self._queue(step)

    def start_tls(self) -> None:
        """STLS; Answered. Behind an `+OK` the driver shakes hands, then calls `tls_started`."""
        self._queue(_step(Request("STLS"), "STLS"))

    def tls_started(self) -> None:
        """What was offered before is forgotten (RFC 2595 §4)."""
        self.pipelining = False

    def capa(self) -> None:
        """Capabilities, or Answered."""
        self._queue(_step(Request("CAPA"), "CAPA"))

    def stat(self) -> None:
        """Totals, or Answered."""
        self._queue(_step(Request("STAT"), "STAT"))

    def list(self) -> None:
        """Sizes, or Answered."""
        self._queue(_step(Request("LIST"), "LIST"))

    def uidl(self) -> None:
        """Uidls, or Answered."""
        self._queue(_step(Request("UIDL"), "UIDL"))

    def retrieve(self, number: int) -> None:
        """MessageBegin, MessageChunk as often as needed, MessageEnd; or Answered."""
        self._queue(_step(Request("RETR", number), "RETR", _number(number, 1)))

    def top(self, number: int, lines: int) -> None:
        """As retrieve()."""
        self._queue(_step(Request("TOP", number, lines), "TOP", _number(number, 1), _number(lines, 0)))

    def delete(self, number: int) -> None:
        """Answered. The message is gone only when QUIT was answered `+OK`."""
        self._queue(_step(Request("DELE", number), "DELE", _number(number, 1)))

    def reset(self) -> None:
        """Answered."""
        self._queue(_step(Request("RSET"), "RSET"))

    def noop(self) -> None:
        """Answered."""
        self._queue(_step(Request("NOOP"), "NOOP"))

    def quit(self) -> None:
        """Answered, then CLOSED. Nothing can be queued behind it."""
        self._queue(_step(Request("QUIT"), "QUIT"))
        self._quitting = True

    # Octets.

    def receive(self, octets: bytes) -> None:
        """Take what the server sent; b"" is its end of stream."""
        if not octets:
            self._ended = True
        elif not self._closed:
            self._lines.feed(octets)
            if self._idle():
                self._fault = self._fault or "the server spoke unasked"

    def next_event(self) -> Event | Signal:
        """What comes next. Raises RemoteProtocolError."""
        while True:
            if self._events:
                return self._events.popleft()
            if self._closed:
                return CLOSED
            if self._fault is not None:
                raise RemoteProtocolError(self._fault)
            event = self._read_content() if self._reader is not None else self._read_line()
            if event is not None:
                return event

    def outgoing(self) -> bytes:
        """Take what is to be written to the server."""
        octets = bytes(self._outgoing)
        self._outgoing.clear()
        return octets

    # From here on private.

    def _queue(self, *steps: _Step) -> None:
        if self._quitting:
            raise LocalProtocolError("a command after QUIT")
        self._waiting.extend(steps)
        if self._greeted and self._fault is None and not self._closed:
            self._send()

    def _send(self) -> None:
        depth = PIPELINE_DEPTH if self.pipelining else 1
        while self._waiting and len(self._in_flight) < depth:
            step = self._waiting.popleft()
            self._outgoing += step.line
            self._in_flight.append(step)

    def _idle(self) -> bool:
        return self._greeted and not self._in_flight and self._list is None and self._reader is None

    def _settle(self) -> None:
        """An answer is complete: send what had to wait for it, unless the server has said too much."""
        if self._closed:
            self._lines.clear()
        elif not self._in_flight and len(self._lines):
            self._fault = "the server spoke unasked"
        else:
            self._send()

    def _fail(self, why: str) -> NoReturn:
        self._fault = why
        raise RemoteProtocolError(why)

    def _read_line(self) -> Event | Signal | None:
        try:
            line = self._lines.next_line(LENIENT_RESPONSE_LIMIT_OCTETS)
        except EndlessLine:
            self._fail("a line without end")
        if line is None:
            return self._wait()
        if isinstance(line, BadLine):
            self._fail(f"a bad line: {line.fault.name}")
        if self._list is not None:
            return self._take_list_line(self._list, line)
        if self._answers_challenge(line):
            return None
        response = parse_response(line)
        if response is None:
            self._fail("an answer that is neither +OK nor -ERR")
        if not self._greeted:
            return self._take_greeting(response)
        return self._take_response(self._in_flight.popleft(), response)

    def _answers_challenge(self, line: bytes) -> bool:
        """Say what is next in AUTH, if the line is a challenge (RFC 5034 §4)."""
        if line[:2] not in (b"+", b"+ ") or not self._in_flight or self._in_flight[0].responses is None:
            return False
        if len(self._lines):
            self._fail("the server spoke unasked")
        responses = self._in_flight[0].responses
        # (An empty response is an empty line.)
        self._outgoing += (b64encode(responses.popleft()) if responses else b"*") + b"\r\n"
        return True

    def _wait(self) -> Signal:
        if not self._ended:
            return NEED_DATA
        if not self._idle():
            self._fail("the server closed the connection before its answer was complete")
        self._closed = True
        return CLOSED

    def _take_greeting(self, response: Response) -> Greeted:
        self._greeted = True
        self._closed = not response.ok
        self._settle()
        return Greeted(response.ok, response.text)

    def _take_response(self, step: _Step, response: Response) -> Event | None:
        event = self._event_for(step, response)
        if self._list is None and self._reader is None:
            self._settle()
        return event

    def _event_for(self, step: _Step, response: Response) -> Event | None:
        request = step.request
        if step.void or (step.leads and response.ok):
            return None
        if step.leads:
            self._give_up_pass()
        if response.ok:
            match request.verb:
                case "STAT":
                    return self._totals(response)
                case "LIST" | "UIDL" | "CAPA":
                    self._list = _List(request.verb)
                    return None
                case "RETR" | "TOP":
                    assert request.number is not None
                    self._number, self._reader = request.number, ContentReader()
                    return MessageBegin(request.number)
        if request.verb == "QUIT":
            self._closed = True
        return Answered(request, response.ok, response.code, response.text)

    def _give_up_pass(self) -> None:
        if self._in_flight:
            self._in_flight[0].void = True
        else:
            self._waiting.popleft()

    def _totals(self, response: Response) -> Totals:
        totals = _TOTALS.match(response.text)
        if totals is None:
            self._fail("an answer to STAT without its numbers")
        return Totals(int(totals[1]), int(totals[2]))

    def _take_list_line(self, collected: _List, line: bytes) -> Event | None:
        if line != END_OF_LIST:
            # RFC 1939 §3: a first dot was put there by the server.
            fault = collected.add(line.removeprefix(b"."))
            if fault is not None:
                self._fail(fault)
            return None
        self._list = None
        event = collected.event()
        if isinstance(event, Capabilities):
            self.pipelining = event.has("PIPELINING")
        self._settle()
        return event

    def _read_content(self) -> Event | Signal | None:
        assert self._reader is not None
        if not len(self._lines):
            return self._wait()
        chunk, rest = self._reader.feed(self._lines.take(len(self._lines)))
        if self._reader.ended:
            self._lines.feed(rest)
            self._events.append(MessageEnd(self._number, intact=not self._reader.bare_line_end))
            self._reader = None
            self._settle()
        return MessageChunk(chunk) if chunk else None


class _List:
    """The lines of one multi-line answer, parsed as they come."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._sizes: dict[int, int] = {}
        self._uidls: dict[int, str] = {}
        self._lines: list[str] = []

    def add(self, line: bytes) -> str | None:
        """Take a line; what is wrong with it, if anything."""
        if len(self._sizes) + len(self._uidls) + len(self._lines) >= LIST_LIMIT_LINES:
            return "a list without end"
        if self._verb == "CAPA":
            self._lines.append(printable(line))
            return None
        number_octets, _, rest = line.partition(b" ")
        number = parse_number(number_octets)
        if not number or number in self._sizes or number in self._uidls:
            return "a list with a bad message number"
        if self._verb == "UIDL":
            return self._add_uidl(number, rest)
        # RFC 1939 §5 discourages what may follow the size, and allows it.
        size = parse_number(rest.split(b" ", 1)[0])
        if size is None:
            return "a list with a bad size"
        self._sizes[number] = size
        return None

    def _add_uidl(self, number: int, uidl: bytes) -> str | None:
        if not _UNIQUE_ID.match(uidl):
            return "a list with a bad unique-id"
        self._uidls[number] = uidl.decode("ascii")
        return None

    def event(self) -> Sizes | Uidls | Capabilities:
        """The whole list."""
        match self._verb:
            case "LIST":
                return Sizes(self._sizes)
            case "UIDL":
                return Uidls(self._uidls)
            case _:
                return Capabilities(tuple(self._lines))


def _step(request: Request, *words: str) -> _Step:
    """The command line; raises LocalProtocolError where a word would end it or begin another one."""
    if any(not word or _FORBIDDEN.search(word) for word in words):
        raise LocalProtocolError(f"an argument of {request.verb} is empty or holds CR, LF or NUL")
    try:
        return _Step(request, " ".join(words).encode("utf-8") + b"\r\n")
    except UnicodeEncodeError:
        raise LocalProtocolError(f"an argument of {request.verb} is no text") from None


def _number(number: int, least: int) -> str:
    if not least <= number < 10**18:
        raise LocalProtocolError(f"{number} is out of range")
    return str(number)
