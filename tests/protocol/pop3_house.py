"""A driver of the server half without a network: one maildrop in memory, and its peer's end of the line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

from posthouse.mail.ids import Uid, Uidl
from posthouse.mail.maildrop import Listing
from posthouse.protocol.events import CLOSED, NEED_DATA
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
from posthouse.protocol.pop3_options import Pop3Options
from posthouse.protocol.pop3_server import Pop3Server
from posthouse.protocol.sasl import ScramVerifier
from posthouse.protocol.sasl_scram import derive_keys

OPTIONS = Pop3Options(hostname="mx.test", mechanisms=("SCRAM-SHA-256", "PLAIN"))
CLEAR_OPTIONS = Pop3Options(hostname="mx.test", offer_login=False, stls=True)
SCRAM = ScramVerifier(b"salt", 4096, *astuple(derive_keys("secret", b"salt", 4096)))
NONCE = "a-nonce-of-the-server"
CONTENTS = (
    b"Subject: one\r\n\r\nfirst\r\n.dots\r\n..\r\n",
    b"Subject: two\r\n\r\nno end",
    b"Subject: three\r\n",
)


def listing_of(contents: Sequence[bytes]) -> Listing:
    numbers = range(1, len(contents) + 1)
    return Listing(
        uids=tuple(Uid(n) for n in numbers),
        uidls=tuple(Uidl(f"uidl-{n}") for n in numbers),
        sizes_octets=tuple(len(content) for content in contents),
    )


class House:
    """Answers every command at once. The password of "alice" is "secret", the maildrop of "busy" is in use.

    A handshake is over at once: what follows counts as said inside TLS.
    """

    def __init__(
        self,
        contents: Sequence[bytes] = CONTENTS,
        options: Pop3Options = OPTIONS,
        *,
        chunk_octets: int = 5,
        update_fails: bool = False,
    ) -> None:
        self.contents = contents
        self.events: list[Event] = []
        self.updates: list[tuple[int, ...]] = []
        self._chunk_octets = chunk_octets
        self._update_fails = update_fails
        self._closed = False
        self._outgoing = b""
        self.server = Pop3Server(options)
        self.server.greet()

    def send(self, octets: bytes) -> None:
        self.server.receive(octets)
        while (event := self.server.next_event()) is not NEED_DATA:
            if event is CLOSED:
                self._closed = True
                return
            self.events.append(event)
            self._answer(event)

    def received(self) -> bytes:
        octets, self._outgoing = self._outgoing + self.server.outgoing(), b""
        return octets

    def ended(self) -> bool:
        return self._closed

    def say(self, line: str | bytes) -> bytes:
        """Send a line, return all that was answered."""
        self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return self.received()

    def _answer(self, event: Event) -> None:
        match event:
            case ScramVerifierWanted():
                self.server.provide_scram(SCRAM, NONCE)
            case StartTls():
                self.server.begin_tls()
                self._outgoing += self.server.outgoing()
                self.server.tls_started(OPTIONS)
            case Login(name=name, authorization_id=identity) if identity not in ("", name):
                self.server.refuse("AUTH", "The login or the password is wrong")
            case Login(name="busy"):
                self.server.refuse("IN-USE", "Another session has this maildrop open")
            case Login(name="alice", password="secret") | Login(name="alice", proven=True):
                self.server.open_maildrop(listing_of(self.contents))
            case Login():
                self.server.refuse("AUTH", "The login or the password is wrong")
            case Retrieve(number=number):
                self._send_message(self.contents[number - 1], len(self.contents[number - 1]))
            case Top(number=number):
                self._send_message(self.contents[number - 1], None)
            case Update() if self._update_fails:
                self.server.refuse("SYS/TEMP", "Nothing was deleted")
            case Update(numbers=numbers):
                self.updates.append(numbers)
                self.server.updated()
            case OutgoingFull():
                self._outgoing += self.server.outgoing()
            case Rejected() | QuitReceived():
                pass

    def _send_message(self, content: bytes, size_octets: int | None) -> None:
        self.server.begin_message(size_octets)
        for at in range(0, len(content), self._chunk_octets):
            if not self.server.content(content[at : at + self._chunk_octets]):
                break
        self.server.end_message()


def logged_in(contents: Sequence[bytes] = CONTENTS, **options: int | bool) -> House:
    """A house whose peer is in TRANSACTION and has read everything."""
    house = House(contents, **options)  # type: ignore[arg-type]
    house.send(b"USER alice\r\nPASS secret\r\n")
    house.received()
    return house


def data(response: bytes) -> list[bytes]:
    """The lines of a multi-line response, without status, dot-stuffing and end."""
    assert response.startswith(b"+OK"), response
    assert response.endswith(b"\r\n.\r\n"), response
    return [line.removeprefix(b".") for line in response.split(b"\r\n")[1:-2]]
