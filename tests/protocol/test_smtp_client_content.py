"""Content on its way out: whole, octet for octet, and nothing that could be taken for its end."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.protocol.errors import LocalProtocolError, RemoteProtocolError
from posthouse.protocol.events import CLOSED, NEED_DATA
from posthouse.protocol.smtp_client import ChunkTaken, ContentUnfit, ContentWanted, SmtpClient, TransactionEnded
from posthouse.protocol.smtp_client_content import CHUNK_OCTETS, ChunkedContent, DottedContent
from tests.protocol.test_smtp_client import ready, transaction

SMUGGLING = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\n\n.\r\n",
    b"\r\n\0.\n",
    b"\r\n.\r\r\n",
]
"""What some server takes for the end of content though it is none."""
SECOND = b"MAIL FROM:<evil@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"


def sent(content: DottedContent | ChunkedContent, parts: list[bytes]) -> bytes:
    """All that leaves."""
    encoded = [octets for part in parts for _command, octets in content.encode(part)]
    return b"".join(encoded) + content.finish()[1]


def feed(content: DottedContent | ChunkedContent, octets: bytes, size: int, left: bytearray) -> None:
    """In pieces of `size`; `left` is what leaves."""
    for at in range(0, len(octets), size):
        left += b"".join(part for _command, part in content.encode(octets[at : at + size]))


def unchunked(octets: bytes) -> list[bytes]:
    """The chunks that a server would read, each but the last of a size that is not tiny."""
    chunks: list[bytes] = []
    while octets:
        match = re.match(rb"BDAT (0|[1-9][0-9]*)( LAST)?\r\n", octets)
        assert match is not None, octets[:40]
        size = int(match[1])
        chunks.append(octets[match.end() : match.end() + size])
        octets = octets[match.end() + size :]
        assert (match[2] is not None) == (not octets)
    return chunks


@pytest.mark.conformance("C278", "S1")
@pytest.mark.parametrize("kind", [DottedContent, ChunkedContent])
@pytest.mark.parametrize("sequence", SMUGGLING)
def test_no_smuggling_sequence_leaves(kind: type[DottedContent | ChunkedContent], sequence: bytes) -> None:
    evil = b"Subject: x\r\n\r\nhello" + sequence + SECOND
    for size in (1, 2, 3, len(evil)):
        left = bytearray()
        with pytest.raises(ContentUnfit):
            feed(kind(), evil, size, left)
        # What left before it was seen says nothing that ends anything.
        assert left.count(b"\r") == left.count(b"\n") == left.count(b"\r\n")
        assert b"\r\n.\r\n" not in left
        assert b"MAIL" not in left


@pytest.mark.conformance("C278", "S2")
@given(st.lists(st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"a", b"\0", b"\r\n.", b"\r\n.\r\n"]), max_size=24))
def test_content_leaves_whole_or_not_at_all(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    fit = whole.count(b"\r") == whole.count(b"\n") == whole.count(b"\r\n")
    for kind in (DottedContent, ChunkedContent):
        try:
            octets = sent(kind(), parts)
        except ContentUnfit:
            assert not fit
            continue
        assert fit
        if kind is ChunkedContent:
            assert b"".join(unchunked(octets)) == whole
        else:
            ended = whole if whole.endswith(b"\r\n") or not whole else whole + b"\r\n"
            # The end stands once, at the end; taking it and the stuffing off gives back what went in.
            assert (b"\r\n" + octets).find(b"\r\n.\r\n") == len(octets) - 3
            assert (b"\r\n" + octets)[:-3].replace(b"\r\n.", b"\r\n")[2:] == ended


@pytest.mark.parametrize("piece", [CHUNK_OCTETS - 1, CHUNK_OCTETS, CHUNK_OCTETS + 1, 1 << 20])
def test_no_chunk_ends_between_cr_and_lf(piece: int) -> None:
    """Whoever looks at each chunk for itself would see a CR alone in one, and an LF alone in the next."""
    whole = (b"x" * (CHUNK_OCTETS - 1) + b"\r\n") + b"\r\n" * CHUNK_OCTETS
    chunks = unchunked(sent(ChunkedContent(), [whole[at : at + piece] for at in range(0, len(whole), piece)]))
    assert b"".join(chunks) == whole
    assert len(chunks) > 2
    assert not any(chunk.endswith(b"\r") or chunk.startswith(b"\n") for chunk in chunks)


@given(st.integers(-2, 3), st.integers(1, 3), st.sampled_from([1, 7, 1000, CHUNK_OCTETS, 1 << 20]))
def test_chunks_have_a_size_and_the_last_is_not_empty(offset: int, times: int, piece: int) -> None:
    whole = (b"x" * 61 + b"\r\n") * (CHUNK_OCTETS * times // 63 + 2)
    whole = whole[: CHUNK_OCTETS * times + offset]
    if whole.endswith(b"\r"):
        whole += b"\n"
    if piece < 1000:
        head, rest = whole[: -piece * 50], whole[-piece * 50 :]
        parts = [head, *(rest[at : at + piece] for at in range(0, len(rest), piece))]
    else:
        parts = [whole[at : at + piece] for at in range(0, len(whole), piece)]
    chunks = unchunked(sent(ChunkedContent(), parts))
    assert b"".join(chunks) == whole
    assert chunks[-1]
    assert all(CHUNK_OCTETS - 1 <= len(chunk) <= CHUNK_OCTETS and chunk[-1:] != b"\r" for chunk in chunks[:-1])


def sending(*offered: str, recipients: bytes = b"250 ok\r\n250 ok\r\n") -> SmtpClient:
    """A client whose content is wanted, by BDAT."""
    client = ready("CHUNKING", *offered)
    client.begin(transaction())
    for line in recipients.splitlines(keepends=True):
        client.outgoing()
        client.receive(line)
        event = client.next_event()
    assert isinstance(event, ContentWanted)
    assert client.outgoing() == b""
    return client


CHUNK = b"x" * (CHUNK_OCTETS - 2) + b"\r\n"


@pytest.mark.parametrize("offered", [(), ("PIPELINING",)])
def test_each_chunk_is_answered_before_the_last_leaves(offered: tuple[str, ...]) -> None:
    client = sending(*offered)
    assert client.content(CHUNK) == []
    assert client.content(b"y\r\n") == [f"BDAT {CHUNK_OCTETS}"]
    with pytest.raises(LocalProtocolError):
        client.end_content()
    client.receive(b"250 131072 octets\r\n")
    assert isinstance(client.next_event(), ChunkTaken)
    client.outgoing()
    assert client.end_content() == "BDAT 3 LAST"
    assert client.outgoing() == b"BDAT 3 LAST\r\ny\r\n"
    client.receive(b"250 2.6.0 taken\r\n")
    ended = client.next_event()
    assert isinstance(ended, TransactionEnded)
    assert ended.final is not None
    assert ended.final.code == 250


def test_a_refused_chunk_ends_the_transaction_when_all_are_answered() -> None:
    """RFC 3030 §2: what is on its way behind it gets 503; none of these replies may be taken for another's."""
    client = sending("PIPELINING")
    client.content(CHUNK * 3 + b"y")
    client.receive(b"250 ok\r\n552 5.3.4 too large\r\n")
    assert isinstance(client.next_event(), ChunkTaken)
    assert client.next_event() is NEED_DATA
    with pytest.raises(LocalProtocolError):
        client.content(b"more")
    with pytest.raises(LocalProtocolError):
        client.end_content()
    # Even a peer that takes this one has not got the message.
    client.receive(b"250 ok\r\n")
    ended = client.next_event()
    assert isinstance(ended, TransactionEnded)
    assert str(ended.final) == "552 5.3.4 too large"
    client.outgoing()
    client.begin(transaction())
    assert client.outgoing().startswith(b"RSET\r\nMAIL ")


