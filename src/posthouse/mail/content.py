"""Facts about a message's content, gathered while it streams through; the octets are never changed.

Content is the octets as received (RFC 5321 §2.3.1): header section, empty line, body, lines ending in CRLF.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_HEADER_OCTETS = 256 * 1024
MAX_DELIVERED_TO = 100
"""Delivered-To fields that are looked at: more than there are hosts that a message passes."""
# In lower case, and a line end instead of `^`: so they begin with plain text, which `re` finds several times faster.
_RECEIVED = re.compile(rb"\nreceived[ \t]*:")
_DELIVERED_TO = re.compile(rb"\ndelivered-to[ \t]*:[ \t]*([^\r\n]{1,320})")
_MESSAGE_ID = re.compile(rb"\nmessage-id[ \t]*:[ \t]*(?:\r\n[ \t]+)?([^\r\n]{1,998})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentFacts:
    """What forwarding and reading need to know without reading the content again."""

    longest_line_octets: int = 0
    eight_bit_header: bool = False
    eight_bit_body: bool = False
    dot_lines: bool = False
    received_fields: int = 0
    message_id: str | None = None
    delivered_to: tuple[str, ...] = ()
    """What Delivered-To fields say, in lower case. Known of content that comes in; it is not stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedContent:
    """Content that is complete and immutable, not yet referred to by any row.

    `handle` is the store's own name for it; `sha256` is of the octets as received.
    """

    handle: str
    size_octets: int
    sha256: bytes
    facts: ContentFacts


class HeaderTooLarge(ValueError):
    """The header section exceeds MAX_HEADER_OCTETS."""


class ContentScanner:
    """Gathers ContentFacts from content fed in chunks that may be cut anywhere. Memory: one header section.

    `lenient`: of a header section that is too large, the first MAX_HEADER_OCTETS are looked at.
    """

    def __init__(self, *, lenient: bool = False) -> None:
        self._lenient = lenient
        self._header = bytearray()
        self._in_header = True
        self._line_octets = 0
        self._longest = 0
        self._eight_bit_body = False
        self._dot_lines = False
        self._last = b"\r\n"

    @property
    def header(self) -> bytes:
        """The header section so far, without the empty line that ends it."""
        return bytes(self._header)

    def feed(self, octets: bytes) -> None:
        """Take the next chunk. Raises HeaderTooLarge."""
        if not octets:
            return
        self._measure_lines(octets)
        if self._in_header:
            octets = self._take_header(octets)
        if octets and not self._eight_bit_body:
            self._eight_bit_body = not octets.isascii()

    def facts(self) -> ContentFacts:
        """The facts once the last chunk was fed."""
        header = bytes(self._header)
        lowered = b"\n" + header.lower()
        found = _MESSAGE_ID.search(lowered)
        message_id = header[found.start(1) - 1 : found.end(1) - 1] if found else None
        delivered_to = _DELIVERED_TO.findall(lowered)[:MAX_DELIVERED_TO]
        return ContentFacts(
            longest_line_octets=max(self._longest, self._line_octets),
            eight_bit_header=not header.isascii(),
            eight_bit_body=self._eight_bit_body,
            dot_lines=self._dot_lines,
            received_fields=len(_RECEIVED.findall(lowered)),
            message_id=message_id.decode("ascii", "replace").strip() if message_id else None,
            delivered_to=tuple(value.decode("utf-8", "replace").strip() for value in delivered_to),
        )

    def _measure_lines(self, octets: bytes) -> None:
        if octets[:1] == b"\n" and self._last[-1:] == b"\r":
            # The CRLF was cut in two: its CR was counted as part of the line.
            self._longest = max(self._longest, self._line_octets - 1)
            self._line_octets = -1
        lengths = list(map(len, octets.split(b"\r\n")))
        self._line_octets += lengths[0]
        if len(lengths) > 1:
            self._longest = max(self._longest, self._line_octets, max(lengths[1:-1], default=0))
            self._line_octets = lengths[-1]
        if not self._dot_lines:
            edge = self._last + octets[:3]
            self._dot_lines = octets.find(b"\r\n.") >= 0 or edge.find(b"\r\n.") >= 0
        self._last = (self._last + octets)[-2:]

    def _take_header(self, octets: bytes) -> bytes:
        """Add to the header section; return what belongs to the body."""
        seen = max(0, len(self._header) - 3)
        self._header += octets
        if self._header.startswith(b"\r\n"):
            end = 0
            body_at = 2
        else:
            end = self._header.find(b"\r\n\r\n", seen) + 2
            body_at = end + 2
        if end == 1:
            # One octet more may be the CR of the empty line after a header section of just that size.
            return self._cut() if len(self._header) > MAX_HEADER_OCTETS + 1 else b""
        if end > MAX_HEADER_OCTETS:
            return self._cut()
        self._in_header = False
        body = bytes(self._header[body_at:])
        del self._header[end:]
        return body

    def _cut(self) -> bytes:
        if not self._lenient:
            raise HeaderTooLarge
        self._in_header = False
        rest = bytes(self._header[MAX_HEADER_OCTETS:])
        del self._header[MAX_HEADER_OCTETS:]
        return rest
