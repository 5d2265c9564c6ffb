"""BDAT: counted octets, without dot logic, whatever is in them and however they are cut (RFC 3030)."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.reply import Reply, reply
from posthouse.protocol.events import CLOSED
from posthouse.protocol.smtp import BeginContent
from posthouse.protocol.smtp_notices import ContentChunk, ContentRefused, Rejected, TransactionDropped
from posthouse.protocol.smtp_options import ServerOptions
from posthouse.protocol.smtp_server import SmtpServer
from tests.protocol.smtp_reception import OPTIONS, Reception
from tests.transcripts.player import pieces

ENVELOPE = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
SMUGGLED = b"MAIL FROM:<evil@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nevil\r\n.\r\n"
BREAKS = {
    "LF.LF": b"\n.\n",
    "LF.CRLF": b"\n.\r\n",
    "CRLF.LF": b"\r\n.\n",
    "CR.CR": b"\r.\r",
    "CR.CRLF": b"\r.\r\n",
    "CRLF.CR": b"\r\n.\r",
    "CR.LF": b"\r.\n",
    "LF.CR": b"\n.\r",
    "CRLF.CRCRLF": b"\r\n.\r\r\n",
    "CRCRLF.CRLF": b"\r\r\n.\r\n",
    "CRLFCR.CRLF": b"\r\n\r.\r\n",
    "CRLF.CRLF": b"\r\n.\r\n",
    "CRLF NUL.CRLF": b"\r\n\0.\r\n",
    "CRLF.NUL CRLF": b"\r\n.\0\r\n",
    "VT": b"\v.\v",
    "FF": b"\f.\f",
    "NEL": b"\x85.\x85",
    "NEL in UTF-8": b"\xc2\x85.\xc2\x85",
    "LS": b"\xe2\x80\xa8.\xe2\x80\xa8",
}
"""What some program somewhere takes for the end of content. In DATA one of them is it, in a chunk none."""


def reception(options: ServerOptions = OPTIONS) -> Reception:
    begun = Reception(options)
    begun.say(b"EHLO c.test\r\n")
    begun.events.clear()
    return begun


def codes(octets: bytes) -> list[int]:
    return [int(line[:3]) for line in octets.split(b"\r\n")[:-1] if line[3:4] == b" "]


def chunk(octets: bytes, *, last: bool = False) -> bytes:
    return b"BDAT %d%b\r\n" % (len(octets), b" LAST" if last else b"") + octets


def has_bare_line_end(octets: bytes) -> bool:
    return b"\r" in (rest := octets.replace(b"\r\n", b"")) or b"\n" in rest


@pytest.mark.conformance("C168", "C277", "S1", "S34")
@pytest.mark.parametrize("name", BREAKS)
def test_nothing_in_a_chunk_ends_it(name: str) -> None:
    """A break and a smuggled letter behind it are content, in one chunk, in two cut at each octet, octet by octet."""
    content = b"x" + BREAKS[name] + SMUGGLED
    dialogues = [chunk(content, last=True), chunk(content) + chunk(b"", last=True)]
    dialogues += [chunk(content[:at]) + chunk(content[at:], last=True) for at in range(len(content))]
    for dialogue in dialogues:
        for piece in (0, 1, 5):
            session = reception()
            for part in pieces(ENVELOPE + dialogue + b"NOOP\r\n", piece):
                session.send(part)
            answers = codes(session.received())
            assert answers[:2] == [250, 250]
            assert answers[-1] == 250, "NOOP is answered last: nothing of the content was taken for a command"
            if has_bare_line_end(content):
                assert 550 in answers
                assert set(answers[2:-1]) <= {250, 550, 503}
                assert session.deliveries == []
            else:
                assert answers == [250] * (3 + dialogue.count(b"BDAT "))
                assert [delivery.content for delivery in session.deliveries] == [content]
            assert session.mail is None


@pytest.mark.conformance("C277", "C46", "S1")
@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.parametrize("first", ["DATA", "BDAT"])
def test_a_switch_between_data_and_bdat_smuggles_nothing(name: str, first: str) -> None:
    """One letter by DATA and one by BDAT in one session, each with a break inside: two replies, two letters at most."""
    inside = BREAKS[name] if name != "CRLF.CRLF" else b"\r\n..\r\n"
    by_data = ENVELOPE + b"DATA\r\nx" + inside + b"BDAT 4 LAST\r\nevil\r\n.\r\n"
    by_bdat = ENVELOPE + chunk(b"x" + BREAKS[name] + b"DATA\r\nevil\r\n", last=True)
    ends_early = inside.endswith(b"\r\n.\r\n")
    dialogue = by_data + by_bdat if first == "DATA" else by_bdat + by_data
    for piece in (0, 1):
        session = reception()
        for part in pieces(dialogue, piece):
            session.send(part)
        answers = codes(session.received())
        bad_data, bad_bdat = has_bare_line_end(inside), has_bare_line_end(BREAKS[name])
        wanted = {"DATA": [250, 250, 354, 550 if bad_data else 250], "BDAT": [250, 250, 550 if bad_bdat else 250]}
        if ends_early:
            # Its true end: what follows in the group are commands, and none of them has a transaction.
            wanted["DATA"] += [503, 500, 500]
        assert answers == wanted[first] + wanted["BDAT" if first == "DATA" else "DATA"]
        assert len(session.deliveries) == (not bad_data) + (not bad_bdat)


@pytest.mark.conformance("C163", "C168")
@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6), st.integers(0, 3))
def test_content_arrives_as_it_was_sent(octets: bytes, cuts: list[int], empty: int) -> None:
    content = octets.replace(b"\r", b"").replace(b"\n", b"\r\n")
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    parts = [content[begin:end] for begin, end in pairwise(edges)] + [b""] * empty
    session = reception()
    dialogue = b"".join(chunk(part) for part in parts[:-1]) + chunk(parts[-1], last=True)
    assert codes(session.say(ENVELOPE + dialogue)) == [250] * (2 + len(parts))
    complete = not content or content.endswith(b"\r\n")
    assert session.deliveries[0].content == (content if complete else content + b"\r\n")


@pytest.mark.conformance("C166", "C306", "S33")
@pytest.mark.parametrize(
    "argument",
    [
        *(b"", b"-1", b"+5", b" 5", b"5_0", b"0x5", b"5.0", b"1e3", b"LAST", b"LAST 5", b"x", b"5LAST", b"\xd9\xa5"),
        *("５".encode(), "²".encode(), b"1" * 21, b"9" * 400, b"99999999999999999999", b"\t5", b"5\0"),
    ],
)
def test_a_chunk_of_unknown_length_ends_the_session(argument: bytes) -> None:
    session = reception()
    answers = session.say(ENVELOPE + b"BDAT " + argument + b"\r\nNOOP\r\n")
    assert codes(answers) == [250, 250, 552 if argument == b"99999999999999999999" else 501]
    assert session.ended()
    assert session.mail is None
    assert session.deliveries == []


@pytest.mark.conformance("C165", "C166")
@pytest.mark.parametrize("markers", [b" FOO", b" LAST FOO", b"  LAST", b" LAST LAST", b" 5"])
def test_a_line_that_says_how_many_octets_follow_is_answered_after_them(markers: bytes) -> None:
    session = reception()
    answers = session.say(ENVELOPE + b"BDAT 6" + markers + b"\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
    assert codes(answers) == [250, 250, 501, 503, 250]
    assert session.deliveries == []
    assert codes(reception().say(ENVELOPE + b"BDAT 6 last \t\r\na: b\r\n")) == [250] * 3


@pytest.mark.conformance("C164", "C170", "S7")
def test_after_a_chunk_only_chunks_and_rset() -> None:
    session = reception(replace(OPTIONS, auth_mechanisms=("PLAIN",)))
    wrong = b"DATA\r\nRCPT TO:<c@d.test>\r\nMAIL FROM:<>\r\nAUTH PLAIN\r\n"
    assert codes(session.say(ENVELOPE + chunk(b"hello") + wrong)) == [250, 250, 250, 503, 503, 503, 503]
    assert codes(session.say(b"NOOP\r\nVRFY x\r\nHELP\r\n" + chunk(b"\r\n", last=True))) == [250, 252, 214, 250]
    assert session.deliveries[0].content == b"hello\r\n"
    assert codes(session.say(ENVELOPE + chunk(b"hello") + b"RSET\r\n" + chunk(b"x", last=True))) == [250] * 4 + [503]
    assert codes(session.say(ENVELOPE + b"DATA\r\nx\r\n.\r\n" + chunk(b"x", last=True))) == [250, 250, 354, 250, 503]
    assert codes(session.say(ENVELOPE + chunk(b"x") + b"EHLO again.test\r\nRCPT TO:<c@d.test>\r\n"))[-1] == 503
    assert len(session.deliveries) == 2


@pytest.mark.conformance("C165", "C148", "S33")
@pytest.mark.parametrize("sizes", [(10_001,), (10_000, 1), (1, 10_000), (5_000, 5_000, 5_000), (60_000,)])
def test_too_large(sizes: tuple[int, ...]) -> None:
    """Refused by what is announced, and read to its end; what follows in the group is refused, and parsed rightly."""
    session = reception()
    dialogue = b"".join(chunk(b"QUIT\r\n" * (size // 6) + b"x" * (size % 6)) for size in sizes)
    answers = codes(session.say(ENVELOPE + dialogue + b"BDAT 0 LAST\r\nNOOP\r\n"))
    assert answers.count(552) == 1
    assert answers[-2:] == [503, 250]
    assert session.deliveries == []


@pytest.mark.conformance("C150")
def test_the_largest_content() -> None:
    for content in (b"y" * 9_998 + b"\r\n", b".\r\n" * 3_333, b"y" * 10_000):
        session = reception()
        answers = session.say(ENVELOPE + chunk(content[:7_000]) + chunk(content[7_000:], last=True))
        assert codes(answers) == [250] * 4, "a CRLF that we add is not counted against the peer"
        assert session.deliveries[0].content.startswith(content)


def test_a_missing_last_line_end_is_added_and_counted() -> None:
    session = reception()
    session.say(ENVELOPE + chunk(b"a: b") + chunk(b"", last=True))
    assert session.deliveries[0].content == b"a: b\r\n"
    session.say(ENVELOPE + chunk(b"a: b\r") + chunk(b"\n") + chunk(b"", last=True))
    assert session.deliveries[1].content == b"a: b\r\n"
    session.say(ENVELOPE + chunk(b"", last=True))
    assert session.deliveries[2].content == b""


@pytest.mark.conformance("C169", "S26")
def test_tiny_chunks_need_no_memory() -> None:
    session = reception(replace(OPTIONS, message_size_octets=200_000))
    session.say(ENVELOPE)
    tracemalloc.start()
    for _ in range(100):
        assert session.say(b"BDAT 1\r\nx" * 100).count(b"250 2.0.0 1 octets received\r\n") == 100
        session.events.clear()
        assert len(session.server._input) == 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000
    assert codes(session.say(chunk(b"\r\n", last=True))) == [250]
    assert session.deliveries[0].content == b"x" * 10_000 + b"\r\n"


@pytest.mark.conformance("C169", "C170", "S34")
@pytest.mark.parametrize("ending", [b"QUIT\r\n", b"RSET\r\n", b"EHLO c.test\r\n", b"STARTTLS\r\n", b""])
@pytest.mark.parametrize("at", ["between", "inside"])
def test_what_ends_a_session_in_the_middle_drops_the_message(ending: bytes, at: str) -> None:
    session = reception(replace(OPTIONS, starttls=True))
    session.say(ENVELOPE + chunk(b"half"))
    if at == "inside":
        session.say(b"BDAT 100 LAST\r\nhalf of ")
        assert session.say(ending) == b"" if ending else True, "inside a chunk there are no commands"
        session.send(b"")
        assert session.ended()
    else:
        session.send(ending)
    assert session.events[-2:].count(TransactionDropped()) == 1
    assert session.deliveries == []
    if ending == b"STARTTLS\r\n" and at == "between":
        session.received()
        session.server.tls_started(OPTIONS)
        assert codes(session.say(chunk(b"x", last=True) + b"DATA\r\n")) == [503, 503]


@pytest.mark.conformance("C165", "C290")
@pytest.mark.parametrize("piece", [0, 1])
def test_a_driver_that_refuses_is_heard_after_the_octets(piece: int) -> None:
    class Full(Reception):
        def decide(self, command: object) -> Reply:
            return reply(452, "4.3.1", "No room") if command == BeginContent(chunked=True) else super().decide(command)  # type: ignore[arg-type]

    session = Full()
    session.say(b"EHLO c.test\r\n" + ENVELOPE)
    session.events.clear()
    for part in pieces(chunk(b"QUIT\r\n") + chunk(b"QUIT\r\n", last=True) + b"NOOP\r\n", piece):
        session.send(part)
    assert session.received().split(b"\r\n")[:-1] == [
        b"452 4.3.1 No room",
        b"503 5.5.1 Bad sequence of commands",
        b"250 2.0.0 OK",
    ]
    assert session.events[:2] == [BeginContent(chunked=True), TransactionDropped()]
    assert [type(event) for event in session.events[2:]] == [Rejected], "the driver is not told what it said itself"


def test_a_farewell_to_the_first_chunk_ends_the_session() -> None:
    server = SmtpServer(OPTIONS)
    server.greet()
    server.receive(b"EHLO c.test\r\n" + ENVELOPE + chunk(b"hello"))
    for answer in (reply(250, None, "hi"), reply(250, None, ""), reply(250, None, "")):
        server.next_event()
        server.reply(answer)
    assert server.next_event() == BeginContent(chunked=True)
    server.reply(reply(421, "4.3.2", "Closing"))
    assert codes(server.outgoing())[-1] == 421
    assert server.next_event() == TransactionDropped()
    assert server.next_event() is CLOSED


@pytest.mark.conformance("C170", "S7")
def test_content_with_a_hole_is_never_accepted() -> None:
    """Whatever chunk of a group fails, no later LAST makes a message of the rest."""
    random = Random(3030)
    good, bad = chunk(b"a line\r\n"), [b"BDAT 3 X\r\nabc", chunk(b"a\nb"), chunk(b"y" * 10_001), b"DATA\r\n"]
    for _ in range(300):
        group = [good] * random.randrange(4)
        fault = random.choice(bad)
        group.insert(random.randrange(len(group) + 1), fault)
        if group[0] == b"DATA\r\n":
            continue
        session = reception()
        answers = codes(session.say(ENVELOPE + b"".join(group) + chunk(b"end\r\n", last=True) + b"NOOP\r\n"))
        assert answers[-1] == 250
        if fault == b"DATA\r\n":
            # DATA between chunks is refused, and changes nothing.
            assert session.deliveries[0].content == b"a line\r\n" * (len(group) - 1) + b"end\r\n"
        else:
            assert session.deliveries == []


def test_events_are_those_of_data() -> None:
    session = reception()
    session.say(ENVELOPE + chunk(b"a: b\r\n") + chunk(b"\nx"))
    assert session.events[2:] == [
        BeginContent(chunked=True),
        ContentChunk(b"a: b\r\n"),
        ContentRefused(reply(550, "5.6.11", "The message holds CR or LF outside CRLF")),
        TransactionDropped(),
    ]
