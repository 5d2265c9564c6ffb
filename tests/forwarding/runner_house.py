"""The runner with real storage, a clock that the test moves, and a relay that says what the test wants."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from posthouse.admission.admission import Admission, Seams
from posthouse.admission.reports import ReportWriter
from posthouse.admission.rules import Rules
from posthouse.forwarding.attempt import Attempt
from posthouse.forwarding.bounce import Bouncer
from posthouse.forwarding.pace import ReportPace
from posthouse.forwarding.pool import Pool
from posthouse.forwarding.runner import QueueRunner, RunnerLimits
from posthouse.forwarding.schedule import RetrySchedule
from posthouse.forwarding.session import Mark
from posthouse.log import make_log
from posthouse.mail.acceptance import Acceptance, Destination, Forward, Notify
from posthouse.mail.address import Address, ReversePath, parse_address
from posthouse.mail.content import ContentScanner
from posthouse.mail.ids import QueueId, new_queue_id
from posthouse.mail.journey import Attempted, JourneyEvent, Reported
from posthouse.mail.outcome import Delivered, Outcome
from posthouse.mail.reply import reply
from posthouse.mail.spool import SpoolRow
from posthouse.storage.sqlite.storage import SqliteStorage
from tests.fake_world import FakeClock, FakeRandom
from tests.forwarding.rows import DAY_S

ADA = parse_address("ada@here.test")
REPORTS_PER_MINUTE = 30
CONTENT = b"Subject: hello\r\nMessage-ID: <1@here.test>\r\n\r\nHello.\r\n"
SCHEDULE = RetrySchedule(intervals_s=(300.0, 600.0, 3600.0), delay_notice_after_s=4 * 3600.0)
TAKEN = Delivered(reply(250, "2.0.0", "Taken"))

Answer = Callable[[SpoolRow], "Outcome | Exception"]


class ScriptedSession:
    """What a RelaySession is to the runner."""

    def __init__(self, relay: ScriptedRelay, domain: str, reached: Callable[[], None], mark: Mark) -> None:
        self.relay = relay
        self.mark = mark
        self.has_reached = domain not in relay.dead
        if self.has_reached:
            reached()

    async def attempt(self, rows: tuple[SpoolRow, ...]) -> Attempt:
        self.relay.attempts.append([str(row.forward_path) for row in rows])
        await self.relay.before(rows)
        outcomes = []
        for row in rows:
            answer = self.relay.answer(row)
            if isinstance(answer, Exception):
                raise answer
            outcomes.append(answer)
        if self.relay.marks and self.mark is not None:
            assert await self.mark(rows)
        shown = Attempt(rows=rows, outcomes=tuple(outcomes), next_hop="mx", address="192.0.2.1", duration_s=0.1)
        return self.relay.change(shown)

    async def close(self) -> None: ...

    def abort(self) -> None: ...


class ScriptedRelay:
    def __init__(self, clock: FakeClock) -> None:
        self.answer: Answer = lambda _row: TAKEN
        self.dead: set[str] = set()
        self.attempts: list[list[str]] = []
        self.before: Callable[[tuple[SpoolRow, ...]], Awaitable[None]] = _at_once
        self.pool = Pool(clock)
        self.marks = False
        self.change: Callable[[Attempt], Attempt] = lambda attempt: attempt

    def together(self, destination: Destination) -> str:
        return destination.via or destination.domain

    def session(self, destination: Destination, reached: Callable[[], None], mark: Mark) -> ScriptedSession:
        return ScriptedSession(self, destination.domain, reached, mark)


async def _at_once(_rows: tuple[SpoolRow, ...]) -> None: ...


class RunnerHouse:
    def __init__(self, storage: SqliteStorage, clock: FakeClock, random: FakeRandom, folder: Path) -> None:
        self.folder = folder
        self.storage = storage
        self.clock = clock
        self.random = random
        self.relay = ScriptedRelay(clock)
        self.log = io.StringIO()
        self.limits = RunnerLimits(concurrency=20, per_destination=5, after_error_s=0.0)
        self.admission = Admission(
            Seams(directory=storage.directory, maildrops=storage.maildrops, administration=storage.administration),
            Rules(hostname="mx.here.test", postmaster=ADA, max_recipients=1000, expire_after_s=5 * DAY_S),
            clock,
            random,
        )
        self.renew()

    def renew(self) -> None:
        """Another runner, as after a restart, and for changed limits."""
        self.runner = QueueRunner(
            self.storage,
            self.relay,  # type: ignore[arg-type]
            Bouncer(
                self.storage.content,
                ReportWriter(self.storage.content, self.admission, self.random),
                ReportPace(self.clock, REPORTS_PER_MINUTE),
            ),
            SCHEDULE,
            self.limits,
            self.clock,
            self.random,
            make_log(self.log, json=True),
        )

    async def queue(
        self,
        *forward_paths: str,
        reverse_path: ReversePath = ADA,
        notify: frozenset[Notify] | None = None,
        content: bytes = CONTENT,
        via: str = "",
    ) -> QueueId:
        """Accept a message for these recipients elsewhere."""
        draft = await self.storage.content.draft()
        scanner = ContentScanner()
        scanner.feed(content)
        await draft.write(content)
        now = self.clock.now()
        queue_id = new_queue_id(now, self.random)
        forwards = tuple(self._forward(parse_address(path), reverse_path, notify, via) for path in forward_paths)
        await self.storage.accept(
            Acceptance(
                queue_id=queue_id,
                accepted_at=now,
                reverse_path=reverse_path,
                prefix=b"Received: by mx.here.test\r\n",
                content=await draft.seal(scanner.facts()),
                forwards=forwards,
            )
        )
        return queue_id

    def _forward(self, path: Address, reverse_path: ReversePath, notify: frozenset[Notify] | None, via: str) -> Forward:
        return Forward(
            forward_path=path,
            reverse_path=reverse_path,
            destination=Destination(via, path.domain),
            not_before=self.clock.now(),
            expires_at=self.clock.now() + 5 * DAY_S,
            notify=notify,
        )

    async def restart(self, *, killed: bool = False) -> None:
        """Close the store, or lose it as by kill -9, and go on with what it holds."""
        if killed:
            self.storage.abandon()
        else:
            await self.storage.close()
        self.storage = await SqliteStorage.open(self.folder, clock=self.clock, random=self.random, inline_writer=True)
        self.renew()

    async def run_due(self) -> int:
        """Attempt all that is due now; the number of messages tried."""
        before = len(self.relay.attempts)
        started = True
        while started:
            async with asyncio.TaskGroup() as group:
                started = await self.runner.step(group)
        return len(self.relay.attempts) - before

    async def events(self, queue_id: QueueId, kind: type[JourneyEvent]) -> list[JourneyEvent]:
        return [event for event in await self.storage.journey.read(queue_id) if isinstance(event, kind)]

    async def attempted(self, queue_id: QueueId) -> list[Attempted]:
        return [event for event in await self.storage.journey.read(queue_id) if isinstance(event, Attempted)]

    async def reported(self, queue_id: QueueId) -> list[Reported]:
        return [event for event in await self.storage.journey.read(queue_id) if isinstance(event, Reported)]

    async def reports(self, login: str = "ada@here.test") -> list[bytes]:
        """What lies in a maildrop."""
        account = await self.storage.directory.account(login)
        assert account is not None
        listing = await self.storage.maildrops.list(account.account)
        found = []
        for uid in listing.uids:
            found.append(b"".join([chunk async for chunk in self.storage.maildrops.read(account.account, uid)]))
        return found


@asynccontextmanager
async def runner_house(folder: Path) -> AsyncIterator[RunnerHouse]:
    """A house of ada@here.test."""
    clock, random = FakeClock(), FakeRandom()
    storage = await SqliteStorage.open(folder, clock=clock, random=random, create=True, inline_writer=True)
    await storage.administration.add_domain("here.test")
    await storage.administration.add_account(ADA, verifier="x", quota_octets=None, now=clock.now())
    house = RunnerHouse(storage, clock, random, folder)
    try:
        yield house
    finally:
        await house.storage.close()
