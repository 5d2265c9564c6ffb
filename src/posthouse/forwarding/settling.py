"""What attempts came to, written with the reports that they cause and the journey's events, in one transaction each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from posthouse.admission.reports import Reports
from posthouse.forwarding.attempt import Attempt
from posthouse.forwarding.bounce import Bouncer
from posthouse.forwarding.schedule import RetrySchedule
from posthouse.forwarding.transaction import OUR_SIDE
from posthouse.forwarding.verdict import Verdict, judge, without_report
from posthouse.log import Log
from posthouse.mail.journey import Attempted, JourneyEvent
from posthouse.mail.spool import Claim, Settled, Settlement, SpoolRow
from posthouse.mail.world import Clock, Random
from posthouse.storage.errors import StorageBusy, StorageError
from posthouse.storage.interfaces import Storage

SETTLE_TRIES = 5


class ReportNotMade(StorageError):
    """A report could not be made now; the outcomes themselves might be written."""


class Settler:
    """Writes outcomes, however long storage takes: one that is forgotten is an attempt repeated."""

    def __init__(
        self,
        storage: Storage,
        bouncer: Bouncer,
        schedule: RetrySchedule,
        clock: Clock,
        random: Random,
        log: Log,
        *,
        after_error_s: float,
    ) -> None:
        self._storage = storage
        self._bouncer = bouncer
        self._schedule = schedule
        self._clock = clock
        self._random = random
        self._log = log
        self._after_error_s = after_error_s

    async def settle(self, claim: Claim, attempt: Attempt) -> bool:
        """Write what became of an attempt; False: the claim was lost, and nothing was written."""
        now = self._clock.now()
        verdicts = [
            judge(
                row,
                outcome,
                self._schedule,
                now,
                self._random,
                reports_passed_on=attempt.reports_passed_on,
                not_before=attempt.not_before,
            )
            for row, outcome in zip(attempt.rows, attempt.outcomes, strict=True)
        ]
        verdicts = await self._bouncer.in_pace(verdicts, now)
        settled: bool | None = None
        tries = 0
        while settled is None:
            try:
                settled = await self._write(claim, attempt, verdicts, now)
            except Exception as exc:  # noqa: BLE001
                # A report that cannot be written must not stand in the way of the others' outcomes; storage that
                # takes nothing at all now says nothing against the report.
                self._log.warning("outcome not written yet", exc_info=True)
                tries += not isinstance(exc, StorageBusy)
                if tries >= SETTLE_TRIES or not isinstance(exc, StorageError):
                    verdicts = [without_report(verdict, self._schedule, now) for verdict in verdicts]
                await asyncio.sleep(self._after_error_s)
        if not settled:
            self._log.warning("claim was lost", queue_id=attempt.rows[0].message.queue_id)
            return False
        for verdict in verdicts:
            self._tell(attempt, verdict)
        return True

    async def give_back(self, claim: Claim, rows: Iterable[SpoolRow], not_before: float) -> None:
        """Release rows that were not settled; those that are not ours any more stay as they are."""
        for row in rows:
            settled = Settled(
                queue_id=row.message.queue_id,
                recipient_number=row.recipient_number,
                not_before=not_before,
                last_reply=row.last_reply or str(OUR_SIDE),
            )
            released = False
            while not released:
                try:
                    await self._storage.settle(Settlement(token=claim.token, rows=(settled,)))
                    released = True
                except Exception:  # noqa: BLE001
                    self._log.warning("claim not released yet", exc_info=True)
                    await asyncio.sleep(self._after_error_s)

    async def _write(self, claim: Claim, attempt: Attempt, verdicts: Sequence[Verdict], now: float) -> bool:
        reports = Reports()
        try:
            try:
                await self._bouncer.add_reports(reports, attempt, verdicts, now)
            except StorageBusy as exc:
                raise ReportNotMade from exc
            settlement = Settlement(
                token=claim.token,
                rows=tuple(verdict.settled for verdict in verdicts),
                generated=tuple(reports.acceptances),
                events=(*_events(attempt, verdicts, now), *reports.events),
            )
            return await self._storage.settle(settlement)
        finally:
            await reports.discard()

    def _tell(self, attempt: Attempt, verdict: Verdict) -> None:
        self._log.info(
            "attempt ended",
            queue_id=verdict.row.message.queue_id,
            forward_path=str(verdict.row.forward_path),
            outcome=verdict.outcome_name,
            next_hop=attempt.next_hop,
            reply=str(verdict.outcome.reply),
            attempt=verdict.row.attempts,
            duration_ms=round(attempt.duration_s * 1000, 1),
        )


def _events(attempt: Attempt, verdicts: Sequence[Verdict], now: float) -> list[JourneyEvent]:
    """One event for each recipient. The dialogue stands in the first only: it is the same for all of them."""
    return [
        Attempted(
            queue_id=verdict.row.message.queue_id,
            at=now,
            forward_path=str(verdict.row.forward_path),
            outcome=verdict.outcome_name,
            reply=str(verdict.outcome.reply),
            from_peer=verdict.from_peer,
            next_hop=attempt.next_hop,
            address=attempt.address,
            attempt=verdict.row.attempts,
            duration_s=round(attempt.duration_s, 4),
            next_at=verdict.settled.not_before,
            transcript=attempt.transcript if index == 0 else (),
            transcript_ms=attempt.transcript_ms if index == 0 else (),
        )
        for index, verdict in enumerate(verdicts)
    ]
