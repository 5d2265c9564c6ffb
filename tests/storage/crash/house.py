"""A house under a recorder: whatever it is asked is noted in a ledger, with the moment of the answer."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import apsw
from tests.storage.crash.ledger import (
    Accept,
    Asked,
    Expunge,
    Housekeeping,
    Ledger,
    Mark,
    Operate,
    Settle,
    Step,
    TakeClaim,
)
from tests.storage.crash.recording import Recorder

from posthouse.mail.acceptance import Acceptance, Destination, Forward, Placement
from posthouse.mail.address import Address, ReversePath, parse_address
from posthouse.mail.content import ContentFacts, SealedContent
from posthouse.mail.ids import AccountId, QueueId, new_queue_id
from posthouse.mail.journey import Accepted, Attempted, Deleted, JourneyEvent, Operated, Reported
from posthouse.mail.maildrop import MaildropLock
from posthouse.mail.spool import Action, Claim, Settled, Settlement, SpoolRow
from posthouse.storage.errors import StorageError
from posthouse.storage.interfaces import Draft
from posthouse.storage.sqlite.storage import SqliteStorage

LOGINS = ("alice@house.test", "bob@house.test", "carol@house.test")
FAR = Destination("", "far.test")
SMALL_OCTETS = 1_500
PAGES_OCTETS = 30_000
FILE_OCTETS = 150_000
"""More than the engine keeps in the database."""
DAY_S = 86_400.0


@dataclass(slots=True)
class SetClock:
    """A clock that stands until it is moved."""

    time: float = 1_800_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class SeededRandom:
    """Chance that repeats itself."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def octets(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


