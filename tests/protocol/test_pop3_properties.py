"""What holds for any input: chunking, random octets, deletion marks, and both halves against each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from posthouse.protocol.errors import RemoteProtocolError
from posthouse.protocol.events import Signal
from posthouse.protocol.pop3 import Response, encode_response, parse_response
from posthouse.protocol.pop3_client import (
    Answered,
    Event,
    MessageBegin,
    MessageChunk,
    MessageEnd,
    Pop3Client,
    Sizes,
    Totals,
    Uidls,
)
from tests.protocol.pop3_house import CONTENTS, House, data, logged_in

WORDS = st.sampled_from(
    [
        *(
            b"USER alice",
            b"PASS secret",
            b"PASS x",
            b"STAT",
            b"LIST",
            b"LIST 1",
            b"UIDL",
            b"UIDL 9",
            b"RETR 1",
            b"RETR 0",
        ),
        *(
            b"TOP 1 0",
            b"TOP 1 9",
            b"DELE 1",
            b"DELE 2",
            b"RSET",
            b"NOOP",
            b"CAPA",
            b"QUIT",
            b"",
            b"\r",
            b"\n",
            b"A" * 600,
        ),
    ]
)
SESSIONS = st.lists(WORDS | st.binary(max_size=20), max_size=20).map(b"\r\n".join)
LINE_ENDS = st.lists(
    st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"a", b"..", b"\r\n.\r\n", b"\xff\x00"]), max_size=30
)
CONTENT = LINE_ENDS.map(b"".join) | st.binary(max_size=200)
CHUNKED_ANSWERS = st.lists(
    st.sampled_from(
        [
            *(b"+OK\r\n", b"+OK 3 72\r\n", b"-ERR [AUTH] no\r\n", b"1 34\r\n", b"2 uidl\r\n", b".\r\n", b"..\r\n"),
            *(b"PIPELINING\r\n", b"\r\n", b"\n", b"+OK", b"A" * 5000),
        ]
    )
    | st.binary(max_size=20),
    max_size=30,
).map(b"".join)


def cut(octets: bytes, sizes: list[int]) -> list[bytes]:
    """The octets in pieces of these sizes, and the rest."""
    pieces = []
    for size in sizes:
        pieces.append(octets[:size])
        octets = octets[size:]
    return [piece for piece in (*pieces, octets) if piece]


@given(SESSIONS, st.lists(st.integers(1, 30), max_size=30))
def test_chunking_changes_nothing_for_the_server(octets: bytes, sizes: list[int]) -> None:
    whole, pieces = House(), House()
    for piece in cut(octets, []):
        whole.send(piece)
    for piece in cut(octets, sizes):
        pieces.send(piece)
    assert pieces.events == whole.events
    assert pieces.received() == whole.received()
    assert pieces.ended() == whole.ended()


@given(st.lists(WORDS | st.binary(max_size=20), max_size=20))
def test_every_line_gets_exactly_one_answer(lines: list[bytes]) -> None:
    house = House()
    house.received()
    for line in lines:
        for part in line.replace(b"\r\n", b"").split(b"\r\n"):
            if house.ended():
                return
            answer = house.say(part)
            status, _, rest = answer.partition(b"\r\n")
            # AUTH may be answered by a challenge, which the next line answers.
            challenged = part[:4].upper() == b"AUTH" and status.startswith(b"+ ")
            assert challenged or status.startswith((b"+OK", b"-ERR ")), answer
            assert len(status) <= 510
            assert not rest or rest.endswith(b".\r\n")


class Fetcher:
    """A client half joined to a house, or to any octets."""

    def __init__(self) -> None:
        self.client = Pop3Client()
        self.events: list[Event] = []

    def take(self, octets: bytes) -> Signal:
        self.client.receive(octets)
        while not isinstance(event := self.client.next_event(), Signal):
            self.events.append(event)
        return event

    def talk(self, house: House, size: int) -> None:
        """Carry octets both ways, in pieces, until both are silent."""
        while True:
            said = house.received()
            for at in range(0, len(said), size):
                self.take(said[at : at + size])
            asked = self.client.outgoing()
            if not said and not asked:
                return
            if asked:
                house.send(asked)

    def messages(self) -> dict[int, bytes]:
        """The messages that came whole."""
        found: dict[int, bytes] = {}
        chunks: list[bytes] = []
        for event in self.events:
            match event:
                case MessageBegin():
                    chunks = []
                case MessageChunk(octets=octets):
                    chunks.append(octets)
                case MessageEnd(number=number):
                    found[number] = b"".join(chunks)
        return found


def everything_asked() -> Fetcher:
    fetcher = Fetcher()
    client = fetcher.client
    client.capa()
    client.login("alice", "secret")
    for ask in (client.stat, client.list, client.uidl, client.reset, client.noop):
        ask()
    client.retrieve(1)
    client.top(2, 1)
    client.delete(1)
    client.quit()
    return fetcher


def merged(events: list[Event]) -> list[Event]:
    """Neighbouring chunks as one."""
    result: list[Event] = []
    for event in events:
        if isinstance(event, MessageChunk) and result and isinstance(last := result[-1], MessageChunk):
            result[-1] = MessageChunk(last.octets + event.octets)
        else:
            result.append(event)
    return result


def outcome(fetcher: Fetcher, pieces: list[bytes]) -> str | Signal | None:
    """The signal or the error after the pieces."""
    signal = None
    try:
        for piece in pieces:
            signal = fetcher.take(piece)
    except RemoteProtocolError as error:
        return str(error)
    return signal


@given(CHUNKED_ANSWERS)
def test_random_octets_raise_only_remote_protocol_errors_in_the_client(octets: bytes) -> None:
    fetcher = everything_asked()
    outcome(fetcher, [b"+OK\r\n", octets, b""])
    # An error is final.
    first, second = outcome(fetcher, [b"+OK\r\n"]), outcome(fetcher, [b"+OK\r\n"])
    assert first == second


@given(st.lists(CONTENT, max_size=4), st.lists(st.integers(1, 40), max_size=40))
def test_chunking_changes_nothing_for_the_client(contents: list[bytes], sizes: list[int]) -> None:
    house = House(contents)
    wire = house.received()
    for line in (b"CAPA", b"USER alice", b"PASS secret", b"STAT", b"LIST", b"UIDL", b"RSET", b"NOOP"):
        wire += house.say(line)
    for line in (b"RETR 1", b"TOP 2 1", b"DELE 1", b"QUIT"):
        wire += house.say(line)
    # A server that speaks before it is asked is refused at once, so everything must have been asked.
    whole, pieces = everything_asked(), everything_asked()
    for fetcher in (whole, pieces):
        fetcher.client.pipelining = True
        assert outcome(fetcher, [wire[: wire.index(b"\r\n") + 2]])
    rest = wire[wire.index(b"\r\n") + 2 :]
    assert outcome(whole, [rest]) == outcome(pieces, cut(rest, sizes))
    assert merged(whole.events) == merged(pieces.events)


@given(st.lists(CONTENT, min_size=1, max_size=5), st.integers(1, 50), st.integers(1, 50), st.booleans())
def test_any_content_is_fetched_octet_for_octet(
    contents: list[bytes], house_octets: int, wire_octets: int, pipelining: bool
) -> None:
    house, fetcher = House(contents, chunk_octets=house_octets), Fetcher()
    if pipelining:
        fetcher.client.capa()
    fetcher.client.login("alice", "secret")
    for number in range(1, len(contents) + 1):
        fetcher.client.retrieve(number)
    fetcher.client.quit()
    fetcher.talk(house, wire_octets)
    # What does not end in CRLF gets one: no other form exists on the wire (RFC 1939 §3).
    wanted = [c if not c or c.endswith(b"\r\n") else c + b"\r\n" for c in contents]
    assert fetcher.messages() == dict(enumerate(wanted, start=1))
    for event in fetcher.events:
        if isinstance(event, MessageEnd):
            content = wanted[event.number - 1].replace(b"\r\n", b"")
            assert event.intact == (b"\r" not in content and b"\n" not in content)
    assert house.updates == [()]


@given(CONTENT, st.integers(0, 5), st.integers(1, 50))
def test_top_is_what_a_plain_reading_of_the_rfc_says(content: bytes, lines: int, chunk_octets: int) -> None:
    house, fetcher = House((content,), chunk_octets=chunk_octets), Fetcher()
    fetcher.client.login("alice", "secret")
    fetcher.client.top(1, lines)
    fetcher.talk(house, 1000)
    wanted: list[bytes] = []
    left: int | None = None
    for line in content.split(b"\r\n"):
        if left == 0:
            # The rest is not wanted.
            break
        wanted.append(line)
        left = left - 1 if left is not None else (lines if line == b"" else None)
    else:
        if wanted[-1] == b"":
            wanted.pop()
    assert fetcher.messages() == {1: b"".join(line + b"\r\n" for line in wanted)}


@given(st.builds(Response, st.booleans(), st.text(max_size=600), st.sampled_from([None, "IN-USE", "SYS/TEMP"])))
def test_a_response_is_one_short_line_that_parses(response: Response) -> None:
    line = encode_response(response)
    assert line.endswith(b"\r\n")
    assert line.count(b"\r") == line.count(b"\n") == 1
    assert len(line) <= 512
    parsed = parse_response(line[:-2])
    assert parsed is not None
    assert (parsed.ok, parsed.code) == (response.ok, response.code)


class DeletionMarks(RuleBasedStateMachine):
    """DELE, RSET and QUIT against a set, with STAT, LIST and UIDL after each step."""

    @initialize(contents=st.lists(CONTENT, max_size=6))
    def log_in(self, contents: list[bytes]) -> None:
        self.contents = contents
        self.house = logged_in(contents)
        self.marked: set[int] = set()
        self.ended = False

    @rule(number=st.integers(0, 7))
    def dele(self, number: int) -> None:
        if self.ended:
            return
        there = 1 <= number <= len(self.contents) and number not in self.marked
        assert self.house.say(f"DELE {number}").startswith(b"+OK" if there else b"-ERR")
        if there:
            self.marked.add(number)

    @rule(number=st.integers(0, 7), verb=st.sampled_from(["RETR {}", "TOP {} 1", "LIST {}", "UIDL {}"]))
    def look(self, number: int, verb: str) -> None:
        if self.ended:
            return
        there = 1 <= number <= len(self.contents) and number not in self.marked
        assert self.house.say(verb.format(number)).startswith(b"+OK" if there else b"-ERR")

    @rule()
    def rset(self) -> None:
        if not self.ended:
            assert self.house.say("RSET").startswith(b"+OK")
            self.marked.clear()

    @rule()
    def quit(self) -> None:
        if not self.ended:
            self.house.say("QUIT")
            self.ended = True
        assert self.house.updates == [tuple(sorted(self.marked))]

    @invariant()
    def all_lists_agree(self) -> None:
        if getattr(self, "ended", True):
            return
        there = [n for n in range(1, len(self.contents) + 1) if n not in self.marked]
        sizes = {n: len(self.contents[n - 1]) for n in there}
        assert self.house.say("STAT") == b"+OK %d %d\r\n" % (len(there), sum(sizes.values()))
        assert data(self.house.say("LIST")) == [b"%d %d" % item for item in sizes.items()]
        assert data(self.house.say("UIDL")) == [b"%d uidl-%d" % (n, n) for n in there]


TestDeletionMarks = DeletionMarks.TestCase


def test_the_client_sees_what_the_server_lists() -> None:
    fetcher = everything_asked()
    house = House()
    fetcher.talk(house, 3)
    sizes = dict(enumerate(map(len, CONTENTS), start=1))
    assert Totals(3, 72) in fetcher.events
    assert Sizes(sizes) in fetcher.events
    assert Uidls({n: f"uidl-{n}" for n in sizes}) in fetcher.events
    assert [event.ok for event in fetcher.events if isinstance(event, Answered)] == [True] * 5
    assert house.updates == [(1,)]
