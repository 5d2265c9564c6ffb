"""What a peer says of itself in its reply to EHLO: extensions, limits (RFC 9422), mechanisms (RFC 4954)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LIMIT = re.compile(r"([A-Z0-9-]+)=([1-9][0-9]{0,5})\Z")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the peer takes in one session; None: it does not say. Each counts what is refused, too (RFC 9422 §4).

    `mail_max`: MAIL in a session; `recipients_max`: RCPT in a transaction; `recipient_domains_max`: different domains
    of recipients in a session.
    """

    mail_max: int | None = None
    recipients_max: int | None = None
    recipient_domains_max: int | None = None


def parse_extensions(text: str) -> dict[str, str]:
    """Keywords (upper-case) and parameters of an EHLO reply; its first line names the host."""
    found: dict[str, str] = {}
    for line in text.split("\n")[1:]:
        keyword, _, parameter = line.strip().partition(" ")
        if keyword:
            found.setdefault(keyword.upper(), parameter.strip())
    return found


def parse_limits(extensions: dict[str, str]) -> Limits:
    """The limits of a peer. Unknown and malformed ones are ignored (RFC 9422 §3); the first of a name counts."""
    found: dict[str, int] = {}
    for word in extensions.get("LIMITS", "").upper().split():
        if (match := _LIMIT.match(word)) is not None:
            found.setdefault(match[1], int(match[2]))
    return Limits(found.get("MAILMAX"), found.get("RCPTMAX"), found.get("RCPTDOMAINMAX"))


def parse_mechanisms(extensions: dict[str, str]) -> frozenset[str]:
    """Upper-case names of what AUTH offers."""
    return frozenset(extensions.get("AUTH", "").upper().split())
