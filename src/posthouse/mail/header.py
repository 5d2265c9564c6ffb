"""Header fields that we write ourselves (RFC 5322 §2.2, §3.3). Fields that we received are never rewritten."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def date_time(now: float) -> str:
    """`now` (Unix seconds) as RFC 5322 §3.3 writes it, in UTC with a numeric zone."""
    return format_datetime(datetime.fromtimestamp(int(now), UTC))


def field(name: str, value: str) -> bytes:
    """One header field. `value` may be folded beforehand as CRLF and white space; any other control is a bug."""
    for line in value.split("\r\n"):
        assert not _CONTROL.search(line), "a control character in a header field"
    assert "\r\n" not in re.sub(r"\r\n[ \t]+[^ \t\r\n]", "", value), "a field folded without white space"
    return f"{name}: {value}\r\n".encode()
