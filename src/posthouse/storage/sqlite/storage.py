"""The façade: one house's durable state in one SQLite database and the content files beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from pathlib import Path

import apsw

from posthouse.mail.acceptance import Acceptance
from posthouse.mail.journey import JourneyEvent
from posthouse.mail.spool import Settlement
from posthouse.mail.world import Clock, Random
from posthouse.storage.errors import StorageError
from posthouse.storage.filesystem import FileSystem, RealFileSystem
from posthouse.storage.observer import Nobody, Observer
from posthouse.storage.sqlite.accept import Taken, insert_acceptance
from posthouse.storage.sqlite.administration import SqliteAdministration
from posthouse.storage.sqlite.backup import Backup
from posthouse.storage.sqlite.changes import LocalChanges
from posthouse.storage.sqlite.checkpoint import Checkpointer
from posthouse.storage.sqlite.connection import DATABASE, forget
from posthouse.storage.sqlite.content import SqliteContent, SqliteDraft
from posthouse.storage.sqlite.credentials import SqliteCredentials
from posthouse.storage.sqlite.depth import Extent
from posthouse.storage.sqlite.directory import SqliteDirectory
from posthouse.storage.sqlite.errors import storage_errors
from posthouse.storage.sqlite.folders import SqliteFolders
from posthouse.storage.sqlite.hold import SweepLock
from posthouse.storage.sqlite.incarnation import Incarnation
from posthouse.storage.sqlite.integrity import Inspector, mend_claims, mend_counters, mend_messages
from posthouse.storage.sqlite.journey import SqliteJourney
from posthouse.storage.sqlite.journey_index import index_again, renew_words
from posthouse.storage.sqlite.mail_index import SqliteReading, begin_anew
from posthouse.storage.sqlite.maildrops import SqliteMaildrops
from posthouse.storage.sqlite.migrate import OnMigrated
from posthouse.storage.sqlite.retention import sweep_journeys, sweep_refused
from posthouse.storage.sqlite.schema import open_database
from posthouse.storage.sqlite.settle import write_settlement
from posthouse.storage.sqlite.sources import SqliteSources
from posthouse.storage.sqlite.spool import SqliteSpool
from posthouse.storage.sqlite.sweep import sweep_messages, sweep_orphans, sweep_snapshots, take_over_dead
from posthouse.storage.sqlite.threads import Readers
from posthouse.storage.sqlite.turn import WriterTurn
from posthouse.storage.sqlite.writer import Batches, InlineWriter, ThreadWriter, Work, Writer, exit_now
from posthouse.storage.upkeep import Flaw, Manifest, Order, Retention, Sizes, Tell, tell_nobody

LIGHT_ROWS = 16
"""Entries and spool rows that one piece of light work may write."""
MEND_JOURNEYS = 64
"""In one transaction."""
TIDY_EVERY_S = 3600.0
"""How often a sweep looks for orphaned files and old journeys, which it reads through."""
_INCARNATION_OCTETS = 8


class SqliteStorage:
    """Implements `storage.interfaces.Storage`. Several processes may open the same folder."""

    def __init__(
        self,
        *,
        connection: apsw.Connection,
        checkpointer: Checkpointer,
        batches: Batches,
        writer: Writer,
        readers: Readers,
        incarnation: Incarnation,
        content: SqliteContent,
        clock: Clock,
        random: Random,
        vfs: str | None,
    ) -> None:
        self._vfs = vfs
        self._connection = connection
        self._checkpointer = checkpointer
        self._batches = batches
        self._writer = writer
        self._observer: Observer = Nobody()
        self._extent = Extent(readers, content.folder.parent / DATABASE, clock)
        self._readers = readers
        self._incarnation = incarnation
        self._clock = clock
        self._open = True
        self._sweep_lock = SweepLock(content.folder.parent)
        self._tidied_at: float | None = None
        self._backups = 0
        self.content = content
        self.changes = LocalChanges()
        self.directory = SqliteDirectory(readers)
        self.administration = SqliteAdministration(writer, readers, random)
        self.credentials = SqliteCredentials(writer, readers, random)
        self.maildrops = SqliteMaildrops(writer, readers, content, clock, random)
        self.spool = SqliteSpool(writer, readers, self.changes, clock, random, incarnation.name)
        self.journey = SqliteJourney(writer, readers, self.spool.orders)
        self.sources = SqliteSources(writer, readers)
        self.folders = SqliteFolders(writer, readers, clock)
        self.reading = SqliteReading(writer, readers, clock)

    @classmethod
    async def open(
        cls,
        data_dir: Path,
        *,
        clock: Clock,
        random: Random,
        file_system: FileSystem | None = None,
        vfs: str | None = None,
        inline_writer: bool = False,
        create: bool = False,
        on_fatal: Callable[[str], None] = exit_now,
        on_migrated: OnMigrated | None = None,
    ) -> SqliteStorage:
        """Open the database in `data_dir`; only `create` makes a new one, only with `on_migrated` an older one changes.

        Raises StorageDamaged, StorageOutdated, StorageFull, StorageBusy.
        `inline_writer`: no thread at all, each call commits before it returns. `on_fatal` must not return in a
        process that serves: it is called when nothing may be answered any more.
        """
        disk = file_system or RealFileSystem()
        path = data_dir / DATABASE
        folder = data_dir / "content"
        with storage_errors(), ExitStack() as opened:
            if create:
                disk.make_folder(data_dir)
            connection = open_database(
                path, vfs=vfs, create=create, file_system=disk, now=clock.now(), on_migrated=on_migrated
            )
            opened.callback(forget, connection)
            disk.make_folder(folder)
            disk.sync_folder(data_dir)
            incarnation = Incarnation(data_dir / "incarnations", random.octets(_INCARNATION_OCTETS).hex())
            opened.callback(incarnation.release, remove=True)
            readers = Readers(path, vfs=vfs, threaded=not inline_writer)
            opened.callback(readers.abandon)
            checkpointer = Checkpointer(connection, path, vfs=vfs, threaded=not inline_writer)
            opened.callback(checkpointer.abandon)
            batches = Batches(connection, checkpointer, on_fatal)
            storage = cls(
                connection=connection,
                checkpointer=checkpointer,
                batches=batches,
                writer=_writer(batches, data_dir, inline=inline_writer),
                readers=readers,
                incarnation=incarnation,
                content=SqliteContent(folder, incarnation.name, disk, readers),
                clock=clock,
                random=random,
                vfs=vfs,
            )
            # Nothing failed: it is the storage's to close.
            opened.pop_all()
        await storage._begin()
        return storage

    def observe(self, observer: Observer) -> None:
        self._observer = self._batches.observer = self.content.observer = observer
        self.journey.observer = self.maildrops.observer = observer

    async def prove(self) -> None:
        await self._writer.submit(self._incarnation.prove, heavy=False)

    async def sizes(self) -> Sizes:
        return await self._extent.sizes()

    async def accept(self, acceptance: Acceptance) -> None:
        def work(connection: apsw.Connection, drafts: Mapping[str, bytes | str]) -> Taken:
            taken = Taken()
            insert_acceptance(connection, acceptance, drafts, taken)
            return taken

        row_count = len(acceptance.placements) + len(acceptance.forwards)
        await self._write((acceptance,), work, row_count, _events((acceptance,)))

    async def settle(self, settlement: Settlement) -> bool:
        now = self._clock.now()

        def work(connection: apsw.Connection, drafts: Mapping[str, bytes | str]) -> Taken | None:
            return write_settlement(connection, settlement, drafts, self._incarnation.name, now)

        row_count = len(settlement.rows) + len(settlement.generated)
        events = (*settlement.events, *_events(settlement.generated))
        settled = await self._write(settlement.generated, work, row_count, events) is not None
        if settled:
            self.changes.notify()
        return settled

    async def tick(self) -> None:
        await self._writer.submit(lambda _connection: None, heavy=False)

    async def sweep(self, now: float, retention: Retention | None = None) -> Sequence[Path]:
        content, writer, readers = self.content, self._writer, self._readers
        await self.spool.orders.carry_out()
        if await take_over_dead(writer, readers, self._incarnation, content, now):
            self.changes.notify()
        await sweep_messages(writer, readers, self._sweep_lock, content.folder, content.file_system, now)
        if retention is not None:
            await sweep_refused(writer, readers, retention, now)
        if self._tidied_at is None or abs(now - self._tidied_at) >= TIDY_EVERY_S:
            self._tidied_at = now
            await sweep_orphans(readers, content, self._incarnation.name)
            if retention is not None:
                await sweep_journeys(writer, readers, retention, now)
            return await sweep_snapshots(readers, content.folder.parent, content.file_system, now)
        return ()

    async def check(self, tell: Tell = tell_nobody, *, mend: bool = False) -> AsyncGenerator[Flaw, None]:
        await self.spool.orders.carry_out()
        inspector = Inspector(self._readers, self.content, self._incarnation.name, tell)
        async for flaw in inspector.flaws():
            yield flaw
        if not mend:
            return
        now = self._clock.now()
        for folder in inspector.wrong_folders:
            await self._writer.submit(lambda connection, folder=folder: mend_counters(connection, folder))  # type: ignore[misc]
        if inspector.unlisted_messages:
            await self._writer.submit(lambda connection: mend_messages(connection, inspector.unlisted_messages, now))
        if inspector.letters_damaged:
            await self._writer.submit(begin_anew)
        lost = inspector.lost_journeys
        if inspector.words_damaged:
            await self._writer.submit(renew_words)
            lost = await inspector.journeys_not_found()
        for at in range(0, len(lost), MEND_JOURNEYS):
            some = lost[at : at + MEND_JOURNEYS]
            await self._writer.submit(lambda connection, some=some: index_again(connection, some))  # type: ignore[misc]
        while await self._writer.submit(lambda connection: mend_claims(connection, now)):
            pass
        self.changes.notify()

    async def backup(self, target: Path, order: Order, tell: Tell = tell_nobody) -> Manifest:
        work = Backup(
            data_dir=self.content.folder.parent,
            target=target,
            vfs=self._vfs,
            disk=self.content.file_system,
            tell=tell,
            now=self._clock.now(),
        )
        self._backups += 1
        return await work.run(self._readers, self._sweep_lock, order, f"{self._incarnation.name}-{self._backups}")

    async def close(self) -> None:
        """Commit what was submitted, discard open drafts, release our claims. Safe to call twice."""
        if not self._open:
            return
        self._open = False
        async with AsyncExitStack() as closing:
            # The last one named is the first one closed; each is, whatever became of those before.
            closing.callback(self._incarnation.release, remove=True)
            closing.callback(self.maildrops.close)
            closing.callback(self._connection.close, True)
            closing.push_async_callback(self._readers.close)
            closing.callback(self._checkpointer.close)
            # Only after the writer: a commit that was still waiting may have given a draft's file its row.
            closing.push_async_callback(self._readers.disk, self.content.remove_drafts)
            closing.push_async_callback(self._writer.close)
            # Where the disk is full, our row and claims stay, and who opens next frees them.
            with suppress(StorageError):
                now = self._clock.now()
                await self._writer.submit(lambda connection: self._incarnation.end(connection, now))

    def abandon(self) -> None:
        """Leave everything as the death of the process would: for simulation and tests."""
        if not self._open:
            return
        self._open = False
        self._writer.abandon()
        self.content.abandon()
        self._checkpointer.abandon()
        self._readers.abandon()
        forget(self._connection)
        self.maildrops.close()
        self._incarnation.release(remove=False)

    async def _begin(self) -> None:
        now = self._clock.now()
        try:
            await self._writer.submit(lambda connection: self._incarnation.begin(connection, now))
            await take_over_dead(self._writer, self._readers, self._incarnation, self.content, now)
        except BaseException:
            self.abandon()
            raise

    async def _write(
        self,
        acceptances: Sequence[Acceptance],
        work: Callable[[apsw.Connection, Mapping[str, bytes | str]], Taken | None],
        row_count: int,
        events: Sequence[JourneyEvent],
    ) -> Taken | None:
        """Commit work that gives drafts their rows; what becomes of the drafts is settled when it is decided."""
        drafts = _drafts(self.content, acceptances)
        octets = {draft.handle: draft.file or draft.octets for draft in drafts}
        self.content.begin_accept(drafts)

        def decided(taken: Taken | None, committed: bool) -> None:
            handles = frozenset(taken.handles) if committed and taken is not None else frozenset()
            self.content.end_accept(drafts, handles)
            if committed and taken is not None:
                self._observer.happened(events)
                if taken.forwards:
                    self.changes.notify()

        writing: Work[Taken | None] = lambda connection: work(connection, octets)  # noqa: E731
        return await self._writer.submit(writing, decided, heavy=row_count > LIGHT_ROWS)


def _drafts(content: SqliteContent, acceptances: Sequence[Acceptance]) -> list[SqliteDraft]:
    """The drafts that these acceptances name, reports included."""
    found: list[SqliteDraft] = []
    for acceptance in acceptances:
        draft = content.find(acceptance.content.handle)
        if draft is not None:
            found.append(draft)
        if acceptance.generated:
            found += _drafts(content, acceptance.generated)
    return found


def _events(acceptances: Sequence[Acceptance]) -> tuple[JourneyEvent, ...]:
    """What the journeys say of these acceptances, reports included."""
    return tuple(event for acceptance in acceptances for event in (*acceptance.events, *_events(acceptance.generated)))


def _writer(batches: Batches, data_dir: Path, *, inline: bool) -> Writer:
    if inline:
        return InlineWriter(batches)
    return ThreadWriter(batches, WriterTurn(data_dir), asyncio.get_running_loop())
