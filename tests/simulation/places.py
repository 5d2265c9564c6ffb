"""Who lives where: houses with accounts and aliases, and hosts of the outside world."""

from __future__ import annotations

TRUSTED = "198.51.100.0/24"
CLIENT = "198.51.100.7"
"""Whoever sends from here may relay."""
STRANGER = "203.0.113.7"
ACCOUNTS = ("ann", "bob")
PASSWORD = "correct horse battery"
GOOD = "good.test"
ODD = "odd.test"
DEAD = "dead.test"
"""Nobody ever answers there."""
NOWHERE = "nowhere.test"
"""A domain that does not exist."""
NULL = "null.test"
"""A domain that takes no mail (RFC 7505)."""


def domain_of(number: int) -> str:
    return f"{'abc'[number]}.test"


def address_of(number: int) -> str:
    return f"192.0.2.{number + 1}"


OUTSIDE = {GOOD: "192.0.2.101", ODD: "192.0.2.102"}
DEAD_ADDRESS = "192.0.2.199"


def kinds_of_alias(number: int, count: int) -> dict[str, tuple[str, ...]]:
    """The aliases of a house and where they lead."""
    here, there = domain_of(number), domain_of((number + 1) % count)
    return {
        "home": (f"ann@{here}", f"bob@{here}"),
        "away": (f"ann@{there}",),
        "far": (f"away@{there}",),
        "out": (f"sink@{GOOD}",),
        "both": (f"ann@{here}", f"bob@{there}", f"sink@{ODD}"),
        "late": (f"x@{DEAD}",),
        "wrong": (f"nobody@{GOOD}",),
        "loop": (f"loop@{there}",),
    }


def recipients(number: int, count: int) -> tuple[str, ...]:
    """Whom mail through this house may be for; those that all is well with more often."""
    here, there = domain_of(number), domain_of((number + 1) % count)
    good = (f"ann@{here}", f"bob@{here}", f"ann@{there}", f"bob@{there}", f"sink@{GOOD}", f"sink@{ODD}")
    aliases = tuple(f"{alias}@{here}" for alias in kinds_of_alias(number, count))
    odd = (
        f"nobody@{GOOD}",
        f"grey@{ODD}",
        f"full@{ODD}",
        f"content@{ODD}",
        f"x@{DEAD}",
        f"x@{NOWHERE}",
        f"x@{NULL}",
        f"unknown@{here}",
        f"unknown@{there}",
    )
    return good * 2 + aliases + odd
