"""What holds for any input: cutting changes nothing, octets break nothing, content arrives as it left."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.address import parse_address
from posthouse.protocol.errors import RemoteProtocolError
from posthouse.protocol.events import Signal
from posthouse.protocol.smtp_client import (
    ClientEvent,
    ClientRecipient,
    ClientTransaction,
    ContentWanted,
    Greeting,
    Ready,
    SmtpClient,
    TransactionEnded,
)
from posthouse.protocol.smtp_server import ContentChunk
from tests.protocol.smtp_reception import OPTIONS, Reception

SMALL = replace(OPTIONS, message_size_octets=60, max_recipients=2, auth_mechanisms=("PLAIN", "LOGIN"))
LINES = [
    b"EHLO c.test",
    b"HELO c.test",
    b"MAIL FROM:<a@b.test>",
    b"MAIL FROM:<a@b.test> SIZE=99",
    b"MAIL FROM:<x@bad.test>",
    b"RCPT TO:<c@d.test>",
    b"RCPT TO:<nobody@d.test>",
    b"RCPT TO:<postmaster>",
    b"DATA",
    b"BDAT 6",
    b"BDAT 9 LAST",
    b"BDAT 2 X",
    b"RSET",
    b"NOOP",
    b"VRFY x",
    b"AUTH PLAIN AGFsaWNlAHJpZ2h0",
    b"AUTH LOGIN",
    b"*",
    b"YQ==",
    b".",
    b"..",
    b"text",
    b"x" * 40,
    b"REFUSE",
    b"a\nb",
    b"\r",
    b"\xff\0",
    b"",
    b"QUIT",
]
DIALOGUE = st.lists(st.sampled_from(LINES).map(lambda line: line + b"\r\n") | st.binary(max_size=8), max_size=25)
OPENING = b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
CUTS = st.lists(st.integers(0, 400), max_size=12)
REPLY_LINES = [b"220 mx", b"250-mx", b"250 PIPELINING", b"250", b"354 go", b"550 5.1.1 no", b"421 bye", b"334 ", b"x"]
CONTENT = st.lists(st.sampled_from([b".", b"..", b"a", b"", b"\r\n", b"\xff\0", b"." * 9]), max_size=30).map(
    lambda parts: b"\r\n".join(parts)
)


def cut(octets: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({at for at in cuts if 0 < at < len(octets)}), len(octets)]
    return [octets[begin:end] for begin, end in pairwise(edges) if begin < end]


def served(parts: list[bytes]) -> tuple[object, ...]:
    reception = Reception(SMALL)
    for part in parts:
        reception.send(part)
    events = [event for event in reception.events if not isinstance(event, ContentChunk)]
    return events, reception.deliveries, reception.received(), reception.signal


@pytest.mark.conformance("C157")
@given(DIALOGUE, CUTS, st.sampled_from([b"", OPENING]))
def test_cutting_changes_nothing_for_the_server_half(dialogue: list[bytes], cuts: list[int], opening: bytes) -> None:
    octets = opening + b"".join(dialogue)
    whole = served([octets] if octets else [])
    assert served(cut(octets, cuts)) == whole
    assert served([bytes([octet]) for octet in octets]) == whole


@given(
    st.lists(st.binary(min_size=1, max_size=200), max_size=5), st.sampled_from([b"", OPENING, OPENING + b"DATA\r\n"])
)
def test_octets_break_nothing_in_the_server_half(parts: list[bytes], opening: bytes) -> None:
    reception = Reception(SMALL)
    for part in [opening, *parts]:
        if part:
            reception.send(part)
    reception.send(b"")
    assert reception.ended()
    assert reception.mail is None


def asked(parts: list[bytes]) -> tuple[list[ClientEvent | str], bytes]:
    """A driver that sends one message as soon as it may."""
    client = SmtpClient("c.test")
    events: list[ClientEvent | str] = []
    for part in [*parts, b""]:
        client.receive(part)
        try:
            while not isinstance(event := client.next_event(), Signal):
                events.append(event)
                if client.is_closed:
                    continue
                if isinstance(event, Ready):
                    client.begin(TRANSACTION)
                elif isinstance(event, ContentWanted):
                    client.content(b"hi")
                    client.end_content()
                elif not isinstance(event, Greeting):
                    client.quit()
        except RemoteProtocolError as exc:
            events.append(str(exc))
    return events, client.outgoing()


TRANSACTION = ClientTransaction(
    reverse_path=None, recipients=(ClientRecipient(parse_address("c@d.test")),) * 2, size_octets=4
)


@given(
    st.lists(st.sampled_from(REPLY_LINES).map(lambda line: line + b"\r\n") | st.binary(max_size=4), max_size=14), CUTS
)
def test_cutting_changes_nothing_for_the_client_half(replies: list[bytes], cuts: list[int]) -> None:
    octets = b"220 mx\r\n" + b"".join(replies)
    whole = asked([octets])
    assert asked(cut(octets, cuts)) == whole
    assert asked([bytes([octet]) for octet in octets]) == whole


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=5))
def test_octets_raise_nothing_else_in_the_client_half(parts: list[bytes]) -> None:
    asked(parts)


@pytest.mark.conformance("C49", "C50", "C51", "C54")
@given(CONTENT, CUTS, CUTS)
def test_content_arrives_as_it_left(content: bytes, content_cuts: list[int], wire_cuts: list[int]) -> None:
    reception, client = Reception(), SmtpClient("c.test")
    ended = None
    while ended is None:
        client.receive(reception.received())
        while not isinstance(event := client.next_event(), Signal):
            if isinstance(event, Ready):
                client.begin(TRANSACTION)
            elif isinstance(event, ContentWanted):
                for part in cut(content, content_cuts):
                    client.content(part)
                client.end_content()
            elif isinstance(event, TransactionEnded):
                ended = event
        for part in cut(client.outgoing(), wire_cuts):
            reception.send(part)
    assert ended.final is not None
    assert ended.final.code == 250
    complete = not content or content.endswith(b"\r\n")
    assert reception.deliveries[0].content == (content if complete else content + b"\r\n")
