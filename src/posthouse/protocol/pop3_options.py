"""What a POP3 door offers, and how CAPA lists it (RFC 2449 §5, §6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from posthouse.protocol.pop3 import RESPONSE_LIMIT_OCTETS


@dataclass(frozen=True, slots=True, kw_only=True)
class Pop3Options:
    """What this connection offers."""

    hostname: str
    offer_login: bool = True
    """USER and PASS; False on a connection whose octets anybody may read."""
    implementation: str | None = "Posthouse"


def capabilities(options: Pop3Options) -> Iterator[str]:
    """RFC 2449 §6. Both states list the same, as §5 demands of those that matter before a login."""
    yield from ("TOP", "UIDL")
    if options.offer_login:
        yield "USER"
    yield from ("RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER")
    if options.implementation:
        yield f"IMPLEMENTATION {options.implementation}"[: RESPONSE_LIMIT_OCTETS - 2]
