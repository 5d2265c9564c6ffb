"""Mail that an alias led away and that came back to it (RFC 5321 §6.3).

A limit on hops alone ends a circle, but where an alias leads to two houses that both send back, each round doubles the
messages, and a hundred hops are fifty rounds. So what a single alias leads away carries the alias's name in a
Delivered-To field, as with other mail systems; who finds its own name there refuses.
"""

from __future__ import annotations

from collections.abc import Sequence

from posthouse.mail.address import Address, AddressError, parse_address, unquoted


def are_in_circles(aliases: Sequence[Address | None], delivered_to: Sequence[str]) -> bool:
    """Whether a message that names these is only for aliases that led it away before.

    There is one reply for all recipients, so it goes on while one is no such alias (None).
    """
    return all(alias is not None and came_back(alias, delivered_to) for alias in aliases)


def came_back(alias: Address, delivered_to: Sequence[str]) -> bool:
    """Whether a message that names these was led away by the alias before, whatever `+detail` it had then."""
    return any(_name(value) == _key(alias) for value in delivered_to)


def _name(value: str) -> tuple[str, str] | None:
    try:
        return _key(parse_address(value))
    except AddressError:
        return None


def _key(address: Address) -> tuple[str, str]:
    local_part = unquoted(address.key.rpartition("@")[0])
    return local_part.partition("+")[0] or local_part, address.domain