@dataclass(slots=True)
class House:
    """An engine, its accounts, and what it was asked. Raises what the engine raises, after noting it."""

    storage: SqliteStorage
    accounts: tuple[AccountId, ...]
    clock: SetClock
    chance: SeededRandom
    recorder: Recorder
    ledger: Ledger = field(default_factory=Ledger)
    queue_ids: list[QueueId] = field(default_factory=list)

    async def accept(self, size_octets: int, to: tuple[int, ...] = (0,), forwards: int = 0) -> Acceptance:
        """Take one message in for the accounts with these indices and for some recipients elsewhere."""
        begun = self.recorder.position
        octets: dict[str, bytes] = {}
        draft = await self.storage.content.draft()
        try:
            sender = parse_address("alice@house.test")
            acceptance = await self._acceptance(draft, octets, size_octets, to, forwards, sender)
            await self._ask(Accept(acceptance, octets), begun, self._accepting(acceptance))
        except StorageError:
            await draft.discard()
            raise
        await self._show()
        return acceptance

    async def claim(self, limit: int = 10) -> Claim:
        """Claim what is due for the one destination there is."""
        now = self.clock.now()
        due = [row for row in await self.storage.spool.list() if not row.claimed and row.not_before <= now]
        due.sort(key=lambda row: (row.not_before, row.message.queue_id, row.recipient_number))
        rows = tuple((row.message.queue_id, row.recipient_number) for row in due[:limit])
        claims: list[Claim] = []

        async def claiming() -> bool:
            claim = await self.storage.spool.claim(FAR, limit, now)
            assert claim is not None, "nothing to claim"
            claims.append(claim)
            return True

        await self._ask(TakeClaim(rows), self.recorder.position, claiming)
        assert rows == tuple((row.message.queue_id, row.recipient_number) for row in claims[0].rows)
        return claims[0]

    async def mark(self, claim: Claim) -> bool:
        """Note that the final dot of a claim's rows may leave."""
        rows = tuple((row.message.queue_id, row.recipient_number) for row in claim.rows)
        spool = self.storage.spool
        marking = partial(spool.mark_sending, claim.token, rows, self.clock.now())
        return await self._ask(Mark(rows), self.recorder.position, marking)

    async def settle(self, claim: Claim, outcome: str, report_to: tuple[int, ...] = (0,)) -> bool:
        """Settle all rows of a claim alike: delivered, deferred, or failed with one report for them all."""
        begun = self.recorder.position
        now = self.clock.now()
        octets: dict[str, bytes] = {}
        events: list[JourneyEvent] = [attempted(row, outcome, now) for row in claim.rows]
        generated: tuple[Acceptance, ...] = ()
        if outcome == "failed":
            draft = await self.storage.content.draft()
            report = await self._acceptance(draft, octets, SMALL_OCTETS, report_to, 0 if report_to else 1, None)
            generated = (report,)
            events.append(reported(claim.rows, report.queue_id, now))
        not_before = now + 300 if outcome == "deferred" else None
        settlement = Settlement(
            token=claim.token,
            rows=tuple(
                Settled(
                    queue_id=row.message.queue_id,
                    recipient_number=row.recipient_number,
                    not_before=not_before,
                    last_reply="451 4.3.0 later",
                )
                for row in claim.rows
            ),
            generated=generated,
            events=tuple(events),
        )
        return await self._ask(Settle(settlement, octets), begun, lambda: self.storage.settle(settlement))

    async def expunge(self, who: int, count: int) -> bool:
        """Remove the first entries of an account's Inbox, as QUIT does (RFC 1939 §6)."""
        account = self.accounts[who]
        lock = await self.storage.maildrops.lock(account)
        assert isinstance(lock, MaildropLock)
        listing = await self.storage.maildrops.list(account)
        events = tuple(
            Deleted(queue_id=queue_id, at=self.clock.now(), login=LOGINS[who], uidl=uidl, peer="192.0.2.9")
            for queue_id, uidl in zip(listing.queue_ids[:count], listing.uidls[:count], strict=True)
        )
        step = Expunge(account, listing.uidls[:count], events)
        uids = listing.uids[:count]
        begun = self.recorder.position
        try:
            return await self._ask(step, begun, lambda: self.storage.maildrops.expunge(lock, uids, events))
        finally:
            await self.storage.maildrops.unlock(lock)

    async def operate(self, action: Action) -> None:
        """Order it for all that waits, of which nothing may be claimed."""
        rows = await self.storage.spool.list()
        paths: dict[QueueId, list[str]] = {}
        for row in rows:
            paths.setdefault(row.message.queue_id, []).append(str(row.forward_path))
        now = self.clock.now()
        events = tuple(
            Operated(queue_id=queue_id, at=now, action=str(action), forward_paths=tuple(told), by="ann")
            for queue_id, told in paths.items()
        )
        step = Operate(action, tuple((row.message.queue_id, row.recipient_number) for row in rows), events)

        async def ordering() -> bool:
            return await self.storage.spool.operate(action, (), "ann") == len(rows) > 0

        assert await self._ask(step, self.recorder.position, ordering)

    async def sweep(self, after_s: float = 2 * DAY_S) -> None:
        """Let time pass and clear up."""
        self.clock.time += after_s

        async def sweeping() -> bool:
            await self.storage.sweep(self.clock.now())
            return True

        await self._ask(Housekeeping(), self.recorder.position, sweeping)

    def checkpoint(self, *, truncate: bool) -> None:
        """Write the WAL's pages into the database file, by a connection of our own through the recording VFS."""
        asked = Asked(Housekeeping(), self.recorder.position)
        (path,) = self.recorder.folder.glob("*.db")
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=self.recorder.vfs_name)
        mode = apsw.SQLITE_CHECKPOINT_TRUNCATE if truncate else apsw.SQLITE_CHECKPOINT_PASSIVE
        # A connection that has read nothing yet does not know of the WAL, and does nothing.
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        before = self.recorder.position
        frames, moved = connection.wal_checkpoint(mode=mode)
        assert moved == frames >= 0, "another connection was in the way"
        assert self.recorder.position > before, "nothing was moved"
        connection.close()
        asked.answered = self.recorder.position
        self.ledger.asked.append(asked)

    async def _ask(self, step: Step, begun: int, call: Callable[[], Awaitable[bool]]) -> bool:
        asked = Asked(step, begun)
        self.ledger.asked.append(asked)
        try:
            asked.granted = await call()
        except StorageError:
            asked.answered = self.recorder.position
            raise
        asked.answered = self.recorder.position
        return asked.granted

    def _accepting(self, acceptance: Acceptance) -> Callable[[], Awaitable[bool]]:
        async def accepting() -> bool:
            await self.storage.accept(acceptance)
            return True

        return accepting

    async def _show(self) -> None:
        """Look at all maildrops, as POP3 sessions would: a uid that was seen may never mean another entry."""
        for account in self.accounts:
            listing = await self.storage.maildrops.list(account)
            for uid, uidl in zip(listing.uids, listing.uidls, strict=True):
                assert self.ledger.shown.setdefault((account, uid), (uidl, self.recorder.position))[0] == uidl

    async def _acceptance(
        self,
        draft: Draft,
        octets: dict[str, bytes],
        size_octets: int,
        to: tuple[int, ...],
        forwards: int,
        sender: ReversePath,
    ) -> Acceptance:
        """The plan for one message, its content drafted and sealed; the octets are added under its handle."""
        self.clock.time += 1
        now = self.clock.now()
        queue_id = new_queue_id(now, self.chance)
        self.queue_ids.append(queue_id)
        content = make_content(queue_id, size_octets, self.chance)
        sealed = await seal(draft, content)
        octets[sealed.handle] = content
        remote = [Address(f"r{number}", "far.test") for number in range(forwards)]
        paths = (*(LOGINS[who] for who in to), *map(str, remote))
        return Acceptance(
            queue_id=queue_id,
            accepted_at=now,
            reverse_path=sender,
            prefix=b"Received: by house.test id " + queue_id.encode() + b"\r\n",
            content=sealed,
            placements=tuple(
                Placement(
                    account=self.accounts[who],
                    forward_path=parse_address(LOGINS[who]),
                    prefix=b"Delivered-To: " + LOGINS[who].encode() + b"\r\n",
                )
                for who in to
            ),
            forwards=tuple(
                Forward(
                    forward_path=path, reverse_path=sender, destination=FAR, not_before=now, expires_at=now + 5 * DAY_S
                )
                for path in remote
            ),
            events=(accepted_event(queue_id, now, sender, paths, len(content)),),
        )


