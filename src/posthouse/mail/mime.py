"""The structure of a message that may be anything (RFC 2045, RFC 2046): header, parts, where each begins and ends.

The octets come in chunks and go; kept are the header, what names each part, and the beginning of texts, all bounded.
Time grows with the length alone: a line that may be a delimiter is looked up among those that are open. Nothing is an
error: a header line that is none begins the body, a multipart without its delimiter is text, and what is nested
too deep, or comes after too many parts, is not taken apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from posthouse.mail.encoded_words import text_of
from posthouse.mail.mime_parameters import media_type_of, parametrised

MAX_PARTS = 1000
MAX_DEPTH = 50
MAX_HEADER_OCTETS = 256 * 1024
"""Of the message's own header; further fields are passed over."""
MAX_FIELDS = 2000
MAX_PART_HEADER_OCTETS = 16 * 1024
KEPT_OCTETS = 1024 * 1024
"""Of one text, as it is encoded."""
ALL_KEPT_OCTETS = 4 * 1024 * 1024

_MAX_DELIMITER = 1000
_MAX_LINE = 64 * 1024
_MAX_BOUNDARY = 200
_NOTHING = re.compile(rb"(?!)")
_HEADER_END = re.compile(rb"\n\r?\n")
_FIELD = re.compile(rb"([!-9;-~]{1,200})[ \t]*:(.*)", re.DOTALL)
_OF_PARTS: Final = frozenset(
    {"content-type", "content-disposition", "content-transfer-encoding", "content-id", "content-description"}
)

