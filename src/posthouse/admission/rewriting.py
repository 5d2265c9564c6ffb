"""Reverse-paths of what aliases lead to other houses: rewritten when it goes, opened when a report comes back.

A report to a rewritten address needs no login to be passed on: that we made the address, for mail that was led on by
us, is what allows it. It leads to that one sender, from the null path alone, and for some weeks.
"""

from __future__ import annotations

from typing import Protocol

from posthouse.mail.address import Address, AddressError, parse_address
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Accepted, JourneyEvent
from posthouse.mail.srs import Srs

SECRET = "srs"
MAX_OPENED = 4
"""Times that one address is opened: two of our houses, each forwarding to the other, wrap each other's."""


class Secrets(Protocol):
    """Where the key is kept."""

    async def secret(self, name: str) -> bytes: ...


class Journeys(Protocol):
    """Who remembers the senders whose addresses are too long to be wrapped."""

    async def read(self, queue_id: QueueId) -> tuple[JourneyEvent, ...]: ...


class Rewriter:
    """Its key is read, or made, when it is first needed."""

    def __init__(self, secrets: Secrets, journeys: Journeys) -> None:
        self._secrets = secrets
        self._journeys = journeys
        self._srs: Srs | None = None

    async def prepare(self) -> Srs:
        """The scheme with its key. Raises StorageError."""
        if self._srs is None:
            self._srs = Srs(await self._secrets.secret(SECRET))
        return self._srs

    def rewrite(self, sender: Address, domain: str, queue_id: QueueId, now: float) -> Address:
        """The sender in a domain of ours; after `prepare`."""
        assert self._srs is not None, "not prepared"
        return self._srs.rewrite(sender, domain, queue_id, now)

    async def open(self, address: Address, now: float | None) -> Address | None:
        """Whom a rewritten address stands for. None: forged, garbled or, at `now`, too old. Raises StorageError."""
        opened = (await self.prepare()).open(address.local_part, now)
        return opened if opened is None or isinstance(opened, Address) else await self._remembered(opened)

    async def _remembered(self, queue_id: QueueId) -> Address | None:
        """Whom the message was from, while its journey is kept."""
        for event in await self._journeys.read(queue_id):
            if isinstance(event, Accepted):
                try:
                    return parse_address(event.reverse_path)
                except AddressError:
                    return None
        return None
