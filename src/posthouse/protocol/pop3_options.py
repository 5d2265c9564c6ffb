"""What a POP3 door offers, and how CAPA and LANG list it (RFC 2449 §5, §6; RFC 6856 §2, §3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from posthouse.protocol.pop3 import RESPONSE_LIMIT_OCTETS

LANGUAGES: Final = {"i-default": "", "en": "English"}
"""The languages of our texts, with their names in themselves. All our texts are English, and ASCII."""
PREFERRED_LANGUAGE: Final = "en"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pop3Options:
    """What this connection offers."""

    hostname: str
    offer_login: bool = True
    """USER and PASS; False on a connection whose octets anybody may read."""
    mechanisms: tuple[str, ...] = ()
    """For AUTH (RFC 5034); empty: there is no AUTH."""
    stls: bool = False
    """STLS (RFC 2595 §4): there is a certificate, and no TLS yet."""
    login_delay_s: int | None = None
    """The least number of seconds between two logins that the driver enforces (RFC 2449 §6.5)."""
    implementation: str | None = "Posthouse"


def capabilities(options: Pop3Options, *, before_login: bool) -> Iterator[str]:
    """RFC 2449 §6. Both states list the same, as §5 demands, but for STLS: RFC 2595 §4 wants it before a login only.

    EXPIRE NEVER: nothing in the house removes a message from a maildrop but its owner (§6.7).
    """
    yield from ("TOP", "UIDL")
    if options.offer_login:
        yield "USER"
    if options.mechanisms:
        yield " ".join(("SASL", *options.mechanisms))
    if options.stls and before_login:
        yield "STLS"
    yield from ("RESP-CODES", "AUTH-RESP-CODE", "PIPELINING")
    if options.login_delay_s is not None:
        yield f"LOGIN-DELAY {options.login_delay_s}"
    yield from ("EXPIRE NEVER", "UTF8 USER", "LANG")
    if options.implementation:
        yield f"IMPLEMENTATION {options.implementation}"[: RESPONSE_LIMIT_OCTETS - 2]


def find_language(language_range: str) -> str | None:
    """The language for a basic language range: its own, or what is left of it from the right (RFC 4647 §3.4)."""
    wanted = language_range.lower()
    if wanted == "*":
        return PREFERRED_LANGUAGE
    while wanted:
        if wanted in LANGUAGES:
            return wanted
        wanted = wanted.rpartition("-")[0]
    return None