@pytest.mark.parametrize(
    ("replies", "final"),
    [(b"421 bye\r\n", 421), (b"552 no\r\n421 bye\r\n", 552), (b"250 ok\r\n451 no\r\n421 bye\r\n", 451)],
)
def test_a_farewell_among_the_chunks(replies: bytes, final: int) -> None:
    client = sending("PIPELINING")
    client.content(CHUNK * 3 + b"y")
    client.receive(replies)
    while isinstance(event := client.next_event(), ChunkTaken):
        continue
    assert isinstance(event, TransactionEnded)
    assert event.final is not None
    assert event.final.code == final
    assert client.next_event() is CLOSED


@pytest.mark.conformance("C94")
@pytest.mark.parametrize("answer", [b"354 go", b"334 go"])
def test_a_chunk_is_not_answered_so(answer: bytes) -> None:
    client = sending("PIPELINING")
    client.content(CHUNK + b"y")
    client.receive(answer + b"\r\n")
    with pytest.raises(RemoteProtocolError):
        client.next_event()


@pytest.mark.conformance("C158")
@pytest.mark.parametrize("offered", [(), ("PIPELINING",)])
def test_nothing_is_sent_to_nobody(offered: tuple[str, ...]) -> None:
    client = ready("CHUNKING", *offered)
    client.begin(transaction())
    for line in (b"250 ok\r\n", b"550 5.1.1 no\r\n"):
        client.outgoing()
        client.receive(line)
        event = client.next_event()
    assert isinstance(event, TransactionEnded)
    assert (event.data, event.final) == (None, None)
    assert client.outgoing() == b""
