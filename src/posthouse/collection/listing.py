"""What a server says that its maildrop holds, under names that stay the same from session to session (RFC 1939 §7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from posthouse.collection.fingerprint import fingerprint
from posthouse.net.pop3_connection import Pop3Connection, Pop3Failed

MAX_UIDL_CHARACTERS = 1000
"""RFC 1939 says 70, some servers send more; what is longer is none."""
BY_HEADER = "header:"
"""Begins the name of a message whose server has no UIDL."""


class NoNames(Exception):
    """The server has neither UIDL nor TOP: nothing could be left there without coming twice."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One message at the server, in this session. `size_octets` is as it claims, 0 where it does not say."""

    number: int
    name: str
    size_octets: int


async def list_messages(connection: Pop3Connection) -> tuple[Listed, ...]:
    """All messages in order; of several with the same name, the first. Raises Pop3Failed, NoNames."""
    sizes = await connection.sizes()
    try:
        uidls = await connection.uidls()
    except Pop3Failed:
        if connection.stream.is_lost:
            raise
        uidls = {}
    if sizes and not uidls:
        names = await _names_by_header(connection, sizes)
    else:
        names = await _told_apart(connection, uidls)
    found: dict[str, Listed] = {}
    for number, name in sorted(names.items()):
        found.setdefault(name, Listed(number, name, sizes.get(number, 0)))
    return tuple(found.values())


async def _names_by_header(connection: Pop3Connection, sizes: Mapping[int, int]) -> dict[int, str]:
    names = {}
    for number in sizes:
        try:
            header = await connection.header(number)
        except Pop3Failed as exc:
            if connection.stream.is_lost:
                raise
            raise NoNames(f"it has neither UIDL nor TOP ({exc})") from exc
        names[number] = f"{BY_HEADER}{fingerprint(header).hex()}"
    return names


async def _told_apart(connection: Pop3Connection, uidls: Mapping[int, str]) -> dict[int, str]:
    """UIDLs that repeat, which RFC 1939 §7 forbids, name different messages by their headers as well."""
    counts = Counter(uidls.values())
    names = {}
    for number, uidl in uidls.items():
        if counts[uidl] > 1 or len(uidl) > MAX_UIDL_CHARACTERS:
            header = await connection.header(number)
            names[number] = f"{uidl[:MAX_UIDL_CHARACTERS]} {fingerprint(header).hex()}"
        else:
            names[number] = uidl
    return names
