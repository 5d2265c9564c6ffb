"""The one framing layer: lines that end in CRLF and content that ends in CRLF.CRLF, with every limit.

Only CRLF ends a line (RFC 5321 §2.3.8) and only CRLF.CRLF ends content (§4.1.1.4); anything laxer is the way
in for smuggled messages. Nothing else in Posthouse looks for line ends on the wire.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

DISCARD_LIMIT_OCTETS = 64 * 1024
_TERMINATOR = b"\r\n.\r\n"
# As numbers, and `find` for more than one: for octets, `in` raises and forgets a TypeError before it looks.
_CR, _LF = b"\r\n"


class LineFault(Enum):
    """What can be wrong with a line; it was consumed whole, and the next line is a new one."""

    TOO_LONG = auto()
    BARE_LINE_END = auto()
    """A CR without LF or an LF without CR stood inside it."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that was read and thrown away."""

    fault: LineFault


Line: TypeAlias = bytes | BadLine


class EndlessLine(Exception):
    """More than DISCARD_LIMIT_OCTETS came without a CRLF: there is nothing to resynchronise with."""


class LineBuffer:
    """Input not yet taken, as lines or as counted octets. Holds one line's limit of unfinished line at most.

    The caller stops reading from its peer while there are whole lines to take, so the rest is bounded too.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._discarding = 0
        self.lines = 0
        """How many lines were taken, bad ones included."""

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, octets: bytes) -> None:
        """Add what came from the peer."""
        self._buffer += octets

    def next_line(self, limit_octets: int) -> Line | None:
        """The next line without its CRLF, None when it is not complete yet.

        `limit_octets` counts the CRLF. Raises EndlessLine.
        """
        end = self._buffer.find(b"\r\n", self._searched)
        if end < 0:
            self._forget_if_too_long(limit_octets)
            return None
        self.lines += 1
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        self._searched = 0
        if self._discarding or end + 2 > limit_octets:
            self._discarding = 0
            return BadLine(LineFault.TOO_LONG)
        if _CR in line or _LF in line:
            return BadLine(LineFault.BARE_LINE_END)
        return line

    def take(self, limit_octets: int) -> bytes:
        """Up to `limit_octets` octets as they are, for counted content (BDAT) and for content that a reader frames."""
        assert not self._discarding
        if limit_octets >= len(self._buffer):
            taken, self._buffer = bytes(self._buffer), bytearray()
        else:
            taken = bytes(self._buffer[:limit_octets])
            del self._buffer[:limit_octets]
        self._searched = 0
        return taken

    def clear(self) -> int:
        """Throw away all that is buffered (RFC 3207 §4.2); returns how much it was."""
        count, self._buffer, self._searched, self._discarding = len(self._buffer), bytearray(), 0, 0
        return count

    def _forget_if_too_long(self, limit_octets: int) -> None:
        # The last octet may be the CR of a CRLF, so it is kept and searched again.
        self._searched = max(0, len(self._buffer) - 1)
        if not self._discarding and len(self._buffer) < limit_octets:
            return
        self._discarding += self._searched
        del self._buffer[: self._searched]
        self._searched = 0
        if self._discarding > DISCARD_LIMIT_OCTETS:
            raise EndlessLine


class ContentReader:
    """Takes dot-stuffed content apart: chunks free of stuffing (RFC 5321 §4.5.2, RFC 1939 §3), until CRLF.CRLF.

    `bare_line_end` tells that a CR or LF stood alone somewhere; such content must be refused, and is still read
    to its true end. At most four octets are held back.
    """

    def __init__(self) -> None:
        # Content begins as if a CRLF had just been read, so that a first line "." ends it.
        self._held = b"\r\n"
        self._virtual = 2
        self.bare_line_end = False
        self.ended = False

    def feed(self, octets: bytes) -> tuple[bytes, bytes]:
        """Take octets from the wire; return (content, what follows the end). The second is b"" until `ended`."""
        assert not self.ended
        data = self._held + octets
        end = data.find(_TERMINATOR)
        if end >= 0:
            self.ended = True
            self._held = b""
            return self._emit(data[: end + 2]), data[end + 5 :]
        keep = _prefix_of_terminator(data)
        cut = len(data) - keep
        self._held = data[cut:]
        return self._emit(data[:cut]), b""

    def _emit(self, data: bytes) -> bytes:
        if not data:
            return b""
        # (Splitting is a little faster, and makes an object of each of a hundred thousand tiny lines.)
        line_ends = data.count(b"\r\n")
        if data.count(_CR) != line_ends or data.count(_LF) != line_ends:
            self.bare_line_end = True
        if data.find(b"\r\n.") >= 0:
            data = data.replace(b"\r\n.", b"\r\n")
        virtual, self._virtual = self._virtual, 0
        return data[virtual:] if virtual else data


def _prefix_of_terminator(data: bytes) -> int:
    """How many octets at the end of `data` could begin a terminator."""
    for length in (4, 3, 2, 1):
        if data.endswith(_TERMINATOR[:length]):
            return length
    return 0


class ContentWriter:
    """Stuffs dots into content that leaves, and ends it. Chunks may be cut anywhere."""

    def __init__(self) -> None:
        self._last = b"\r\n"

    def encode(self, octets: bytes) -> bytes:
        """The chunk as it goes over the wire."""
        if not octets:
            return b""
        stuffed = octets.replace(b"\r\n.", b"\r\n..") if b"\r\n." in octets else octets
        if octets[:1] == b"." and self._last == b"\r\n":
            stuffed = b"." + stuffed
        elif octets[:2] == b"\n." and self._last[-1:] == b"\r":
            stuffed = b"\n." + stuffed[1:]
        self._last = (self._last + octets[-2:])[-2:]
        return stuffed

    def finish(self) -> bytes:
        """The end: CRLF only if the content lacks one (RFC 5321 §4.1.1.4), then the dot."""
        return b".\r\n" if self._last == b"\r\n" else b"\r\n.\r\n"
