"""Bugs, planted one at a time: a simulation that finds nothing has to show that it could."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import apsw

from posthouse.forwarding.bounce import Bouncer
from posthouse.forwarding.schedule import RetrySchedule
from posthouse.forwarding.settling import Settler
from posthouse.mail.acceptance import Acceptance
from posthouse.mail.address import parse_address
from posthouse.mail.outcome import Deferred
from posthouse.mail.reply import Reply, reply
from posthouse.protocol.pop3_events import Update
from posthouse.reception.session import SmtpSession
from posthouse.retrieval.session import Pop3Session
from posthouse.storage.errors import StorageError
from posthouse.storage.sqlite import connection, schema, settle
from posthouse.storage.sqlite.content import SqliteDraft
from posthouse.storage.sqlite.storage import SqliteStorage

Plant = Callable[[], AbstractContextManager[Any]]


@contextmanager
def early_250() -> Iterator[None]:
    """The 250 leaves half a second before the commit."""
    accept = SqliteStorage.accept

    async def soon(self: SqliteStorage, acceptance: Acceptance) -> None:
        def commit() -> None:
            if self._open:
                work = accept(self, acceptance)
                try:
                    work.send(None)
                except (StopIteration, StorageError):
                    pass

        asyncio.get_running_loop().call_later(0.5, commit)

    async def kept(_self: SqliteDraft) -> None: ...

    with patch.object(SqliteStorage, "accept", soon), patch.object(SqliteDraft, "discard", kept):
        yield


def settled_without_claim() -> AbstractContextManager[Any]:
    """Whoever has an outcome writes it, whose claim it is does not matter."""
    return patch.object(settle, "OURS", "SELECT ?1 || ?2 || ?3 || ?4")


@contextmanager
def report_about_report() -> Iterator[None]:
    """What came from the null path is returned to a postmaster."""
    add_reports = Bouncer.add_reports

    async def add(self: Bouncer, reports: Any, attempt: Any, verdicts: Any, now: float) -> None:
        somebody = parse_address("ann@a.test")
        told = [
            verdict if verdict.row.reverse_path else replace(verdict, row=replace(verdict.row, reverse_path=somebody))
            for verdict in verdicts
        ]
        await add_reports(self, reports, attempt, told, now)

    with patch.object(Bouncer, "add_reports", add):
        yield


@contextmanager
def partial_success_retried() -> Iterator[None]:
    """Where one recipient of a transaction has to wait, all of them do."""
    settle = Settler.settle

    async def settled(self: Settler, claim: Any, attempt: Any) -> bool:
        if any(isinstance(outcome, Deferred) for outcome in attempt.outcomes):
            later = Deferred(reply(451, "4.3.0", "later"), from_peer=False)
            attempt = replace(attempt, outcomes=(later,) * len(attempt.rows))
        return await settle(self, claim, attempt)

    with patch.object(Settler, "settle", settled):
        yield


@contextmanager
def unsynced_commits() -> Iterator[None]:
    """A commit is not synced before it is answered (SQLite's synchronous=NORMAL in WAL mode)."""
    opened = connection.open_writable

    def unsynced(*arguments: Any, **named: Any) -> apsw.Connection:
        writable = opened(*arguments, **named)
        writable.execute("PRAGMA synchronous=NORMAL")
        return writable

    with patch.object(schema, "open_writable", unsynced):
        yield


@contextmanager
def expunge_before_quit() -> Iterator[None]:
    """What was marked is deleted however the session ends."""
    converse = Pop3Session._converse

    async def expunging(self: Pop3Session) -> None:
        try:
            await converse(self)
        finally:
            maildrop = self.pop3._maildrop
            if maildrop is not None and maildrop.marked and not self._deleted:
                try:
                    await self._handle(Update(maildrop.marked))
                except Exception:
                    # There is no QUIT to be answered.
                    pass

    with patch.object(Pop3Session, "_converse", expunging):
        yield


@contextmanager
def refused_but_stored() -> Iterator[None]:
    """The reply says that it was not stored when it was."""
    accept = SmtpSession._accept

    async def refusing(self: SmtpSession, transaction: Any, intake: Any) -> Reply:
        answer = await accept(self, transaction, intake)
        return reply(451, "4.3.0", "not now") if len(transaction.recipients) > 1 else answer

    with patch.object(SmtpSession, "_accept", refusing):
        yield


@contextmanager
def no_claims_freed() -> Iterator[None]:
    """The claims of a process that died are nobody's for ever."""

    async def nothing(*_arguments: Any) -> bool:
        return False

    with patch("posthouse.storage.sqlite.storage.take_over_dead", nothing):
        yield


def late_expiry() -> AbstractContextManager[Any]:
    """What a clock accepted that was a year ahead expires a year later."""
    return patch.object(RetrySchedule, "expiry", lambda _schedule, _now, expires_at: expires_at)


PLANTED: dict[str, Plant] = {
    "early-250": early_250,
    "settled-without-claim": settled_without_claim,
    "report-about-report": report_about_report,
    "partial-success-retried": partial_success_retried,
    "unsynced-commits": unsynced_commits,
    "expunge-before-quit": expunge_before_quit,
    "refused-but-stored": refused_but_stored,
    "no-claims-freed": no_claims_freed,
    "late-expiry": late_expiry,
}
