"""What a session of the server half offers and demands: its options, and the EHLO keywords that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

ALWAYS_POSSIBLE: frozenset[str] = frozenset(
    {"PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "DSN", "CHUNKING", "LIMITS"}
)
"""What needs neither a certificate nor accounts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What this session offers and demands. `extensions` are EHLO keywords; AUTH and STARTTLS have their own switch.

    `auth_after_tls`: AUTH is offered once there is TLS, and refused with 538 until then. `max_messages` counts the
    transactions of a session, None: without end.
    """

    hostname: str
    message_size_octets: int
    auth_mechanisms: tuple[str, ...] = ()
    auth_required: bool = False
    auth_after_tls: bool = False
    starttls: bool = False
    max_recipients: int = 1000
    max_messages: int | None = None
    extensions: frozenset[str] = ALWAYS_POSSIBLE


LARGEST_LIMIT = 999_999
"""A value of LIMITS has six digits (RFC 9422 §4)."""


def _limits(options: ServerOptions) -> str:
    limits = {"RCPTMAX": options.max_recipients, "MAILMAX": options.max_messages}
    return " ".join(f"{name}={limit}" for name, limit in limits.items() if limit and limit <= LARGEST_LIMIT)


EXTENSIONS: dict[str, Callable[[ServerOptions], str]] = {
    "PIPELINING": lambda _: "",
    "SIZE": lambda options: str(options.message_size_octets),
    "8BITMIME": lambda _: "",
    "ENHANCEDSTATUSCODES": lambda _: "",
    "SMTPUTF8": lambda _: "",
    "DSN": lambda _: "",
    "CHUNKING": lambda _: "",
    "LIMITS": _limits,
    "AUTH": lambda options: " ".join(options.auth_mechanisms),
    "STARTTLS": lambda _: "",
}
"""What the core knows how to offer, in the order of the EHLO reply, each with its parameter."""


def offered_keywords(options: ServerOptions) -> frozenset[str]:
    """The keywords in force: what is switched on and known."""
    switched = {keyword for keyword, on in (("AUTH", options.auth_mechanisms), ("STARTTLS", options.starttls)) if on}
    impossible = set() if _limits(options) else {"LIMITS"}
    return frozenset((options.extensions | switched) & EXTENSIONS.keys()) - impossible


def keyword_lines(options: ServerOptions) -> list[str]:
    """The lines of the EHLO reply after its first one, each a keyword with its parameter (RFC 5321 §4.1.1.1)."""
    offered = offered_keywords(options)
    return [
        f"{keyword} {parameter(options)}".rstrip() for keyword, parameter in EXTENSIONS.items() if keyword in offered
    ]
