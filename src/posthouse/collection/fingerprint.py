"""What a message is known by where a server gives it another UIDL: the fields that nobody changes."""

from __future__ import annotations

import hashlib
import re
from typing import Final

NAMES: Final = (b"message-id", b"date", b"from", b"to", b"subject")
MAX_VALUE_OCTETS: Final = 4000

_FIELD = re.compile(rb"(?:\A|\r?\n)([!-9;-~]+)[ \t]*:((?:[^\r\n]|\r?\n[ \t])*)")


def fingerprint(header: bytes) -> bytes:
    """Of a header section: 32 octets, the same however its lines are folded and whatever fields are added above it."""
    found: dict[bytes, bytes] = {}
    for name, value in _FIELD.findall(header):
        if (lowered := name.lower()) in NAMES:
            found.setdefault(lowered, b" ".join(value.split())[:MAX_VALUE_OCTETS])
    digest = hashlib.sha256()
    for name in NAMES:
        digest.update(b"%b:%b\n" % (name, found.get(name, b"")))
    return digest.digest()


def has_message_id(header: bytes) -> bool:
    """Whether the header section says which message it is (RFC 5322 §3.6.4)."""
    return any(name.lower() == b"message-id" and value.strip() for name, value in _FIELD.findall(header))