Tap = Callable[[bytes], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part, a multipart included. `number` counts from 1 in the order they come; `parent` is 0 for the first.

    Texts in it may hold any character. `octets` is the size of the body as it is encoded.
    """

    number: int
    parent: int
    media_type: str
    charset: str = ""
    encoding: str = ""
    disposition: str = ""
    name: str = ""
    content_id: str = ""
    octets: int = 0
    beginning: bytes = b""
    """Of the body as it is encoded; only of texts."""

    @property
    def is_whole(self) -> bool:
        """Whether `beginning` is all of it."""
        return len(self.beginning) == self.octets

    @property
    def is_multipart(self) -> bool:
        return self.media_type.startswith("multipart/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What was found. Fields are (name in lower case, value with its folds), in order."""

    fields: tuple[tuple[str, bytes], ...]
    parts: tuple[Part, ...]
    is_cut: bool = False
    """There are fields or parts beyond the limits, which are not in it."""

    def all(self, name: str) -> tuple[bytes, ...]:
        return tuple(value for known, value in self.fields if known == name)

    def text(self, name: str) -> str:
        """The first field of that name as text, "" where there is none."""
        return next((text_of(value) for known, value in self.fields if known == name), "")


class _Open:
    """A part whose end has not come yet."""

    def __init__(self, number: int, parent: int, fields: list[tuple[str, bytearray]]) -> None:
        self.number = number
        self.parent = parent
        found: dict[str, bytes] = {}
        for name, value in fields:
            found.setdefault(name, bytes(value))
        content_type = parametrised(found.get("content-type", b""))
        disposition = parametrised(found.get("content-disposition", b""))
        self.media_type = media_type_of(content_type.value)
        self.charset = content_type.parameters.get("charset", "")
        self.boundary = content_type.boundary.rstrip() if self.media_type.startswith("multipart/") else b""
        self.disposition = disposition.value
        self.name = disposition.parameters.get("filename") or content_type.parameters.get("name", "")
        self.encoding = text_of(found.get("content-transfer-encoding", b"")).lower()
        self.content_id = text_of(found.get("content-id", b""))
        self.is_kept = self.media_type.startswith(("text/", "multipart/")) and self.disposition != "attachment"
        self.has_parts = False
        self.octets = 0
        self.beginning = bytearray()

    def part(self) -> Part:
        # A multipart of which no part was found is shown as it stands.
        is_raw = self.media_type.startswith("multipart/") and not self.has_parts
        return Part(
            number=self.number,
            parent=self.parent,
            media_type="text/plain" if is_raw else self.media_type,
            charset=self.charset,
            encoding="" if is_raw else self.encoding,
            disposition=self.disposition,
            name=self.name,
            content_id=self.content_id,
            octets=self.octets,
            beginning=bytes(self.beginning),
        )


class MimeReader:
    """Takes a message in chunks. `tap` gets the body of part `tapped`, as it is encoded."""

    def __init__(self, *, tapped: int = 0, tap: Tap | None = None) -> None:
        self._tapped = tapped
        self._tap = tap
        self._buffer = b""
        self._at = 0
        self._in_header = True
        self._at_line_start = True
        self._in_long_line = False
        self._fields: list[tuple[str, bytearray]] = []
        self._header_octets = 0
        self._message_fields: tuple[tuple[str, bytes], ...] = ()
        self._parts: list[_Open] = []
        self._open: list[_Open] = []
        """Multiparts, the outermost first."""
        self._levels: dict[bytes, int] = {}
        """Where in `_open` the multipart of each boundary is."""
        self._current: _Open | None = None
        self._pattern = self._last_pattern = _NOTHING
        self._kept = 0
        self._is_cut = False
        self._is_too_long = False
        """The rest of this header is passed over."""

    def feed(self, octets: bytes) -> None:
        self._buffer = self._buffer[self._at :] + octets
        self._at = 0
        self._go_on(final=False)

    def finish(self) -> Message:
        self._go_on(final=True)
        if self._in_header:
            self._begin_body()
        return Message(
            fields=self._message_fields, parts=tuple(part.part() for part in self._parts), is_cut=self._is_cut
        )

    def _go_on(self, *, final: bool) -> None:
        while self._at < len(self._buffer):
            if not self._in_header:
                goes_on = self._body(final=final)
            else:
                goes_on = self._pass_header(final=final) if self._is_too_long else self._header_line(final=final)
            if not goes_on:
                return

    # Header sections.

    def _header_line(self, *, final: bool) -> bool:
        """Take one line; False: it is not whole yet."""
        end = self._buffer.find(b"\n", self._at) + 1
        if not end:
            if not final and len(self._buffer) - self._at <= _MAX_LINE:
                return False
            end = len(self._buffer)
        line, begins = self._buffer[self._at : end], not self._in_long_line
        self._in_long_line = not line.endswith(b"\n")
        if not begins:
            self._go_on_with_field(line)
        elif not line.strip(b"\r\n"):
            self._at = end
            self._begin_body()
            return True
        elif line.startswith(b"--") and (found := self._delimiter(line)) is not None:
            self._begin_body()
            self._delimit(*found, after=end)
            return True
        elif line.startswith((b" ", b"\t")) and self._header_octets:
            self._go_on_with_field(line)
        elif field := _FIELD.match(line):
            self._begin_field(field[1], field[2])
        elif self._header_octets or not line.startswith((b"From ", b">From ")):
            # Whatever this is, it is not a header any more.
            self._in_long_line = False
            self._begin_body()
            return True
        self._header_octets += len(line)
        # (The end of a header that is passed over is looked for with the line end before it.)
        self._at = end - 1 if self._is_too_long and line.endswith(b"\n") else end
        return True

    def _begin_field(self, name: bytes, value: bytes) -> None:
        known = name.decode("ascii").lower()
        if self._is_over(len(value)) or len(self._fields) >= MAX_FIELDS:
            self._is_cut = self._is_too_long = True
        else:
            is_wanted = not self._parts or known in _OF_PARTS
            self._fields.append((known if is_wanted else "", bytearray(value if is_wanted else b"")))

    def _go_on_with_field(self, line: bytes) -> None:
        if self._is_over(len(line)):
            self._is_cut = self._is_too_long = True
        elif self._fields and self._fields[-1][0]:
            self._fields[-1][1].extend(line)

    def _is_over(self, octets: int) -> bool:
        return self._header_octets + octets > (MAX_PART_HEADER_OCTETS if self._parts else MAX_HEADER_OCTETS)

    def _pass_header(self, *, final: bool) -> bool:
        """Nothing more is kept of it; its end is looked for in one go."""
        end = _HEADER_END.search(self._buffer, self._at)
        if end is None:
            self._at = len(self._buffer) if final else max(self._at, len(self._buffer) - 2)
            return False
        self._at = end.end()
        self._begin_body()
        return True

    def _begin_body(self) -> None:
        parent = self._open[-1].number if self._open else 0
        part = _Open(len(self._parts) + 1, parent, self._fields)
        if not self._parts:
            self._message_fields = tuple((name, bytes(value)) for name, value in self._fields if name)
        self._parts.append(part)
        self._current = part
        self._fields = []
        self._header_octets = 0
        self._in_header = False
        self._at_line_start = True
        self._is_too_long = False
        is_new = 0 < len(part.boundary) <= _MAX_BOUNDARY and part.boundary not in self._levels
        if is_new and len(self._open) < MAX_DEPTH:
            self._levels[part.boundary] = len(self._open)
            self._open.append(part)
            self._look_for()

    # Bodies.

    def _body(self, *, final: bool) -> bool:
        """Take what is there up to the next delimiter; False: more has to come."""
        buffer = self._buffer
        if not self._open:
            self._take(len(buffer))
            return False
        if self._at_line_start:
            return self._first_line(final=final)
        found = (self._last_pattern if final else self._pattern).search(buffer, self._at)
        if found is None:
            self._take(len(buffer) if final else self._end_of_known())
            return False
        self._take(self._before(found.start()))
        delimiter = self._delimiter(found[0][1:])
        assert delimiter is not None
        self._delimit(*delimiter, after=found.end())
        return True

    def _first_line(self, *, final: bool) -> bool:
        """A body may be empty, and begin with the delimiter after it."""
        buffer, at = self._buffer, self._at
        end = buffer.find(b"\n", at, at + _MAX_DELIMITER) + 1
        if buffer.startswith((b"--", b"-"), at) and not end and len(buffer) - at < _MAX_DELIMITER and not final:
            return False
        self._at_line_start = False
        found = self._delimiter(buffer[at : end or at + _MAX_DELIMITER]) if buffer.startswith(b"--", at) else None
        if found is not None:
            self._delimit(*found, after=end or len(buffer))
        return True

    def _end_of_known(self) -> int:
        """How far the buffer is surely of this body: what may be the beginning of a delimiter is held."""
        end = len(self._buffer)
        line = self._buffer.rfind(b"\n", max(self._at, end - _MAX_DELIMITER))
        if line < 0:
            return max(self._at, end - 1)
        return self._before(line)

    def _before(self, line_end: int) -> int:
        """Where a body ends before a delimiter: the line end is the delimiter's own (RFC 2046 §5.1.1)."""
        return line_end - 1 if line_end > self._at and self._buffer[line_end - 1] == 0x0D else line_end

    def _look_for(self) -> None:
        """Only what is a delimiter is found: a line that begins like one costs nothing more than others."""
        names = b"|".join(re.escape(name) for name in sorted(self._levels, key=lambda name: -len(name)))
        line = rb"\n--(?:%s)(?:--)?[ \t]{0,200}" % names
        self._pattern = re.compile(line + rb"\r?\n")
        self._last_pattern = re.compile(line + rb"(?:\r?\n|\r?\Z)")

    def _delimiter(self, line: bytes) -> tuple[int, bool] | None:
        """Which open multipart's delimiter it is, and whether the last (RFC 2046 §5.1.1)."""
        boundary = line.rstrip(b" \t\r\n")[2:]
        if boundary in self._levels:
            return self._levels[boundary], False
        if boundary.endswith(b"--") and boundary[:-2] in self._levels:
            return self._levels[boundary[:-2]], True
        return None

    def _delimit(self, level: int, last: bool, *, after: int) -> None:
        """Multiparts inside this one end here, whether they said so or not."""
        parent = self._open[level]
        if not parent.has_parts:
            # It was the preamble, which is not shown (RFC 2046 §5.1.1).
            self._kept -= len(parent.beginning)
            parent.beginning.clear()
            parent.has_parts = True
        for ended in self._open[level if last else level + 1 :]:
            del self._levels[ended.boundary]
        del self._open[level if last else level + 1 :]
        self._look_for()
        self._current = None
        self._at = after
        self._at_line_start = True
        if last:
            return
        if len(self._parts) >= MAX_PARTS:
            self._is_cut = True
            self._open.clear()
            self._levels.clear()
            return
        self._in_header = True
        self._in_long_line = False

    def _take(self, end: int) -> None:
        """The octets up to there are of the current part, if of any."""
        at, self._at = self._at, max(self._at, end)
        part = self._current
        if part is None or end <= at:
            return
        part.octets += end - at
        room = min(KEPT_OCTETS - len(part.beginning), ALL_KEPT_OCTETS - self._kept)
        if part.is_kept and room > 0:
            kept = self._buffer[at : min(end, at + room)]
            part.beginning += kept
            self._kept += len(kept)
        if self._tap is not None and part.number == self._tapped:
            self._tap(self._buffer[at:end])
