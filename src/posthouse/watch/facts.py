"""What is asked of the store, the disk and the certificates when somebody looks; not more often than it is worth."""

from __future__ import annotations

import math
import platform
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

from posthouse import __version__
from posthouse.config import Config
from posthouse.doors import certificate_pairs
from posthouse.log import Log
from posthouse.mail.spool import QueueDepth
from posthouse.mail.world import Clock
from posthouse.metrics import HouseFacts
from posthouse.net.certificate_facts import certificate_facts
from posthouse.net.tls import CertificateUnusable
from posthouse.storage.interfaces import Storage
from posthouse.storage.upkeep import Sizes

QUEUE_KEEP_S = 5.0
SIZES_KEEP_S = 5.0
CERTIFICATES_KEEP_S = 60.0
SHARE = 50
"""What took long is kept so many times as long: a deep queue is counted less often, for 2 % of a processor."""
EVERY_OTHER_NAME = "*"

T = TypeVar("T")


class Kept(Generic[T]):
    """An answer that is good for a while. What cannot be found out is None, and told."""

    def __init__(self, what: str, find: Callable[[], Awaitable[T]], keep_s: float, clock: Clock, log: Log) -> None:
        self._what = what
        self._find = find
        self._keep_s = keep_s
        self._clock = clock
        self._log = log
        self._answer: T | None = None
        self._good_until = -math.inf

    async def get(self) -> T | None:
        began = self._clock.monotonic()
        if began < self._good_until:
            return self._answer
        try:
            self._answer = await self._find()
        except Exception as exc:  # noqa: BLE001  (the rest of what is asked for is told all the same)
            self._log.warning("not found out", what=self._what, reason=str(exc) or type(exc).__name__)
            self._answer = None
        now = self._clock.monotonic()
        self._good_until = now + max(self._keep_s, SHARE * (now - began))
        return self._answer


class Facts:
    """Of one house, as its configuration is now."""

    def __init__(self, storage: Storage, config: Callable[[], Config], clock: Clock, log: Log) -> None:
        self._clock = clock
        self._config = config
        self._queue: Kept[QueueDepth] = Kept("queue", storage.spool.depth, QUEUE_KEEP_S, clock, log)
        self.sizes: Kept[Sizes] = Kept("sizes", storage.sizes, SIZES_KEEP_S, clock, log)
        self._expiries: Kept[dict[str, float]] = Kept("certificates", self._expire, CERTIFICATES_KEEP_S, clock, log)

    async def gather(self, *, ready: bool, workers: Mapping[int, bool]) -> HouseFacts:
        depth, sizes, now = await self._queue.get(), await self.sizes.get(), self._clock.now()
        queue = {"waiting": depth.waiting, "held": depth.held, "claimed": depth.claimed} if depth is not None else None
        parts = (
            {"database": sizes.database_octets, "log": sizes.log_octets, "content": sizes.content_octets}
            if sizes is not None
            else None
        )
        return HouseFacts(
            ready=ready,
            build={"version": __version__, "python": platform.python_version()},
            queue=queue,
            queue_oldest_s=_since(depth.oldest_at if depth is not None else None, now),
            queue_overdue_s=_since(depth.due_since if depth is not None else None, now),
            storage_octets=parts,
            disk_free_octets=sizes.disk_free_octets if sizes is not None else 0,
            disk_octets=sizes.disk_octets if sizes is not None else 0,
            certificates=await self._expiries.get() or {},
            workers=workers,
        )

    async def _expire(self) -> dict[str, float]:
        """When each certificate ends, as the files hold it now: that is what the next handshake gets."""
        pairs = certificate_pairs(self._config())
        if pairs is None:
            return {}
        found: dict[str, float] = {}
        for host, pair in ((EVERY_OTHER_NAME, pairs.default), *pairs.named.items()):
            try:
                found[host] = certificate_facts(pair.certificate).expires_at
            except CertificateUnusable:
                # The log says so when a handshake looks; what expires is the one that stays in use.
                continue
        return found


def _since(at: float | None, now: float) -> float:
    return max(0.0, now - at) if at is not None else 0.0
