"""TOP: the header section, the empty line and a number of lines of the body (RFC 1939 §7)."""

from __future__ import annotations


class TopCutter:
    """Cuts a message that comes in chunks after `lines` lines of its body; 0 leaves the header and the empty line.

    Only CRLF ends a line, as everywhere. `done` says that nothing after this chunk is wanted.
    """

    def __init__(self, lines: int) -> None:
        self.done = False
        self._left = lines
        self._in_header = True
        # Content begins as if a CRLF had just been read: an empty first line is an empty header section.
        self._before = b"\r\n"

    def cut(self, octets: bytes) -> bytes:
        """The part of this chunk that belongs to the answer."""
        if self.done:
            return b""
        start = self._skip_header(octets) if self._in_header else 0
        end = len(octets) if self._in_header else self._body_end(octets, start)
        self._before = (self._before + octets)[-3:]
        return octets[:end]

    def _skip_header(self, octets: bytes) -> int:
        """Where in this chunk the body begins; still `_in_header` if it does not."""
        at = (self._before + octets[:3]).find(b"\r\n\r\n")
        if at >= 0:
            self._in_header = False
            return at + 4 - len(self._before)
        at = octets.find(b"\r\n\r\n")
        if at < 0:
            return len(octets)
        self._in_header = False
        return at + 4

    def _body_end(self, octets: bytes, start: int) -> int:
        """Where in this chunk the answer ends, counting the line ends from `start` on."""
        end = start
        # A CRLF may be cut in two by the chunk's border.
        if start == 0 and self._left and self._before.endswith(b"\r") and octets.startswith(b"\n"):
            self._left, end = self._left - 1, 1
        count = octets.count(b"\r\n", end)
        if count < self._left:
            self._left -= count
            return len(octets)
        for _ in range(self._left):
            end = octets.find(b"\r\n", end) + 2
        self._left, self.done = 0, True
        return end
