"""Durations, sizes, moments and foreign text as a person reads them. Used by reports, the demo and the command line."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime

CUT_CHARACTERS = 400
_UNITS = ("KB", "MB", "GB", "TB")
# Not strftime's, which follow the locale.
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def duration(seconds: float) -> str:
    """`340 ms`, `2.5 s`, `2 min 5 s`, `3 days 4 h`: two units at most, rounded. What is negative (clocks jump) is 0."""
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{round(seconds * 1000)} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole_seconds, minutes, hours = round(seconds), round(seconds / 60), round(seconds / 3600)
    if whole_seconds < 60:
        return f"{whole_seconds} s"
    if whole_seconds < 3600:
        return _two_units(whole_seconds, 60, "min", "s")
    if minutes < 24 * 60:
        return _two_units(minutes, 60, "h", "min")
    days = hours // 24
    return _two_units(hours, 24, "day" if days == 1 else "days", "h")


def _two_units(count: int, factor: int, large: str, small: str) -> str:
    whole, rest = divmod(count, factor)
    return f"{whole} {large} {rest} {small}" if rest else f"{whole} {large}"


def size(octets: int) -> str:
    """`812 octets`, `4.1 KB`, `25 MB`; a KB is 1000 octets."""
    if octets < 1000:
        return count(octets, "octet", "octets")
    amount, power = octets / 1000, 0
    while amount >= 999.5 and power < len(_UNITS) - 1:
        amount, power = amount / 1000, power + 1
    figure = f"{amount:.1f}".removesuffix(".0") if amount < 9.95 else f"{amount:.0f}"
    return f"{figure} {_UNITS[power]}"


def moment(at: float) -> str:
    """A Unix time in words, to the minute, in UTC: `3 March 2026, 10:12 UTC`."""
    utc = datetime.fromtimestamp(int(at), UTC)
    return f"{utc.day} {_MONTHS[utc.month - 1]} {utc.year}, {utc:%H:%M} UTC"


def count(number: int, one: str, many: str) -> str:
    """`1 recipient`, `3 recipients`."""
    return f"{number} {one if number == 1 else many}"


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th`, `11th`, `21st`."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def some(names: Sequence[str], shown: int = 3) -> str:
    """`a`, `a and b`, `a, b, c and 9 more`."""
    if len(names) > shown:
        return f"{', '.join(names[:shown])} and {len(names) - shown} more"
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def visible(text: str) -> str:
    """The text with everything that could steer a terminal, a log or a page written as an escape.

    Control, format (bidirectional overrides), private and unassigned characters and line ends become `\\xNN` or
    `\\uNNNN`; the rest stays as it is.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else _escaped(c) for c in text)


def cut(text: str, characters: int = CUT_CHARACTERS, mark: str = "…") -> str:
    """The beginning of a text that may be long; `mark` stands for the rest, where there is one."""
    return text if len(text) <= characters else text[: characters - len(mark)] + mark


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
