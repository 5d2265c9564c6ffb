"""Collects from every source when it is due, in a house that runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from posthouse.collection.collector import Collector, Report
from posthouse.collection.turn import AlreadyCollecting, turn
from posthouse.log import Log
from posthouse.mail.ids import AccountId, SourceId
from posthouse.mail.source import Source
from posthouse.mail.world import Clock
from posthouse.storage.errors import StorageError
from posthouse.storage.interfaces import Storage

LOOK_EVERY_S = 5.0
"""A source that was added, or that is wanted at once, is seen within this time."""
LONGEST_WAIT_S = 7 * 86_400.0
"""A time further away than that was written by a clock that was wrong."""


class CollectionRunner:
    """Runs until it is cancelled. `configure` changes what the next session uses."""

    def __init__(self, storage: Storage, folder: Path, clock: Clock, log: Log) -> None:
        """`folder`: where the lock files of the sources are."""
        self._storage = storage
        self._folder = folder
        self._clock = clock
        self._log = log
        self._running: set[SourceId] = set()
        self._sessions = 1
        self._collector: Collector | None = None

    def configure(self, collector: Collector, sessions: int) -> None:
        """`sessions`: with how many sources at once."""
        self._collector = collector
        self._sessions = sessions

    async def run(self) -> None:
        async with asyncio.TaskGroup() as sessions:
            while True:
                try:
                    await self._look(sessions)
                except StorageError as exc:
                    self._log.warning("sources cannot be read", reason=str(exc))
                await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self, sessions: asyncio.TaskGroup) -> None:
        """Begin sessions with those that are due, the longest waiting first."""
        sources = await self._storage.sources.all()
        if not sources:
            return
        now = self._clock.now()
        logins: Mapping[AccountId, str] | None = None
        for source in sorted(sources, key=lambda source: source.state.next_at):
            if len(self._running) >= self._sessions:
                return
            if source.source in self._running or source.state.refused or not _is_due(source, now):
                continue
            if logins is None:
                logins = {each.account: each.login for each in await self._storage.administration.accounts()}
            login = logins.get(source.settings.account)
            if login is not None:
                self._running.add(source.source)
                sessions.create_task(self._collect(source, login))

    async def _collect(self, source: Source, login: str) -> None:
        assert self._collector is not None
        log = self._log.bind(source=str(source.settings.address), server=str(source.settings.server))
        began = self._clock.monotonic()
        try:
            with turn(self._folder, source.source):
                report = await self._collector.collect(source, login)
        except AlreadyCollecting:
            return
        except (StorageError, OSError) as exc:
            log.warning("collecting failed", reason=str(exc))
        except Exception:
            log.exception("collecting failed")
        else:
            _tell(log, report, self._clock.monotonic() - began)
        finally:
            self._running.discard(source.source)


def _tell(log: Log, report: Report, took_s: float) -> None:
    """One line for each session."""
    say = log.warning if report.failure else log.info
    say(
        "collected",
        messages=report.collected,
        octets=report.octets,
        deleted=report.deleted,
        recognised=report.recognised,
        listed=report.listed,
        duration_s=round(took_s, 3),
        **({"failure": report.failure} if report.failure else {}),
    )


def _is_due(source: Source, now: float) -> bool:
    return source.state.next_at <= now or source.state.next_at > now + LONGEST_WAIT_S
