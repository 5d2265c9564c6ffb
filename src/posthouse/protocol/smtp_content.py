"""A transaction and its content, which comes by DATA or in chunks (BDAT, RFC 3030): a counter without dot logic.

BINARYMIME is not offered, so content is lines that end in CRLF here too: a CR or LF alone is refused as in DATA,
wherever chunks are cut. A last line that lacks its CRLF gets one, as RFC 5321 §4.1.1.4 has it for DATA; a signature
is not touched by that (RFC 6376 §3.4.3), and refusing such a message would lose mail that others take.
"""

from __future__ import annotations

from dataclasses import dataclass

from posthouse.mail.reply import Reply
from posthouse.protocol.lines import ContentReader

WORTHY_CHUNK_OCTETS = 1024
"""A chunk so large is content to whoever counts commands; a flood of smaller ones is a flood of commands."""


@dataclass(slots=True)
class OpenChunk:
    """A BDAT whose announced octets are being read. With a `refusal` they are thrown away, and it is said then."""

    size_octets: int
    last: bool
    remaining: int
    refusal: Reply | None = None
    is_drivers: bool = False
    """The refusal is the driver's own: it need not be told."""


class ChunkReader:
    """Watches the line ends of content that comes in chunks. `bare_line_end`: the content must be refused."""

    def __init__(self) -> None:
        self._last = b"\r\n"
        self.bare_line_end = False

    def feed(self, octets: bytes) -> None:
        """Look at the next octets, cut anywhere."""
        if not octets:
            return
        # A CR at the end waits for the LF of the next octets.
        data = (b"\r" if self._last[-1:] == b"\r" else b"") + octets
        waiting = data.endswith(b"\r")
        line_ends = data.count(b"\r\n")
        if data.count(b"\r") - waiting != line_ends or data.count(b"\n") != line_ends:
            self.bare_line_end = True
        self._last = (self._last + octets[-2:])[-2:]

    def end(self) -> bytes:
        """No more comes: what the last line lacks, b"" or CRLF."""
        if self._last[-1:] == b"\r":
            self.bare_line_end = True
        return b"" if self._last == b"\r\n" or self.bare_line_end else b"\r\n"


@dataclass(slots=True)
class Transaction:
    """One MAIL and what came of it; the only place where it is kept."""

    smtputf8: bool
    recipients: int = 0
    content: ContentReader | ChunkReader | None = None
    size_octets: int = 0

    def take_chunked(self, octets: bytes) -> ChunkReader:
        """Count octets of a chunk and look at their line ends."""
        assert isinstance(self.content, ChunkReader)
        self.content.feed(octets)
        self.size_octets += len(octets)
        return self.content
