"""The Subject of a message that may be anything, as a person wrote it (RFC 5322 §3.6.5, RFC 2047)."""

from __future__ import annotations

import re
from email.errors import MessageError
from email.header import decode_header, make_header

_SUBJECT = re.compile(rb"(?:\A|\r\n)subject[ \t]*:((?:[^\r\n]|\r\n[ \t])*)", re.IGNORECASE)
_MAX_OCTETS = 2000


def title_of(beginning: bytes) -> str:
    """The Subject with its encoded words read, "" where there is none. It may hold any character."""
    # What begins with an empty line has no header section.
    header = b"" if beginning.startswith(b"\r\n") else beginning.partition(b"\r\n\r\n")[0]
    found = _SUBJECT.search(header)
    if found is None:
        return ""
    raw = found[1][:_MAX_OCTETS].replace(b"\r\n", b"").decode("utf-8", "replace")
    if "=?" not in raw:
        return " ".join(raw.split())
    try:
        raw = str(make_header(decode_header(raw)))
    except (MessageError, ValueError, LookupError):
        # Not what RFC 2047 allows: as it stands.
        pass
    return " ".join(raw.split())
