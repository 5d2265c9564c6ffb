"""Targets: whole dialogues with either half of SMTP, and the lines of an envelope from one half to the other."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

from tests.fuzz.draw import Draw, assert_one_line, assert_whole_lines, cut, same_however_cut
from tests.fuzz.framing import has_bare_line_end
from tests.protocol.smtp_reception import OPTIONS, Reception

from posthouse.mail.address import Address
from posthouse.mail.reply import Reply
from posthouse.protocol import sasl_scram
from posthouse.protocol.errors import LocalProtocolError, RemoteProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA, Signal
from posthouse.protocol.smtp import (
    LONGEST_LINE_OCTETS,
    VERBS,
    Context,
    Hello,
    Mail,
    Recipient,
    StartTls,
    Verify,
    parse_argument,
)
from posthouse.protocol.smtp_client import (
    AuthReplied,
    Challenged,
    ClientEvent,
    ClientRecipient,
    ClientTransaction,
    ContentWanted,
    Greeting,
    SmtpClient,
    TlsReplied,
    TransactionEnded,
)
from posthouse.protocol.smtp_client_envelope import mail_line, recipient_line
from posthouse.protocol.smtp_notices import ContentChunk, Rejected
from posthouse.protocol.smtp_options import ALWAYS_POSSIBLE, ServerOptions
from posthouse.protocol.smtp_reply import MAX_PEER_LINE_OCTETS, MAX_REPLY_LINES, MAX_TEXT_CHARACTERS
from posthouse.protocol.smtp_server import State

DOORS: tuple[ServerOptions, ...] = (
    replace(OPTIONS, auth_mechanisms=("PLAIN", "LOGIN")),
    replace(OPTIONS, message_size_octets=60, max_recipients=2),
    replace(OPTIONS, auth_mechanisms=("PLAIN",), auth_required=True),
    replace(OPTIONS, extensions=frozenset({"PIPELINING"}), max_messages=2),
)
MAX_REPLY_OCTETS = 700
"""Of one reply of ours, the longest being that to EHLO."""
OFFERED = ALWAYS_POSSIBLE | {"AUTH"}
PROMISES = dict.fromkeys(OFFERED, "")
TRANSACTION = ClientTransaction(
    reverse_path=Address("a", "b.test"),
    recipients=(ClientRecipient(Address("c", "d.test")), ClientRecipient(Address("e", "f.test"))),
    size_octets=4,
)
CHEAP_ITERATIONS = 4096


def smtp_server(octets: bytes) -> None:
    """Any octets from a client: replies that can be read, one for each line, and only whole messages."""
    draw = Draw(octets)
    options, seed = draw.choice(DOORS), draw.number()
    wire = draw.rest()

    def run(pieces: list[bytes]) -> tuple[object, ...]:
        reception = Reception(options)
        for piece in pieces:
            reception.send(piece)
            assert len(reception.server._input) <= LONGEST_LINE_OCTETS, "more than a line is held"
        events = [event for event in reception.events if not isinstance(event, ContentChunk)]
        return events, reception.deliveries, reception.received(), reception.signal

    same_however_cut(wire, seed, run)
    reception = Reception(options)
    if wire:
        reception.send(wire)
    _check_answers(reception, reception.received())
    _check_events(reception)
    reception.send(b"")
    assert reception.ended()
    assert reception.mail is None, "the end of input leaves a transaction open"


def _check_answers(reception: Reception, said: bytes) -> None:
    finals = [line[:3] for line in said.split(b"\r\n")[:-1] if line[3:4] == b" "]
    lines = reception.server._input.lines
    contents = finals.count(b"354")
    # A chunk that is not whole has no reply yet, content that is not whole neither; an endless line is none.
    assert lines - 1 <= len(finals) - 1 <= lines + contents + 1, (finals, lines)
    assert len(said) <= MAX_REPLY_OCTETS * len(finals)


def _check_events(reception: Reception) -> None:
    for event in reception.events:
        match event:
            case Hello(name=name):
                assert name.isascii()
                assert name.isprintable()
            case Verify(argument=text) | Rejected(line_verb=text):
                assert text.isprintable()
                assert len(text) <= LONGEST_LINE_OCTETS
            case Mail() | Recipient():
                _check_path(event)
    for delivery in reception.deliveries:
        assert len(delivery.content) <= reception.options.message_size_octets
        assert not has_bare_line_end(delivery.content)
        assert not delivery.content or delivery.content.endswith(b"\r\n")
        assert 1 <= len(delivery.recipients) <= reception.options.max_recipients


def _check_path(command: Mail | Recipient) -> None:
    match command:
        case Mail(reverse_path=path, envelope_id=said, smtputf8=utf8):
            assert path is None or path.is_ascii or utf8
        case Recipient(forward_path=path, original_recipient=said):
            pass
    assert path is None or str(path).isprintable()
    assert said is None or said.isprintable()


class Handshakes(Reception):
    """A reception whose handshakes succeed at once; `secured` is the session inside TLS."""

    secured: Reception | None = None

    def pump(self) -> None:
        super().pump()
        if self.signal is not CLOSED and any(isinstance(event, StartTls) for event in self.events):
            assert self.server._state is State.HANDSHAKE, "it was promised, and does not come"
            assert not self.server.has_more, "octets from before the handshake are kept"
            self.server.tls_started(replace(self.options, starttls=False))
            assert not self.server.extended
            assert not self.server.authenticated
            self.events.clear()
            self.secured = Reception(replace(self.options, starttls=False))


def smtp_server_tls(octets: bytes) -> None:
    """What follows STARTTLS in clear is never taken; what is said inside TLS is taken as in a new session."""
    draw = Draw(octets)
    seed, wire = draw.number(), draw.rest()
    outside = Handshakes(replace(OPTIONS, starttls=True, auth_mechanisms=("PLAIN",)))
    for piece in cut(wire, seed):
        inside = outside.secured
        outside.send(piece)
        if inside is not None:
            inside.send(piece)
    if (inside := outside.secured) is not None:
        assert outside.events == inside.events
        assert outside.signal == inside.signal
    outside.send(b"")
    assert outside.ended()


class Driver:
    """A driver of the client half that sends two messages as soon as it may, logs in and starts TLS if told to."""

    def __init__(self, *, login: bool = False, tls: bool = False) -> None:
        self.client = SmtpClient("c.test")
        self.events: list[ClientEvent | str] = []
        self.sent = b""
        self._todo = ["tls"] * tls + ["login"] * login + ["begin", "begin", "reset", "quit"]

    def take(self, octets: bytes) -> None:
        self.client.receive(octets)
        try:
            while not isinstance(event := self.client.next_event(), Signal):
                self.events.append(event)
                if not self.client.is_closed:
                    self._go_on(event)
        except RemoteProtocolError as exc:
            self.events.append(str(exc))
            assert self.client.next_event() is CLOSED, "an error is final"
        said = self.client.outgoing()
        assert_whole_lines(said)
        self.sent += said

    def _go_on(self, event: ClientEvent) -> None:
        match event:
            case Challenged():
                self.client.answer_challenge()
            case ContentWanted():
                self.client.content(b"h.\r\n")
                if not self.client.awaiting:
                    self.client.end_content()
            case TlsReplied(reply=reply) if reply.is_positive:
                self.client.tls_started()
            case AuthReplied(fault=fault) if fault is not None:
                self._todo = ["quit"]
                self._do_next()
            case Greeting():
                pass
            case _:
                self._do_next()

    def _do_next(self) -> None:
        if not self._todo:
            return
        step = self._todo.pop(0)
        if step == "begin" and not self.client.may_begin(TRANSACTION):
            step = "quit"
        try:
            match step:
                case "tls":
                    self.client.start_tls()
                case "login":
                    self.client.login("ada", "secret", "cnonce")
                case "begin":
                    self.client.begin(TRANSACTION)
                case "reset":
                    self.client.reset()
                case "quit":
                    self.client.quit()
        except LocalProtocolError:
            # The peer does not offer it, and its driver would have seen that; or the session is not ready.
            if step != "quit":
                self._do_next()


def smtp_client(octets: bytes) -> None:
    """Any replies: only RemoteProtocolError, which is final; the same events however cut; nothing odd is sent."""
    draw = Draw(octets)
    login, seed = draw.chance(), draw.number()
    wire = b"220 mx\r\n" + draw.rest()

    def run(pieces: list[bytes]) -> tuple[object, ...]:
        driver = Driver(login=login)
        for piece in [*pieces, b""]:
            driver.take(piece)
        return driver.events, driver.sent

    with mock.patch.object(sasl_scram, "MAXIMUM_ITERATIONS", CHEAP_ITERATIONS):
        events, _sent = same_however_cut(wire, seed, run)
    for event in events:
        _check_replies(event)


def _check_replies(event: ClientEvent | str) -> None:
    if isinstance(event, str | Signal):
        return
    replies = [getattr(event, name, None) for name in ("reply", "mail", "data", "final")]
    if isinstance(event, TransactionEnded):
        replies += event.recipients
        assert event.final is None or event.mail.is_positive, "content of a sender that was refused"
    for reply in replies:
        if isinstance(reply, Reply):
            assert 200 <= reply.code <= 599
            assert reply.enhanced is None or reply.enhanced.klass == reply.code // 100
            assert len(reply.text) <= MAX_TEXT_CHARACTERS + MAX_REPLY_LINES
            assert all(line.isprintable() for line in reply.text.split("\n"))


def smtp_client_tls(octets: bytes) -> None:
    """As smtp_client, with STARTTLS: what the peer said in clear is forgotten, whatever comes in which pieces."""
    draw = Draw(octets)
    login, seed = draw.chance(), draw.number()
    driver = Driver(login=login, tls=True)
    with mock.patch.object(sasl_scram, "MAXIMUM_ITERATIONS", CHEAP_ITERATIONS):
        for piece in [b"220 mx\r\n", *cut(draw.rest(), seed), b""]:
            driver.take(piece)
    assert driver.client.next_event() in (CLOSED, NEED_DATA)
    assert driver.client.is_closed or len(driver.client._input) <= MAX_PEER_LINE_OCTETS


def smtp_envelope(octets: bytes) -> None:
    """MAIL and RCPT that the server half takes are lines that the client half can say, and mean the same again."""
    draw = Draw(octets)
    utf8 = draw.chance()
    verb = draw.choice((b"MAIL", b"RCPT"))
    argument = draw.rest().replace(b"\r", b"").replace(b"\n", b"")
    context = Context(OFFERED, smtputf8=utf8)
    command = parse_argument(VERBS[verb], len(argument) + 7, argument, context)
    if isinstance(command, Reply):
        assert 500 <= command.code <= 599
        return
    if isinstance(command, Mail):
        sent = _transaction(command, (ClientRecipient(Address("c", "d.test")),))
        line = mail_line(sent, PROMISES)
    else:
        assert isinstance(command, Recipient)
        if not command.forward_path.domain:
            return
        recipient = ClientRecipient(command.forward_path, command.notify, command.original_recipient)
        international = not command.forward_path.is_ascii
        sent = replace(_transaction(Mail(reverse_path=None), (recipient,)), smtputf8=international)
        line = recipient_line(recipient, sent, PROMISES)
    assert_one_line(line.encode() + b"\r\n")
    assert len(line.encode()) + 2 <= VERBS[verb].limit_octets
    again = parse_argument(VERBS[verb], len(line.encode()) + 2, line.encode().partition(b" ")[2], context)
    if isinstance(again, Mail):
        again = replace(again, size_octets=None)
    if isinstance(command, Mail):
        command = replace(command, size_octets=None)
    if isinstance(command, Recipient) and "ORCPT=" not in line:
        # Left out, where it is too long in ASCII.
        command = replace(command, original_recipient=None)
    assert again == command, line


def _transaction(mail: Mail, recipients: tuple[ClientRecipient, ...]) -> ClientTransaction:
    return ClientTransaction(
        reverse_path=mail.reverse_path,
        recipients=recipients,
        size_octets=mail.size_octets or 0,
        body=mail.body,
        smtputf8=mail.smtputf8,
        ret=mail.ret,
        envelope_id=mail.envelope_id,
    )
