"""Header fields that came, as text: encoded words (RFC 2047), raw octets (RFC 6532 and worse), folds.

One pass with a pattern that cannot backtrack; what is not right stays as it stands.
"""

from __future__ import annotations

import binascii
import re

from posthouse.mail.charsets import decoded
from posthouse.mail.transfer import base64_decoded

MAX_FIELD_OCTETS = 64 * 1024
"""Of one field that is looked at."""

# Spaces inside are not allowed (RFC 2047 §2) and are met all the same. The language of RFC 2231 §5 is let go.
_WORD = re.compile(rb"=\?([A-Za-z0-9_.:+\-]{1,40})(?:\*[A-Za-z0-9\-]{0,20})?\?([bBqQ])\?([^?\r\n]{0,4000})\?=")
_SPACE = re.compile(rb"[ \t\r\n]*\Z")


def text_of(value: bytes) -> str:
    """A field's value on one line. It may hold any character: make it `visible` before it is shown."""
    value = value[:MAX_FIELD_OCTETS]
    pieces: list[str] = []
    waiting, charset, at = b"", "", 0
    for word in _WORD.finditer(value):
        between = value[at : word.start()]
        name = word[1].decode("ascii")
        if not (waiting and _SPACE.match(between)):
            pieces += (decoded(waiting, charset), decoded(between))
            waiting = b""
        elif name.lower() != charset.lower():
            pieces.append(decoded(waiting, charset))
            waiting = b""
        # A character may be cut between two words, which is wrong, and common.
        waiting += _octets(word[2], word[3])
        charset, at = name, word.end()
    pieces += (decoded(waiting, charset), decoded(value[at:]))
    return " ".join("".join(pieces).split())


def _octets(encoding: bytes, encoded: bytes) -> bytes:
    if encoding in b"bB":
        return base64_decoded(encoded)
    return binascii.a2b_qp(encoded, header=True)
