"""Reverse-paths of what aliases lead to other houses: rewritten when it goes, opened when a report comes back.

A report to a rewritten address needs no login to be passed on: that we made the address, for mail that was led on by
us, is what allows it. It leads to that one sender, from the null path alone, and for some weeks.
"""

from __future__ import annotations

from typing import Protocol

from posthouse.admission.routing import Routed
from posthouse.config import Config
from posthouse.mail.address import Address, AddressError, ReversePath, parse_address
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Accepted, JourneyEvent
from posthouse.mail.srs import Srs, is_rewritten
from posthouse.storage.interfaces import Storage

SECRET = "srs"
MAX_OPENED = 4
"""Times that one address is opened: two of our houses, each forwarding to the other, wrap each other's."""


class Secrets(Protocol):
    """Where the key is kept."""

    async def secret(self, name: str) -> bytes: ...


class Journeys(Protocol):
    """Who remembers the senders whose addresses are too long to be wrapped."""

    async def read(self, queue_id: QueueId) -> tuple[JourneyEvent, ...]: ...


class Directory(Protocol):
    """Which domains are ours."""

    async def domains(self) -> tuple[str, ...]: ...


class Rewriter:
    """Its key is read, or made, when it is first needed. `enabled`: whether it rewrites; it always opens."""

    def __init__(
        self, secrets: Secrets, journeys: Journeys, directory: Directory, *, hostname: str, enabled: bool = True
    ) -> None:
        self._secrets = secrets
        self._journeys = journeys
        self._directory = directory
        self._hostname = hostname
        self._enabled = enabled
        self._srs: Srs | None = None

    @classmethod
    def of(cls, storage: Storage, config: Config) -> Rewriter:
        """That of a house."""
        return cls(
            storage.credentials,
            storage.journey,
            storage.directory,
            hostname=config.hostname,
            enabled=config.forwarding.rewrite_senders,
        )

    async def domain_for(self, reverse_path: ReversePath, routed: Routed) -> str:
        """Our domain in which a sender is rewritten: one from elsewhere, whose mail an alias leads elsewhere. "": none.

        Raises StorageError.
        """
        if not self._enabled or reverse_path is None or not routed.is_alias or not routed.remotes:
            return ""
        if await self._is_ours(reverse_path.domain):
            return ""
        await self._prepare()
        return routed.alias_domain

    def rewrite(self, sender: ReversePath, domain: str, queue_id: QueueId, now: float) -> ReversePath:
        """The reverse-path in the domain that `domain_for` said; unchanged where it said none."""
        if sender is None or not domain:
            return sender
        assert self._srs is not None, "domain_for was not asked"
        return self._srs.rewrite(sender, domain, queue_id, now)

    async def open(self, address: Address, now: float | None) -> Address | None:
        """Whom an address stands for that is a rewritten sender of ours; any other is itself.

        None: it only looks like one, or is, at `now`, too old. Raises StorageError.
        """
        for _ in range(MAX_OPENED):
            if not is_rewritten(address.local_part) or not await self._is_ours(address.domain):
                return address
            opened = (await self._prepare()).open(address.local_part, now)
            found = opened if opened is None or isinstance(opened, Address) else await self._remembered(opened)
            if found is None:
                return None
            address = found
        return None

    async def _prepare(self) -> Srs:
        if self._srs is None:
            self._srs = Srs(await self._secrets.secret(SECRET))
        return self._srs

    async def _is_ours(self, domain: str) -> bool:
        return domain == self._hostname or domain in await self._directory.domains()

    async def _remembered(self, queue_id: QueueId) -> Address | None:
        """Whom the message was from, while its journey is kept."""
        for event in await self._journeys.read(queue_id):
            if isinstance(event, Accepted):
                try:
                    return parse_address(event.reverse_path, long=True)
                except AddressError:
                    return None
        return None
