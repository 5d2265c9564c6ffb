"""Telling postmaster of accounts that reached their sending limit. What is held in storage is all there is to know."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from posthouse.admission.admission import Admission
from posthouse.log import Log
from posthouse.mail.acceptance import LimitTold
from posthouse.mail.address import Address
from posthouse.mail.content import ContentScanner
from posthouse.mail.ids import new_queue_id
from posthouse.mail.limit_notice import OverLimit, limit_notice
from posthouse.mail.world import Clock, Random
from posthouse.storage.errors import StorageError
from posthouse.storage.interfaces import Storage


class LimitNotices:
    """One process of a house calls `tell` from time to time."""

    def __init__(self, storage: Storage, clock: Clock, random: Random, log: Log) -> None:
        self._storage = storage
        self._clock = clock
        self._random = random
        self._log = log

    async def tell(self, admission: Admission) -> int:
        """Accept a message to postmaster for each account that is over its limit; how many. Raises StorageError."""
        told = 0
        for over in await self._storage.spool.over_limit(self._clock.now()):
            told += await self._tell(admission, over)
        return told

    async def _tell(self, admission: Admission, over: OverLimit) -> bool:
        hostname, now = admission.rules.hostname, self._clock.now()
        queue_id = new_queue_id(now, self._random)
        default_limit = admission.rules.recipients_per_hour
        octets = limit_notice(over, default_limit=default_limit, queue_id=queue_id, now=now, hostname=hostname)
        scanner = ContentScanner()
        scanner.feed(octets)
        draft = await self._storage.content.draft()
        try:
            await draft.write(octets)
            acceptance = await admission.plan_report(
                Address("postmaster", hostname),
                await draft.seal(scanner.facts()),
                about=over.last,
                queue_id=queue_id,
                eight_bit=not octets.isascii(),
                smtputf8=False,
            )
            if acceptance is None:
                self._log.error("postmaster leads nowhere, and is not told of a sending limit", login=over.login)
                return False
            limit_told = LimitTold(account=over.account, up_to=over.last)
            await self._storage.accept(replace(acceptance, limit_told=limit_told))
        finally:
            with suppress(StorageError):
                await draft.discard()
        self._log.warning("sending limit reached", login=over.login, held=over.recipients, told=queue_id)
        return True
