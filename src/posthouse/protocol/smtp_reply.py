"""Replies on the wire: encoding ours strictly, decoding a peer's leniently (RFC 5321 §4.2, RFC 2034 §4)."""

from __future__ import annotations

from functools import lru_cache

from posthouse.mail.reply import EnhancedCode, Reply
from posthouse.protocol.errors import LocalProtocolError, RemoteProtocolError

MAX_REPLY_LINE_OCTETS = 512
"""What we send, CRLF included (RFC 5321 §4.5.3.1.5)."""
MAX_PEER_LINE_OCTETS = 4096
MAX_REPLY_LINES = 200
MAX_REPLY_OCTETS = 512 * 1024
"""Of all lines of a peer's reply: more is no reply but an attempt to keep us busy."""
MAX_TEXT_CHARACTERS = 8192
"""How much of a peer's text is kept; the rest is read and forgotten."""


def encode_reply(reply: Reply) -> bytes:
    """The reply with its enhanced code on each line; 3yz carry none. A missing enhanced code becomes x.0.0."""
    code, enhanced, text = reply.code, reply.enhanced, reply.text
    klass = code // 100
    if not 200 <= code <= 599 or (enhanced is not None and enhanced.klass != klass):
        raise LocalProtocolError(f"no reply can be {reply!r}")
    if klass == 3:
        return encode_lines(code, "", text)
    label = f"{klass}.{enhanced.subject}.{enhanced.detail} " if enhanced is not None else f"{klass}.0.0 "
    return encode_lines(code, label, text)


@lru_cache(maxsize=64)
def encode_lines(code: int, label: str, text: str) -> bytes:
    """Each line of `text` after the code and `label`: cut at 512 octets, anything but printable ASCII as "?"."""
    if len(text) <= 400 and text.isascii() and text.isprintable():
        return f"{code} {label}{text}\r\n".encode("ascii")
    *lines, last = text.split("\n")[:MAX_REPLY_LINES]
    room = MAX_REPLY_LINE_OCTETS - len(label) - 6
    encoded = [f"{code}-{label}{_plain(line)[:room]}\r\n" for line in lines]
    encoded.append(f"{code} {label}{_plain(last)[:room]}\r\n")
    return "".join(encoded).encode("ascii")


def _plain(line: str) -> str:
    if line.isascii() and line.isprintable():
        return line
    return "".join(c if " " <= c <= "~" else "?" for c in line)


class ReplyReader:
    """Collects the lines of one reply. Codes outside 200-599, mixed codes, too many lines or octets are garbage."""

    def __init__(self) -> None:
        self._code = 0
        self._lines: list[str] = []
        self._kept = 0
        self._octets = 0

    def feed(self, line: bytes, *, enhanced: bool) -> Reply | None:
        """Take a line without its CRLF; return the reply when it was the last. Raises RemoteProtocolError.

        `enhanced` says whether an enhanced code may stand here; a greeting and the answer to EHLO have none.
        """
        code, separator = _code(line), line[3:4]
        if code is None or separator not in (b"", b" ", b"-"):
            raise RemoteProtocolError("the peer's reply does not begin with a code")
        if self._lines and code != self._code:
            raise RemoteProtocolError("the peer's reply has several codes")
        if len(self._lines) >= MAX_REPLY_LINES:
            raise RemoteProtocolError("the peer's reply has too many lines")
        self._octets += len(line)
        if self._octets > MAX_REPLY_OCTETS:
            raise RemoteProtocolError("the peer's reply is too long")
        text = _readable(line[4:])[: MAX_TEXT_CHARACTERS - self._kept]
        self._kept += len(text)
        self._code = code
        self._lines.append(text)
        if separator == b"-":
            return None
        lines, self._lines, self._kept, self._octets = self._lines, [], 0, 0
        found = _enhanced_code(code, lines[0]) if enhanced else None
        if found is not None:
            lines = [_without(str(found), text) for text in lines]
        return Reply(code, found, "\n".join(lines))


def _code(line: bytes) -> int | None:
    digits = line[:3]
    # isdigit() of bytes knows ASCII digits only.
    if len(digits) < 3 or not digits.isdigit() or not b"200" <= digits <= b"599":
        return None
    return int(digits)


def _readable(octets: bytes) -> str:
    text = octets.decode("ascii", "replace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)


def _enhanced_code(code: int, text: str) -> EnhancedCode | None:
    """The code at the beginning of `text` if it is well-formed (RFC 3463 §2) and of the reply's class."""
    parts = text[:12].partition(" ")[0].split(".")
    if len(parts) != 3 or parts[0] != str(code // 100):
        return None
    if not all(len(part) <= 3 and part.isascii() and part.isdigit() for part in parts):
        return None
    if any(len(part) > 1 and part[0] == "0" for part in parts):
        return None
    return EnhancedCode(*map(int, parts))


def _without(label: str, text: str) -> str:
    return text[len(label) :].lstrip(" ") if text == label or text.startswith(label + " ") else text
