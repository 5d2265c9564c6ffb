"""Content-Type and Content-Disposition as they came (RFC 2045 §5.1, RFC 2183), with RFC 2231's long names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from posthouse.mail.charsets import decoded
from posthouse.mail.encoded_words import text_of

MAX_PARAMETERS = 100
MAX_VALUE = 8 * 1024
"""Octets of such a field that are looked at."""

_PARAMETER = re.compile(
    rb';[ \t\r\n]*([^\s=;"]{1,60})[ \t\r\n]*=[ \t\r\n]*(?:"((?:[^"\\]|\\.)*)("|\Z)|([^;]*))', re.DOTALL
)
_COMMENT = re.compile(rb"\([^()]*\)[ \t\r\n]*\Z")
_SECTION = re.compile(r"([^*]+)(?:\*(\d{1,3}))?(\*)?\Z")
_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_TOKEN = re.compile(r"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]+\Z")


@dataclass(frozen=True, slots=True)
class Parametrised:
    """The value in lower case, "" where there is none, and the parameters by name."""

    value: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    boundary: bytes = b""
    """That parameter as it stands."""


def parametrised(octets: bytes) -> Parametrised:
    """Parse such a field's value. Nothing in it is an error."""
    octets = octets[:MAX_VALUE]
    head, semicolon, rest = octets.partition(b";")
    value = decoded(_COMMENT.sub(b"", head.strip())).strip().strip('"').lower()
    if not semicolon:
        return Parametrised(value)
    plain: dict[str, bytes] = {}
    sections: dict[str, dict[int, tuple[bytes, bool]]] = {}
    for number, found in enumerate(_PARAMETER.finditer(b";" + rest)):
        if number >= MAX_PARAMETERS:
            break
        given = _PAIR.sub(rb"\1", found[2]) if found[2] is not None else _bare(found[4] or b"")
        name = _SECTION.match(decoded(found[1]).lower())
        if name is None:
            continue
        if name[2] is None and name[3] is None:
            plain.setdefault(name[1], given)
        else:
            sections.setdefault(name[1], {}).setdefault(int(name[2] or 0), (given, name[3] is not None))
    parameters = {name: text_of(given) for name, given in plain.items()}
    # What RFC 2231 says comes before a plain parameter of the same name, which is for older programs.
    joined = {name: _joined(parts) for name, parts in sections.items()}
    return Parametrised(value, parameters | joined, plain.get("boundary", joined.get("boundary", "").encode()))


def media_type_of(value: str) -> str:
    """`type/subtype`; what is none of that is text, as in mail without MIME (RFC 2045 §5.2)."""
    kind, slash, subtype = value.partition("/")
    if slash and _TOKEN.match(kind) and _TOKEN.match(subtype):
        return value
    return "text/plain" if not value or value == "text" else "application/octet-stream"


def _bare(given: bytes) -> bytes:
    """A value without quotes: names with spaces are met, and comments behind."""
    return _COMMENT.sub(b"", given).strip()


def _joined(parts: Mapping[int, tuple[bytes, bool]]) -> str:
    """The sections in their order; the first of them may name the charset (RFC 2231 §3, §4)."""
    charset, octets = "", []
    for order, number in enumerate(sorted(parts)):
        given, is_extended = parts[number]
        if is_extended:
            if not order and given.count(b"'") >= 2:
                name, _, given = given.split(b"'", 2)
                charset = decoded(name)
            given = unquote_to_bytes(given)
        octets.append(given)
    return decoded(b"".join(octets), charset)
