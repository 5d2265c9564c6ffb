"""Facts about content are the same however it is cut into chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.content import MAX_HEADER_OCTETS, ContentFacts, ContentScanner, HeaderTooLarge

CONTENT = st.lists(
    st.sampled_from(
        [
            *(b"\r\n", b"\r", b"\n", b".", b"a", b"\xe9", b"\r\n\r\n", b"\r\n.", b"Subject: x\r\n", b"\0"),
            *(
                b"Received: from x\r\n",
                b"received :\r\n by y\r\n",
                b"Message-ID: <1@x>\r\n",
                b"Message-Id:\r\n <2@x>\r\n",
            ),
        ]
    ),
    max_size=12,
).map(b"".join)


def scan(*chunks: bytes) -> tuple[ContentFacts, bytes]:
    scanner = ContentScanner()
    for chunk in chunks:
        scanner.feed(chunk)
    return scanner.facts(), scanner.header


@given(CONTENT, st.lists(st.integers(0, 60), max_size=6))
def test_any_chunking_gives_the_same_facts(content: bytes, cuts: list[int]) -> None:
    ends = [*sorted(cuts), len(content)]
    chunks = [content[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert b"".join(chunks) == content
    whole = scan(content)
    assert scan(*chunks) == whole
    assert scan(*(bytes([octet]) for octet in content)) == whole


@given(CONTENT)
def test_the_facts_are_those_of_a_simple_reading(content: bytes) -> None:
    facts, header = scan(content)
    lines = content.split(b"\r\n")
    end = 0 if content.startswith(b"\r\n") else content.find(b"\r\n\r\n") + 2
    expected = content[:end] if end != 1 else content
    body = content[len(expected) + 2 :]
    assert header == expected
    assert facts.longest_line_octets == max(map(len, lines))
    assert facts.dot_lines == any(line.startswith(b".") for line in lines)
    assert facts.eight_bit_header == (not expected.isascii())
    assert facts.eight_bit_body == (not body.isascii())


@pytest.mark.parametrize(
    ("content", "header"),
    [
        (b"", b""),
        (b"\r\nbody", b""),
        (b"\r\n\r\nbody", b""),
        (b"A: b\r\n\r\nbody", b"A: b\r\n"),
        (b"A: b\r\n", b"A: b\r\n"),
        (b"A: b", b"A: b"),
        (b"A: b\r\n\r\n", b"A: b\r\n"),
    ],
)
def test_where_the_header_section_ends(content: bytes, header: bytes) -> None:
    assert scan(content)[1] == header


def test_facts_of_the_header_section_only() -> None:
    content = b"Received: a\r\nRECEIVED:b\r\nX-Received: c\r\nMessage-ID:\r\n\t<1@x> \r\n\r\nReceived: no\r\n\xe9"
    facts, _ = scan(content)
    assert facts.received_fields == 2
    assert facts.message_id == "<1@x>"
    assert facts.eight_bit_body
    assert not facts.eight_bit_header


@pytest.mark.parametrize("cut", [1, 7, 4096, 1 << 30])
def test_the_header_limit_is_the_same_at_every_cut(cut: int) -> None:
    fits = b"A: " + b"x" * (MAX_HEADER_OCTETS - 5) + b"\r\n"
    for header, refused in ((fits, False), (b"A" + fits, True)):
        content = header + b"\r\nbody"
        start = max(0, len(header) - 20) if cut < 10 else 0
        chunks = [content[:start], *(content[at : at + cut] for at in range(start, len(content), cut))]
        if refused:
            with pytest.raises(HeaderTooLarge):
                scan(*chunks)
        else:
            assert scan(*chunks)[1] == header
