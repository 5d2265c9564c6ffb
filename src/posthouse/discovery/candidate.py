"""Servers that an address may have, before and after they were tried."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from posthouse.mail.source import Mechanism, Protection, Server

POP3_TLS, POP3_CLEAR = 995, 110
SUBMISSION_TLS, SUBMISSION_CLEAR = 465, 587


class How(StrEnum):
    """How a server was found, as it is told."""

    DNS = "its DNS records"
    AUTOCONFIG = "its autoconfig"
    USUAL = "a usual name"
    GIVEN = "as given"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A server to be tried. `login`: the name to log in with, "" where the address is.

    `vouched`: the domain itself says so where nobody can forge it, or the server's own name is in the domain, so that
    its certificate proves it. Without that, whoever can forge DNS names the server that gets the password.
    """

    server: Server
    how: How
    vouched: bool
    login: str = ""
    wants_token: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """A server that answered over a connection that is protected, and what it takes for a login."""

    candidate: Candidate
    mechanisms: frozenset[Mechanism]


def is_inside(host: str, domain: str) -> bool:
    """Whether a host's name is the domain or in it."""
    return host == domain or host.endswith(f".{domain}")


def protection_of(port: int) -> Protection:
    """What is spoken at the usual ports; elsewhere STARTTLS."""
    return Protection.IMPLICIT if port in (POP3_TLS, SUBMISSION_TLS) else Protection.STARTTLS