async def seal(draft: Draft, content: bytes) -> SealedContent:
    """Write it in chunks, as it comes from a peer."""
    for start in range(0, len(content), 65_536):
        await draft.write(content[start : start + 65_536])
    sealed = await draft.seal(ContentFacts())
    assert sealed.sha256 == hashlib.sha256(content).digest()
    return sealed


def accepted_event(
    queue_id: QueueId, now: float, sender: ReversePath, paths: tuple[str, ...], size_octets: int
) -> Accepted:
    return Accepted(
        queue_id=queue_id,
        at=now,
        reverse_path=str(sender or ""),
        forward_paths=paths,
        size_octets=size_octets,
        peer="192.0.2.7",
        hello="peer.test",
        protocol="ESMTP",
    )


def attempted(row: SpoolRow, outcome: str, now: float) -> Attempted:
    return Attempted(
        queue_id=row.message.queue_id,
        at=now,
        forward_path=str(row.forward_path),
        outcome=outcome,
        reply="250 2.0.0 OK",
        from_peer=True,
        next_hop="mx.far.test",
        address="192.0.2.1",
        attempt=row.attempts,
        duration_s=0.25,
    )


def reported(rows: tuple[SpoolRow, ...], report: QueueId, now: float) -> Reported:
    return Reported(
        queue_id=rows[0].message.queue_id,
        at=now,
        forward_paths=tuple(str(row.forward_path) for row in rows),
        action="failed",
        report_queue_id=report,
    )


def make_content(queue_id: QueueId, size_octets: int, chance: SeededRandom) -> bytes:
    """A message whose octets cannot be mistaken for another's."""
    lines = [f"Subject: {queue_id}", ""]
    lines += [chance.octets(35).hex() for _ in range(size_octets // 72)]
    return "\r\n".join([*lines, "end", ""]).encode()


@contextmanager
def recording(folder: Path) -> Iterator[Recorder]:
    recorder = Recorder(folder)
    try:
        yield recorder
    finally:
        recorder.close()


class Died(Exception):
    """The engine asked for the end of its process."""


def die(why: str) -> None:
    raise Died(why)


async def open_storage(
    folder: Path, clock: SetClock, seed: int, recorder: Recorder | None = None, *, threads: bool = False
) -> SqliteStorage:
    """The engine on this folder; with a recorder, through it."""
    return await SqliteStorage.open(
        folder,
        clock=clock,
        random=SeededRandom(seed),
        file_system=recorder.file_system if recorder else None,
        vfs=recorder.vfs_name if recorder else None,
        inline_writer=not threads,
        create=True,
        on_fatal=die,
    )


async def open_house(recorder: Recorder, seed: int, *, threads: bool = False) -> House:
    """A new house with its accounts."""
    clock = SetClock()
    storage = await open_storage(recorder.folder, clock, seed, recorder, threads=threads)
    house = House(storage, (), clock, SeededRandom(seed + 1), recorder)
    await storage.administration.add_domain("house.test")
    for login in LOGINS:
        account = await storage.administration.add_account(
            parse_address(login), verifier="$argon2id$none", quota_octets=None, now=clock.now()
        )
        house.accounts = (*house.accounts, account)
        house.ledger.accounts[login] = recorder.position
    return house
