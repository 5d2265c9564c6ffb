"""Surrogates: what a session that did not ask for UTF8 gets of a message that needs it (RFC 6856 §2.1, §4).

A refusal (`-ERR [UTF8]`) would leave the user of an older program without the message, and some programs without
all that follow it; so there is a surrogate, and LIST tells the surrogate's size. A message that came with an 8-bit
header but without SMTPUTF8 never was internationalised mail; nobody knows its charset, and it goes out as it came.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from posthouse.mail.content import MAX_HEADER_OCTETS
from posthouse.mail.ids import AccountId, Uid
from posthouse.mail.maildrop import Listing
from posthouse.retrieval.downgrade import downgraded
from posthouse.storage.interfaces import Maildrops

REMEMBERED = 100_000
_LIMIT_OCTETS = 2 * MAX_HEADER_OCTETS
"""Reception takes no longer header section, and our own fields are few."""


class Surrogates:
    """The surrogates of one house. How much longer they are is remembered: stored octets never change."""

    def __init__(self, maildrops: Maildrops) -> None:
        self._maildrops = maildrops
        self._growth: OrderedDict[tuple[AccountId, Uid], int] = OrderedDict()

    async def sizes(self, account: AccountId, listing: Listing) -> Listing:
        """The listing with the sizes of surrogates."""
        sizes = [
            size + await self._growth_octets(account, uid) if uid in listing.internationalised else size
            for uid, size in zip(listing.uids, listing.sizes_octets, strict=True)
        ]
        return replace(listing, sizes_octets=tuple(sizes))

    async def read(self, account: AccountId, uid: Uid) -> AsyncGenerator[bytes, None]:
        """An entry's surrogate, in chunks. Raises what `Maildrops.read` raises."""
        held = b""
        in_header = True
        async with aclosing(self._maildrops.read(account, uid)) as chunks:
            async for chunk in chunks:
                if not in_header:
                    yield chunk
                    continue
                held += chunk
                end = _header_end(held)
                if end is not None:
                    in_header = False
                    yield downgraded(held[:end]) + held[end:]
                    held = b""
        if in_header and held:
            yield downgraded(held)

    async def _growth_octets(self, account: AccountId, uid: Uid) -> int:
        key = (account, uid)
        if key not in self._growth:
            self._growth[key] = await self._measure(account, uid)
            if len(self._growth) > REMEMBERED:
                self._growth.popitem(last=False)
        return self._growth[key]

    async def _measure(self, account: AccountId, uid: Uid) -> int:
        """0 for an entry that is gone: RETR will say so."""
        held = b""
        try:
            async with aclosing(self._maildrops.read(account, uid)) as chunks:
                async for chunk in chunks:
                    held += chunk
                    if (end := _header_end(held)) is not None:
                        return len(downgraded(held[:end])) - end
        except KeyError:
            return 0
        return len(downgraded(held)) - len(held)


def _header_end(octets: bytes) -> int | None:
    """Where the header section ends: before the empty line, or where it is longer than any may be."""
    if octets.startswith(b"\r\n"):
        return 0
    at = octets.find(b"\r\n\r\n")
    if at >= 0:
        return at + 2
    return 0 if len(octets) > _LIMIT_OCTETS else None
