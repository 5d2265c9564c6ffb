"""The server half of SMTP without I/O (RFC 5321, 1870, 2034, 2920, 3030, 3207, 4954, 6152, 9422).

The driver's loop: `next_event()`; answer a Command with exactly one `reply()`, note a Notice; at NEED_DATA write
`outgoing()`, read, `receive()`. What concerns only the dialogue itself is answered here.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from posthouse.mail.reply import Reply, reply
from posthouse.protocol import smtp_order as order
from posthouse.protocol.errors import LocalProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA, Command, Notice, Signal
from posthouse.protocol.lines import BadLine, ContentReader, EndlessLine, LineBuffer, LineFault
from posthouse.protocol.sasl import ScramVerifier
from posthouse.protocol.smtp import (
    HTTP_METHODS,
    LONGEST_LINE_OCTETS,
    NOT_IMPLEMENTED,
    UNKNOWN_COMMAND,
    VERBS,
    Authenticate,
    AuthLine,
    BeginContent,
    Chunk,
    Context,
    EndOfContent,
    Hello,
    Help,
    Mail,
    Noop,
    Quit,
    Recipient,
    Reset,
    ScramVerifierWanted,
    StartTls,
    Unimplemented,
    Verb,
    parse_argument,
    split_line,
)
from posthouse.protocol.smtp_content import WORTHY_CHUNK_OCTETS, ChunkReader, OpenChunk, Transaction
from posthouse.protocol.smtp_notices import ContentChunk, ContentRefused, QuitReceived, Rejected, TransactionDropped
from posthouse.protocol.smtp_options import EXTENSIONS, ServerOptions, keyword_lines, offered_keywords
from posthouse.protocol.smtp_order import ALLOWED, State
from posthouse.protocol.smtp_reply import encode_lines, encode_reply
from posthouse.protocol.smtp_sasl import EXCHANGES, SaslLogin, Step

__all__ = [
    "ALLOWED",
    "EXTENSIONS",
    "ContentChunk",
    "ContentRefused",
    "Event",
    "QuitReceived",
    "Rejected",
    "ServerOptions",
    "SmtpServer",
    "State",
    "TransactionDropped",
]

Event: TypeAlias = Command | Notice | Signal

# Looked up once: to Python 3.11 a member of an enumeration is as dear as a call, and `next_event` asks for many.
_UNGREETED, _UNWILLING, _GREETED, _READY = State.UNGREETED, State.UNWILLING, State.GREETED, State.READY
_MAIL, _RECIPIENTS, _CONTENT, _CHUNK, _CHUNKS = State.MAIL, State.RECIPIENTS, State.CONTENT, State.CHUNK, State.CHUNKS
_AUTHENTICATING, _HANDSHAKE, _CLOSED = State.AUTHENTICATING, State.HANDSHAKE, State.CLOSED
_NOTHING_OFFERED = Context(frozenset())

DISCARDED_CONTENT_OCTETS = 64 * 1024 * 1024
"""Content that is too large is read to its end and refused there; so much beyond the limit, and the session ends."""


class SmtpServer:
    """One session. `extended`, `hello_name` and `authenticated` tell what the peer said so far."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._input = LineBuffer()
        self._output: list[bytes] = []
        self._notices: deque[Notice] = deque()
        self._pending: Command | None = None
        self._login: SaslLogin | None = None
        self._chunk: OpenChunk | None = None
        self._worthy_chunks = 0
        self._after_refused_chunk = _READY
        self._end_of_input = False
        self._forget(_UNGREETED)

    def _forget(self, state: State) -> None:
        self._state = state
        self._transaction: Transaction | None = None
        self._transactions = 0
        self._context = _NOTHING_OFFERED
        self.extended = False
        self.hello_name = ""
        self.authenticated = False

    def greet(self, text: str = "") -> None:
        """Queue `220 hostname text`; lines that came before are answered only now."""
        if self._state is not _UNGREETED:
            raise LocalProtocolError("greeted twice")
        self._output.append(encode_lines(220, "", f"{self._options.hostname} {text}".rstrip()))
        self._state = _GREETED

    def refuse_service(self, refusal: Reply) -> None:
        """Greet with 554 or 421; whatever comes then, except QUIT, is answered 503 (RFC 5321 §3.1)."""
        if self._state is not _UNGREETED:
            raise LocalProtocolError("greeted twice")
        self._output.append(encode_reply(refusal))
        self._state = _UNWILLING

    def close(self, farewell: Reply | None = None) -> None:
        """End the session, saying `farewell` (421) if given; CLOSED comes next, after TransactionDropped if need be."""
        if self._state is _CLOSED:
            return
        if farewell is not None and self._state is not _HANDSHAKE:
            self._output.append(encode_reply(farewell))
        self._pending = None
        self._end()

    def tls_started(self, options: ServerOptions) -> None:
        """The handshake succeeded: begin anew with `options`, all that was said before being forgotten."""
        if self._state is not _HANDSHAKE:
            raise LocalProtocolError("no handshake was due")
        self._options = options
        self._forget(_GREETED)

    def receive(self, octets: bytes) -> None:
        """Take octets from the peer; b"" says that no more will come."""
        if self._state is _HANDSHAKE and octets:
            raise LocalProtocolError("octets of the handshake are not ours")
        if not octets:
            self._end_of_input = True
        elif self._state is not _CLOSED:
            self._input.feed(octets)

    def outgoing(self) -> bytes:
        """What is to be written to the peer now; given out once."""
        output, self._output = self._output, []
        return output[0] if len(output) == 1 else b"".join(output)

    @property
    def lines(self) -> int:
        """How many lines came, those of content not counted, nor a BDAT that brought enough of it."""
        return self._input.lines - self._worthy_chunks

    @property
    def has_more(self) -> bool:
        """Whether the peer sent something behind what was taken last."""
        return len(self._input) > 0

    def next_event(self) -> Event:
        """The next command, notice or signal. The last command must have been answered."""
        if self._pending is not None:
            raise LocalProtocolError(f"{self._pending!r} was not answered")
        while True:
            if self._notices:
                return self._notices.popleft()
            state = self._state
            if state is _CLOSED:
                return CLOSED
            if state is _CONTENT:
                event = self._read_content()
            elif state is _CHUNK:
                event = self._read_chunk()
            elif state is _UNGREETED or state is _HANDSHAKE or not self._input:
                event = self._need_data()
            else:
                event = self._read_line()
            if event is not None:
                return event

    def reply(self, answer: Reply) -> None:
        """Answer the last command. 421 also ends the session (RFC 5321 §3.8)."""
        command, self._pending = self._pending, None
        if command is None:
            raise LocalProtocolError("there is no command to answer")
        if isinstance(command, Hello) and answer.is_positive:
            self._greet_back(command, answer.text)
        elif isinstance(command, BeginContent) and command.chunked and answer.code != 421:
            self._begin_chunks(answer)
        elif isinstance(command, ScramVerifierWanted) and answer.is_positive:
            raise LocalProtocolError("a verifier is provided, or refused")
        elif isinstance(command, StartTls) and answer.code == 220 and len(self._input):
            self._notices.appendleft(self._reject_and_end("STARTTLS", order.TALKED_PAST_STARTTLS))
        else:
            self._output.append(encode_reply(answer))
            self._advance(command, answer)
        if answer.code == 421:
            self._end()

    def provide_scram(self, verifier: ScramVerifier, nonce: str) -> None:
        """Answer ScramVerifierWanted. `nonce` is fresh and random, printable ASCII without a comma."""
        if not isinstance(self._pending, ScramVerifierWanted) or self._login is None:
            raise LocalProtocolError("no verifier was asked for")
        self._pending = None
        self._output.append(self._login.provide(verifier, nonce))

    def _advance(self, command: Command, answer: Reply) -> None:
        """Move on as the driver decided."""
        match command:
            case Recipient() if answer.is_positive:
                assert self._transaction is not None
                self._transaction.recipients += 1
                self._state = _RECIPIENTS
            case Mail(smtputf8=smtputf8) if answer.is_positive:
                self._transaction = Transaction(smtputf8)
                self._transactions += 1
                if smtputf8 != self._context.smtputf8:
                    self._context = Context(self._context.offered, smtputf8)
                self._state = _MAIL
            case BeginContent() if answer.code == 354:
                assert self._transaction is not None
                self._transaction.content = ContentReader()
                self._state = _CONTENT
            case BeginContent():
                if answer.is_positive:
                    raise LocalProtocolError("DATA is answered with 354 or refused")
                self._drop_transaction()
            case EndOfContent():
                self._transaction = None
                self._state = _READY
            case Authenticate() if answer.code == 235:
                self.authenticated = True
            case ScramVerifierWanted():
                self._login, self._state = None, _READY
            case StartTls() if answer.code == 220:
                self._drop_transaction()
                self._state = _HANDSHAKE

    def _greet_back(self, hello: Hello, text: str) -> None:
        self._drop_transaction()
        self._state = _READY
        self.hello_name, self.extended = hello.name, hello.extended
        first = f"{self._options.hostname} {text}".replace("\n", " ").rstrip()
        if not hello.extended:
            self._context = _NOTHING_OFFERED
            self._output.append(encode_lines(250, "", first))
            return
        self._context = Context(offered_keywords(self._options))
        self._output.append(encode_lines(250, "", "\n".join([first, *keyword_lines(self._options)])))

    def _need_data(self) -> Event:
        if not self._end_of_input:
            return NEED_DATA
        self._end()
        return self._notices.popleft() if self._notices else CLOSED

    def _read_line(self) -> Event | None:
        try:
            line = self._input.next_line(LONGEST_LINE_OCTETS)
        except EndlessLine:
            return self._reject_and_end("", order.LINE_TOO_LONG)
        if line is None:
            return self._need_data()
        if self._state is _AUTHENTICATING:
            return self._continue_exchange(line)
        if isinstance(line, BadLine):
            return self._reject("", self._line_fault(line))
        return self._take_command(line)

    def _take_command(self, line: bytes) -> Event | None:
        name, argument = split_line(line)
        verb = VERBS.get(name)
        if verb is None and name in HTTP_METHODS:
            return self._reject_and_end(order.printable(name), order.NOT_HTTP)
        if verb is not None and verb.command is Chunk:
            return self._take_chunk(verb, len(line) + 2, argument)
        if self._state is _UNWILLING and name != b"QUIT":
            return self._reject(order.printable(name), order.NO_SERVICE)
        if verb is None:
            return self._reject(order.printable(name), UNKNOWN_COMMAND)
        refusal = self._out_of_order(verb.command)
        if refusal is not None:
            return self._reject(name.decode(), refusal)
        command = parse_argument(verb, len(line) + 2, argument, self._context)
        if isinstance(command, Reply):
            return self._reject(name.decode(), command)
        return self._carry_out(name.decode(), command)

    def _out_of_order(self, command: type[Command]) -> Reply | None:
        """Why a command of this kind may not come now."""
        return order.out_of_order(
            command, self._state, self._options, authenticated=self.authenticated, extended=self.extended
        )

    def _carry_out(self, name: str, command: Command) -> Event | None:
        """Hand a command to the driver, or do what needs no driver. What each message has stands first."""
        transaction = self._transaction
        match command:
            case Hello() | BeginContent():
                return self._ask_driver(command)
            case Mail(size_octets=size) if size is not None and size > self._options.message_size_octets:
                return self._reject(name, order.TOO_LARGE)
            case Mail() if self._options.max_messages is not None and self._transactions >= self._options.max_messages:
                return self._reject_and_end(name, order.TOO_MANY_MESSAGES)
            case Recipient() if transaction is not None and transaction.recipients >= self._options.max_recipients:
                return self._reject(name, order.TOO_MANY_RECIPIENTS)
            case Mail() | Recipient():
                return self._ask_driver(command)
            case Quit():
                self._output.append(order.goodbye(self._options.hostname))
                self._end(QuitReceived())
            case Noop():
                self._output.append(order.OK)
            case Help():
                self._output.append(order.HELP)
            case Reset():
                self._drop_transaction()
                self._output.append(order.OK)
            case Unimplemented():
                return self._reject(name, NOT_IMPLEMENTED)
            case AuthLine():
                return self._begin_exchange(command)
            case StartTls() if len(self._input):
                return self._reject_and_end(name, order.TALKED_PAST_STARTTLS)
            case _:
                return self._ask_driver(command)
        return None

    def _ask_driver(self, command: Command) -> Command:
        self._pending = command
        return command

    def _begin_exchange(self, line: AuthLine) -> Event | None:
        if line.mechanism not in self._options.auth_mechanisms or line.mechanism not in EXCHANGES:
            return self._reject("AUTH", order.UNKNOWN_MECHANISM)
        self._login = SaslLogin(line.mechanism)
        self._state = _AUTHENTICATING
        return self._take_step(self._login.begin(line.initial_response))

    def _continue_exchange(self, line: bytes | BadLine) -> Event | None:
        assert self._login is not None
        return self._take_step(self._line_fault(line) if isinstance(line, BadLine) else self._login.take(line))

    def _take_step(self, step: Step) -> Event | None:
        """Pass on what an exchange came to; only a challenge, and the question for a verifier, let it go on."""
        if isinstance(step, bytes):
            self._output.append(step)
            return None
        if isinstance(step, ScramVerifierWanted):
            self._pending = step
            return step
        self._login, self._state = None, _READY
        if isinstance(step, Reply):
            return self._reject("AUTH", step)
        self._pending = step
        return step

    def _line_fault(self, line: BadLine) -> Reply:
        if self._state is _UNWILLING:
            return order.NO_SERVICE
        return order.LINE_TOO_LONG if line.fault is LineFault.TOO_LONG else order.BARE_LINE_END

    def _read_content(self) -> Event | None:
        transaction = self._transaction
        assert transaction is not None
        reader = transaction.content
        assert isinstance(reader, ContentReader)
        if reader.ended:
            return self._end_content(transaction, reader)
        waiting_octets = len(self._input)
        if not waiting_octets:
            return self._need_data()
        chunk, rest = reader.feed(self._input.take(waiting_octets))
        if rest:
            self._input.feed(rest)
        transaction.size_octets += len(chunk)
        if transaction.size_octets > self._options.message_size_octets + DISCARDED_CONTENT_OCTETS:
            return self._refuse_content(order.TOO_LARGE, ends=True)
        if not chunk or reader.bare_line_end or transaction.size_octets > self._options.message_size_octets:
            return None
        return ContentChunk(chunk)

    def _end_content(self, transaction: Transaction, reader: ContentReader) -> Event:
        """Refuse what is known to be bad, at the true end and once; else let the driver decide."""
        if not reader.bare_line_end and transaction.size_octets <= self._options.message_size_octets:
            self._pending = EndOfContent(transaction.size_octets)
            return self._pending
        return self._refuse_content(order.BARE_LINE_END_IN_CONTENT if reader.bare_line_end else order.TOO_LARGE)

    def _refuse_content(self, refusal: Reply, *, ends: bool = False) -> ContentRefused:
        self._output.append(encode_reply(refusal))
        if ends:
            self._end()
        else:
            self._drop_transaction()
        return ContentRefused(refusal)

    def _take_chunk(self, verb: Verb, line_octets: int, argument: bytes) -> Event | None:
        """BDAT: the announced octets are read whatever is wrong with it, and a refusal is said after them."""
        chunk = parse_argument(verb, line_octets, argument, self._context)
        if isinstance(chunk, Reply):
            # How many octets follow is not known, so none of them can be told from a command.
            return self._reject_and_end("BDAT", chunk)
        assert isinstance(chunk, Chunk)
        limit = self._options.message_size_octets
        if chunk.size_octets > limit + DISCARDED_CONTENT_OCTETS:
            return self._reject_and_end("BDAT", order.TOO_LARGE)
        transaction = self._transaction
        refusal = self._out_of_order(Chunk) or chunk.fault
        if refusal is None and transaction is not None and transaction.size_octets + chunk.size_octets > limit:
            refusal = order.TOO_LARGE
        self._chunk = OpenChunk(chunk.size_octets, chunk.last, chunk.size_octets, refusal)
        if refusal is not None:
            # Content with a hole must never be accepted, so a refused chunk ends the transaction.
            self._drop_transaction()
            self._after_refused_chunk = self._state
        elif transaction is not None and transaction.content is None:
            self._pending = BeginContent(chunked=True)
            return self._pending
        self._state = _CHUNK
        return None

    def _begin_chunks(self, answer: Reply) -> None:
        """The driver's word on the first BDAT of a message, whose octets are still to be read."""
        assert self._chunk is not None
        assert self._transaction is not None
        if answer.code == 354:
            self._transaction.content = ChunkReader()
        elif answer.is_positive:
            raise LocalProtocolError("BDAT is answered with 354 or refused")
        else:
            self._chunk.refusal, self._chunk.is_drivers = answer, True
            self._drop_transaction()
            self._after_refused_chunk = self._state
        self._state = _CHUNK

    def _read_chunk(self) -> Event | None:
        chunk = self._chunk
        assert chunk is not None
        if not chunk.remaining:
            return self._end_chunk(chunk)
        if not len(self._input):
            return self._need_data()
        octets = self._input.take(min(chunk.remaining, len(self._input)))
        chunk.remaining -= len(octets)
        if chunk.refusal is not None:
            return None
        assert self._transaction is not None
        reader = self._transaction.take_chunked(octets)
        return None if reader.bare_line_end else ContentChunk(octets)

    def _end_chunk(self, chunk: OpenChunk) -> Event | None:
        """All announced octets were read: answer them."""
        if chunk.refusal is not None:
            self._chunk, self._state = None, self._after_refused_chunk
            self._output.append(encode_reply(chunk.refusal))
            return None if chunk.is_drivers else Rejected("BDAT", chunk.refusal)
        transaction = self._transaction
        assert transaction is not None
        assert isinstance(transaction.content, ChunkReader)
        reader = transaction.content
        tail = reader.end() if chunk.last else b""
        if reader.bare_line_end:
            self._chunk = None
            return self._refuse_content(order.BARE_LINE_END_IN_CONTENT)
        if tail:
            # Asked again, the reader misses nothing.
            transaction.take_chunked(tail)
            return ContentChunk(tail)
        self._chunk = None
        self._worthy_chunks += chunk.size_octets >= WORTHY_CHUNK_OCTETS
        if chunk.last:
            self._pending = EndOfContent(transaction.size_octets)
            return self._pending
        self._output.append(encode_reply(reply(250, "2.0.0", f"{chunk.size_octets} octets received")))
        self._state = _CHUNKS
        return None

    def _reject(self, verb: str, refusal: Reply) -> Rejected:
        self._output.append(encode_reply(refusal))
        return Rejected(verb, refusal)

    def _reject_and_end(self, verb: str, refusal: Reply) -> Rejected:
        rejected = self._reject(verb, refusal)
        self._end()
        return rejected

    def _drop_transaction(self) -> None:
        if self._transaction is None:
            return
        self._transaction = None
        if self._context.smtputf8:
            self._context = Context(self._context.offered)
        self._state = _READY
        self._notices.append(TransactionDropped())

    def _end(self, last: Notice | None = None) -> None:
        self._drop_transaction()
        if last is not None:
            self._notices.append(last)
        self._chunk = None
        self._state = _CLOSED
        self._input.clear()
