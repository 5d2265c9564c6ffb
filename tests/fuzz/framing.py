"""Targets: lines, dot-stuffed content and chunks, against readings of RFC 5321 that fit in a few lines."""

from __future__ import annotations

from tests.fuzz.draw import Draw, cut, same_however_cut

from posthouse.protocol.lines import (
    DISCARD_LIMIT_OCTETS,
    BadLine,
    ContentReader,
    ContentWriter,
    EndlessLine,
    Line,
    LineBuffer,
    LineFault,
)
from posthouse.protocol.smtp_client_content import ChunkedContent, ContentUnfit, DottedContent
from posthouse.protocol.smtp_content import ChunkReader

LIMITS = (4, 16, 60, 512)


def lines(octets: bytes) -> None:
    """Only CRLF ends a line, too long ones are told and skipped, and what is held stays within the limit."""
    draw = Draw(octets)
    limit, seed = draw.choice(LIMITS), draw.number()
    wire = draw.rest()

    def run(pieces: list[bytes]) -> tuple[list[Line], bool]:
        buffer, found = LineBuffer(), list[Line]()
        try:
            for piece in pieces:
                buffer.feed(piece)
                while (line := buffer.next_line(limit)) is not None:
                    found.append(line)
                assert len(buffer) <= limit, "more than a line is held"
        except EndlessLine:
            return found, True
        assert buffer.lines == len(found)
        return found, False

    found, endless = same_however_cut(wire, seed, run)
    wanted = [_judged(line, limit) for line in wire.split(b"\r\n")[:-1]]
    assert found == wanted[: len(found)]
    assert endless or len(found) == len(wanted)
    assert not endless or len(wire) > DISCARD_LIMIT_OCTETS


def _judged(line: bytes, limit: int) -> Line:
    if len(line) + 2 > limit:
        return BadLine(LineFault.TOO_LONG)
    return BadLine(LineFault.BARE_LINE_END) if b"\r" in line or b"\n" in line else line


def content_reader(octets: bytes) -> None:
    """Content ends at the first CRLF.CRLF and nowhere else, and loses only the dots that were put in."""
    seed, wire = octets[-1:], octets[:-1]

    def run(pieces: list[bytes]) -> tuple[bytes, bytes, bool, bool]:
        reader, content, rest = ContentReader(), b"", b""
        for piece in pieces:
            if reader.ended:
                rest += piece
                continue
            more, rest = reader.feed(piece)
            content += more
        return content, rest, reader.ended, reader.bare_line_end

    content, rest, ended, bare = same_however_cut(wire, seed[0] if seed else 0, run)
    whole = b"\r\n" + wire
    end = whole.find(b"\r\n.\r\n")
    assert ended == (end >= 0)
    if ended:
        lines = whole[2 : end + 2].split(b"\r\n")[:-1]
        assert content == b"".join(line.removeprefix(b".") + b"\r\n" for line in lines)
        assert rest == whole[end + 5 :]
        assert bare == has_bare_line_end(content)


def content_writer(octets: bytes) -> None:
    """What is stuffed comes out again; no content, however cut, ends the transfer early or is taken for a command."""
    draw = Draw(octets)
    seed, content = draw.number(), draw.rest()

    def run(pieces: list[bytes]) -> bytes:
        writer = ContentWriter()
        return b"".join([*map(writer.encode, pieces), writer.finish()])

    wire = same_however_cut(content, seed, run)
    reader = ContentReader()
    read, rest = reader.feed(wire + b"NEXT\r\n")
    assert reader.ended
    assert rest == b"NEXT\r\n"
    assert read == (content if not content or content.endswith(b"\r\n") else content + b"\r\n")
    assert len(wire) <= 2 * len(content) + 5


def chunk_reader(octets: bytes) -> None:
    """BDAT: a CR or LF alone is seen wherever chunks are cut, and only a last line that lacks its CRLF gets one."""
    draw = Draw(octets)
    seed, content = draw.number(), draw.rest()

    def run(pieces: list[bytes]) -> tuple[bytes, bool]:
        reader = ChunkReader()
        for piece in pieces:
            reader.feed(piece)
        tail = reader.end()
        return tail, reader.bare_line_end

    tail, bare = same_however_cut(content, seed, run)
    assert bare == has_bare_line_end(content)
    assert tail == (b"" if bare or not content or content.endswith(b"\r\n") else b"\r\n")


def content_leaving(octets: bytes) -> None:
    """What the client half sends of any stored octets: nothing unfit leaves, all else arrives as it was."""
    draw = Draw(octets)
    seed, content = draw.number(), draw.rest()

    def dotted(pieces: list[bytes]) -> bytes | None:
        sender, left = DottedContent(), list[bytes]()
        try:
            for piece in pieces:
                left += [part for _command, part in sender.encode(piece)]
            return b"".join([*left, sender.finish()[1]])
        except ContentUnfit:
            assert not has_bare_line_end(b"".join(left)), "a CR or LF alone has left"
            return None

    wire = same_however_cut(content, seed, dotted)
    assert (wire is None) == has_bare_line_end(content)
    if wire is not None:
        assert ContentReader().feed(wire)[0].removesuffix(b"\r\n") == content.removesuffix(b"\r\n")
    assert _chunked(cut(content, seed)) == (None if wire is None else content)


def _chunked(pieces: list[bytes]) -> bytes | None:
    sender, received = ChunkedContent(), b""
    try:
        parts = [part for piece in pieces for part in sender.encode(piece)]
        parts.append(sender.finish())
    except ContentUnfit:
        return None
    for command, octets in parts:
        line, _, chunk = octets.partition(b"\r\n")
        assert line.decode() == command
        assert len(chunk) == int(line.split()[1])
        received += chunk
    return received


def has_bare_line_end(octets: bytes) -> bool:
    return any(octet in octets.replace(b"\r\n", b"") for octet in (b"\r", b"\n"))
