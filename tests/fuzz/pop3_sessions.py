"""Targets: whole dialogues with either half of POP3."""

from __future__ import annotations

from dataclasses import replace

from tests.fuzz.draw import Draw, assert_whole_lines, cut, error_of, same_however_cut
from tests.protocol.pop3_house import CLEAR_OPTIONS, CONTENTS, OPTIONS, House

from posthouse.protocol.errors import RemoteProtocolError
from posthouse.protocol.events import CLOSED, Signal
from posthouse.protocol.pop3 import COMMAND_LIMIT_OCTETS, LENIENT_RESPONSE_LIMIT_OCTETS
from posthouse.protocol.pop3_client import Answered, Capabilities, Event, MessageChunk, Pop3Client
from posthouse.protocol.pop3_events import Login, OutgoingFull, QuitReceived, Rejected, StartTls, Update
from posthouse.protocol.pop3_server import State
from posthouse.protocol.sasl import MAX_LINE_OCTETS

DOORS = (
    OPTIONS,
    replace(OPTIONS, mechanisms=()),
    replace(OPTIONS, offer_login=False, mechanisms=("PLAIN",), login_delay_s=5),
)
ANSWERS = (b"+OK", b"-ERR ", b"+ ")
OPENINGS = (b"", b"USER alice\r\nPASS secret\r\n")
MAX_ANSWER_OCTETS = 600
"""Of one answer here: the maildrop is small, and CAPA's list has some 200 octets."""


def pop3_server(octets: bytes) -> None:
    """Any octets from a client: an answer for each line, the same however cut, and deletions only by QUIT."""
    draw = Draw(octets)
    options, opening, seed = draw.choice(DOORS), draw.choice(OPENINGS), draw.number()
    wire = opening + draw.rest()

    def run(pieces: list[bytes]) -> tuple[object, ...]:
        house, said = House(options=options), b""
        for piece in pieces:
            house.send(piece)
            said += house.received()
            assert len(house.server._lines) <= MAX_LINE_OCTETS, "more than a line is held"
        return _said(house), said, house.ended(), house.updates

    events, said, _ended, updates = same_however_cut(wire, seed, run)
    assert len(updates) == sum(isinstance(event, Update) for event in events) <= 1
    for event in events:
        if isinstance(event, Rejected):
            assert event.verb.isascii()
            assert event.text.isprintable()
        if isinstance(event, Login):
            assert event.name
            assert "\0" not in event.name + event.password + event.authorization_id
    assert_whole_lines(said)
    house = House(options=options)
    if wire:
        house.send(wire)
    # The greeting is one answer more.
    assert len(said) <= MAX_ANSWER_OCTETS * (house.server.lines_taken + 2)
    house.send(b"")
    assert house.ended()
    assert house.updates == updates, "the end of input deleted something"


def _said(house: House) -> list[object]:
    """What came from the peer; how much waits to be written depends on how often it is."""
    return [event for event in house.events if not isinstance(event, OutgoingFull)]


def pop3_answers(octets: bytes) -> None:
    """Line by line: each gets exactly one answer, which can be read; those after QUIT get none."""
    draw = Draw(octets)
    options, opening = draw.choice(DOORS), draw.choice(OPENINGS)
    house = House(options=options)
    house.received()
    for line in (opening + draw.rest()).split(b"\r\n"):
        if house.ended():
            assert house.say(line) == b""
            return
        said = house.say(line)
        status, _, rest = said.partition(b"\r\n")
        assert status.startswith(ANSWERS), said
        assert len(status) + 2 <= 512 or status.startswith(b"+ ")
        assert not rest or (rest.endswith(b".\r\n") and b"\r\n.\r\n" not in (b"\r\n" + rest)[:-3]), said


class _Handshakes(House):
    """`secured`: what is said inside TLS, told to a new house."""

    secured: House | None = None

    def send(self, octets: bytes) -> None:
        before = len(self.events)
        super().send(octets)
        if any(isinstance(event, StartTls) for event in self.events[before:]):
            assert self.server.state is State.AUTHORIZATION
            self.events.clear()
            self.secured = House()


def pop3_server_tls(octets: bytes) -> None:
    """What follows STLS in clear is never taken; what is said inside TLS is taken as in a new session."""
    draw = Draw(octets)
    seed, wire = draw.number(), draw.rest()
    outside = _Handshakes(options=CLEAR_OPTIONS)
    for piece in cut(wire, seed):
        inside = outside.secured
        outside.send(piece)
        if inside is not None:
            inside.send(piece)
    if (inside := outside.secured) is not None:
        assert _said(outside) == _said(inside)
        assert outside.ended() == inside.ended()
    outside.send(b"")
    assert outside.ended()


def _asked() -> Pop3Client:
    """A client that has asked for everything at once, and got its greeting."""
    client = Pop3Client()
    client.pipelining = True
    client.receive(b"+OK\r\n")
    client.next_event()
    client.capa()
    client.login("alice", "secret")
    for ask in (client.stat, client.list, client.uidl):
        ask()
    client.retrieve(1)
    client.top(2, 1)
    client.delete(1)
    client.reset()
    client.noop()
    client.quit()
    return client


def pop3_client(octets: bytes) -> None:
    """Any answers: only RemoteProtocolError, which is final; the same events however cut."""
    draw = Draw(octets)
    seed, wire = draw.number(), draw.rest()

    def run(pieces: list[bytes]) -> tuple[object, ...]:
        client, events = _asked(), list[Event]()
        sent = client.outgoing()
        problem = None
        try:
            for piece in [*pieces, b""]:
                client.receive(piece)
                while not isinstance(event := client.next_event(), Signal):
                    _append(events, event)
                assert event is CLOSED or len(client._lines) <= LENIENT_RESPONSE_LIMIT_OCTETS
        except RemoteProtocolError as error:
            problem = str(error)
            _check_final(client, problem)
        return events, problem, sent + client.outgoing()

    events, _problem, sent = same_however_cut(wire, seed, run)
    assert_whole_lines(sent, COMMAND_LIMIT_OCTETS)
    for event in events:
        match event:
            case Answered(text=text):
                assert text.isprintable()
            case Capabilities(lines=lines):
                assert all(line.isprintable() for line in lines)


def _append(events: list[Event], event: Event) -> None:
    """Neighbouring chunks count as one, and no other."""
    if isinstance(event, MessageChunk) and events and isinstance(last := events[-1], MessageChunk):
        events[-1] = MessageChunk(last.octets + event.octets)
    else:
        events.append(event)


def _check_final(client: Pop3Client, problem: str) -> None:
    assert error_of(RemoteProtocolError, client.next_event) == problem, "an error is final"


def pop3_pair(octets: bytes) -> None:
    """Any stored octets are fetched as they are, if their lines end in CRLF; a last line that lacks it gets one."""
    draw = Draw(octets)
    chunk, piece = 1 + draw.number(40), 1 + draw.number(60)
    content = draw.rest()
    house, client = House((content, *CONTENTS[1:]), chunk_octets=chunk), Pop3Client()
    client.login("alice", "secret")
    client.retrieve(1)
    fetched = b""
    while (said := house.received()) or (sent := client.outgoing()):
        for at in range(0, len(said), piece):
            client.receive(said[at : at + piece])
            while not isinstance(event := client.next_event(), Signal):
                if isinstance(event, MessageChunk):
                    fetched += event.octets
        if not said:
            house.send(sent)
    assert fetched == (content if not content or content.endswith(b"\r\n") else content + b"\r\n")
    assert not any(isinstance(event, QuitReceived) for event in house.events)
