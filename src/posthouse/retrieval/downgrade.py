"""The header section of an internationalised message for a mail program that knows only ASCII (RFC 6858).

Fields in ASCII stay as they are, octet for octet. Texts become encoded-words (RFC 2047); domains become A-labels,
so that what can be answered still can; an address that cannot be written in ASCII becomes a name beside an address
that leads nowhere, and is thereby readable. The same octets always give the same octets, for LIST tells the size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.header import Header
from email.utils import getaddresses
from typing import Final
from urllib.parse import quote

from posthouse.mail.address import AddressError, parse_domain

NOWHERE: Final = "invalid@internationalized-address.invalid"
NOTE: Final = b"X-Posthouse-Downgraded: your program cannot read this message as it is; it needs UTF8 (RFC 6856)\r\n"

_FIELD: Final = re.compile(rb"[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*|[^\r\n]+\Z")
_PARAMETER: Final = re.compile(r'([!#$&+\-.0-9A-Z^_`a-z{|}~]+)="((?:[^"\\]|\\.)*)"')
_ENCODED_WORDS: Final = re.compile(r"(?:=\?[^?\s]+\?[BbQq]\?[^?\s]*\?=\s*)+")
_ADDRESSES: Final = frozenset({"from", "sender", "reply-to", "to", "cc", "bcc"})
_LEFT_OUT: Final = frozenset({"return-path", "delivered-to", "disposition-notification-to"})
"""Addresses in these are for programs, which could do only harm with another one."""
_STRUCTURED: Final = frozenset({"received", "message-id", "in-reply-to", "references", "date", "mime-version"})
_PARAMETERS: Final = frozenset({"content-type", "content-disposition"})


def downgraded(header: bytes) -> bytes:
    """The header section, each line with its CRLF and without the empty line, in ASCII and with a note of ours."""
    if header.isascii():
        return header
    fields = (field if field.isascii() else _field(field) for field in _FIELD.findall(header))
    return b"".join(fields) + NOTE


def _field(field: bytes) -> bytes:
    """One field that is not in ASCII; b"" where nothing of it can be kept."""
    name_octets, colon, value_octets = field.partition(b":")
    if not colon or not name_octets.isascii():
        return b""
    name = name_octets.decode("ascii")
    value = _printable(value_octets.decode("utf-8", "replace").replace("\r\n", "")).strip()
    kind = name.strip().lower().removeprefix("resent-")
    if kind in _LEFT_OUT:
        return b""
    if kind in _ADDRESSES:
        text = ",\r\n ".join(_mailboxes(value))
    elif kind in _PARAMETERS:
        text = _ascii(_PARAMETER.sub(_extended, value))
    elif kind in _STRUCTURED:
        text = _ascii(value)
    else:
        text = _encoded(value)
    return f"{name}: {text}\r\n".encode("ascii")


def _mailboxes(value: str) -> Iterator[str]:
    """The mailboxes of an address list. What cannot be read as one is shown as a name."""
    found = [pair for pair in getaddresses([value]) if any(pair)]
    if not any("@" in address for _, address in found):
        yield f"{_encoded(value)} <{NOWHERE}>"
        return
    for name, address in found:
        reachable = _reachable(address)
        shown = name if reachable is not None else " ".join(filter(None, (name, address)))
        yield f"{_phrase(shown)} <{reachable or NOWHERE}>" if shown else f"<{reachable}>"


def _reachable(address: str) -> str | None:
    """The address in ASCII, if it has such a spelling: its local part has no other than its own."""
    local_part, _, domain = address.rpartition("@")
    if address.isascii():
        return address
    if not local_part.isascii():
        return None
    try:
        return f"{local_part}@{parse_domain(domain)}"
    except AddressError:
        return None


def _phrase(name: str) -> str:
    if not name.isascii():
        return _encoded(name)
    if _ENCODED_WORDS.fullmatch(name):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _extended(parameter: re.Match[str]) -> str:
    """A parameter with its value as RFC 2231 §4 encodes it."""
    value = re.sub(r"\\(.)", r"\1", parameter[2])
    return parameter[0] if value.isascii() else f"{parameter[1]}*=utf-8''{quote(value, safe='')}"


def _encoded(text: str) -> str:
    """Encoded-words, folded."""
    return Header(text, "utf-8", maxlinelen=74).encode(linesep="\r\n")


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode("ascii")


def _printable(text: str) -> str:
    # Also what Python would take for the end of a line.
    return "".join(c if c.isprintable() else " " for c in text)
