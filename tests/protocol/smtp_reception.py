"""A driver of the server half for tests: decides by fixed rules, keeps what it accepted and every event it saw."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from posthouse.mail.reply import Reply, reply
from posthouse.protocol.events import CLOSED, NEED_DATA, Command, Notice, Signal
from posthouse.protocol.smtp import (
    Authenticate,
    BeginContent,
    EndOfContent,
    Hello,
    Mail,
    Recipient,
    StartTls,
    Verify,
)
from posthouse.protocol.smtp_server import ContentChunk, ServerOptions, SmtpServer, TransactionDropped

_LINE = re.compile(rb"([2-5]\d\d)([- ])([ -~]{0,506})\Z")
_ENHANCED = re.compile(rb"([2-5])\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2}) ")


def check_replies(octets: bytes, hostname: str) -> None:
    """RFC 5321 §4.2, RFC 2034 §4: whole replies, one code in each, and the same enhanced code on all of its lines.

    Greetings, which begin with the host's name, and 3yz have none.
    """
    lines = octets.split(b"\r\n")
    assert lines.pop() == b"", f"not whole lines: {octets!r}"
    labels: set[tuple[bytes, bytes | None]] = set()
    for line in lines:
        match = _LINE.match(line)
        assert match is not None, f"no line of a reply: {line!r}"
        code, separator, text = match.groups()
        if not labels:
            greets = text.startswith(hostname.encode()) and code in (b"220", b"250")
        enhanced = _ENHANCED.match(text)
        if greets or code[:1] == b"3":
            assert enhanced is None, f"an enhanced code where none may be: {line!r}"
        else:
            assert enhanced is not None, f"no enhanced code: {line!r}"
            assert enhanced[1] == code[:1], f"an enhanced code of another class: {line!r}"
        labels.add((code, enhanced[0] if enhanced else None))
        assert len(labels) == 1, f"several codes in one reply: {octets!r}"
        if separator == b" ":
            labels.clear()
    assert not labels, f"a reply without end: {octets!r}"


OPTIONS = ServerOptions(hostname="mx.test", message_size_octets=10_000)


@dataclass
class Delivery:
    """One message that was answered with 250."""

    mail: Mail
    recipients: list[Recipient]
    content: bytes


@dataclass
class Reception:
    """Refuses local parts `nobody` (550) and `later` (451), reverse-paths of `bad.test`, and content with `REFUSE`."""

    options: ServerOptions = OPTIONS
    refusal: Reply | None = None
    events: list[Command | Notice] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    signal: Signal = NEED_DATA

    def __post_init__(self) -> None:
        self.server = SmtpServer(self.options)
        self.mail: Mail | None = None
        self.recipients: list[Recipient] = []
        self.draft = bytearray()
        if self.refusal is not None:
            self.server.refuse_service(self.refusal)
        else:
            self.server.greet("Posthouse")
        self.pump()

    def send(self, octets: bytes) -> None:
        self.server.receive(octets)
        self.pump()

    def received(self) -> bytes:
        octets = self.server.outgoing()
        check_replies(octets, self.options.hostname)
        return octets

    def ended(self) -> bool:
        return self.signal is CLOSED

    def say(self, octets: bytes) -> bytes:
        """Send and return the answer."""
        self.send(octets)
        return self.received()

    def pump(self) -> None:
        while True:
            event = self.server.next_event()
            if isinstance(event, Signal):
                self.signal = event
                return
            self.events.append(event)
            if isinstance(event, Command):
                self.server.reply(self.decide(event))
            elif isinstance(event, ContentChunk):
                self.draft += event.octets
            elif isinstance(event, TransactionDropped):
                assert self.mail is not None, "a transaction ended that never began"
                self.forget()

    def decide(self, command: Command) -> Reply:
        match command:
            case Hello(name=name):
                return reply(550, "5.7.1", "Go away") if name == "refused.test" else reply(250, None, "at your service")
            case Authenticate(password=password):
                return reply(235, "2.7.0", "Welcome") if password == "right" else reply(535, "5.7.8", "No")
            case Mail():
                return self.decide_mail(command)
            case Recipient(forward_path=path):
                if path.local_part in ("nobody", "later"):
                    return (
                        reply(550, "5.1.1", "Unknown") if path.local_part == "nobody" else reply(451, "4.3.0", "Later")
                    )
                self.recipients.append(command)
                return reply(250, "2.1.5", "Recipient OK")
            case BeginContent():
                return reply(354, None, "Go ahead")
            case EndOfContent(size_octets=size):
                assert size == len(self.draft)
                return self.decide_content()
            case Verify():
                return reply(252, "2.0.0", "Cannot verify")
            case StartTls():
                return reply(220, "2.0.0", "Go ahead")
            case _:
                raise AssertionError(command)

    def decide_mail(self, mail: Mail) -> Reply:
        if mail.reverse_path is not None and mail.reverse_path.domain == "bad.test":
            return reply(550, "5.1.8", "Not from there")
        assert self.mail is None, "a transaction inside a transaction"
        self.mail = mail
        return reply(250, "2.1.0", "Sender OK")

    def decide_content(self) -> Reply:
        assert self.mail is not None
        content = bytes(self.draft)
        if b"REFUSE" in content:
            self.forget()
            return reply(451, "4.3.0", "Not now")
        self.deliveries.append(Delivery(self.mail, self.recipients, content))
        self.forget()
        return reply(250, "2.6.0", "Accepted")

    def forget(self) -> None:
        self.mail, self.recipients, self.draft = None, [], bytearray()
