"""Is the house ready: each reason why not, with a clock that is moved and a store that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from posthouse.storage.errors import StorageError, StorageFull
from posthouse.watch.readiness import Prover, Pulse, full_disk, late_loop, late_runner
from tests.fake_world import FakeClock

MIB = 2**20


class Store:
    """Commits, fails with `error`, or waits until `go`."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.proofs = 0
        self.go = asyncio.Event()
        self.go.set()

    async def prove(self) -> None:
        self.proofs += 1
        await self.go.wait()
        if self.error is not None:
            raise self.error


@asynccontextmanager
async def proving(store: Store, clock: FakeClock, within_s: float = 30.0) -> AsyncIterator[Prover]:
    prover = Prover(store, clock, within_s)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(prover.run())
        yield prover
        running.cancel()


async def test_one_commit_answers_for_a_second() -> None:
    clock, store = FakeClock(), Store()
    async with proving(store, clock) as prover:
        assert [await prover.problem() for _ in range(3)] == [None] * 3
        assert store.proofs == 1
        clock.advance(1.0)
        assert await prover.problem() is None
        assert store.proofs == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StorageFull("no space is left"), "the store cannot commit: no space is left"),
        (StorageError(), "the store cannot commit: StorageError"),
        (RuntimeError("with a secret"), "the store cannot commit: RuntimeError"),
    ],
)
async def test_why_a_store_does_not_commit(error: Exception, reason: str) -> None:
    clock, store = FakeClock(), Store(error)
    async with proving(store, clock) as prover:
        assert await prover.problem() == reason
        store.error = None
        clock.advance(1.0)
        assert await prover.problem() is None


async def test_a_store_that_hangs_is_told_and_asked_only_once() -> None:
    clock, store = FakeClock(), Store()
    store.go.clear()
    async with proving(store, clock, within_s=0.0) as prover:
        assert await prover.problem() == "the store has not committed for 0 s"
        clock.advance(7.0)
        assert await prover.problem() == "the store has not committed for 7 s"
        assert store.proofs == 1
        store.go.set()
        while await prover.problem() is not None:
            await asyncio.sleep(0)


async def test_who_asks_while_a_commit_is_under_way_gets_its_answer() -> None:
    clock, store = FakeClock(), Store(StorageFull("no space is left"))
    store.go.clear()
    async with proving(store, clock) as prover, asyncio.TaskGroup() as group:
        asking = [group.create_task(prover.problem()) for _ in range(3)]
        await asyncio.sleep(0)
        store.go.set()
    assert {task.result() for task in asking} == {"the store cannot commit: no space is left"}
    assert store.proofs == 1


class Loop:
    """`sleep` takes as long as `late_s` makes it, and ends when there is no more."""

    def __init__(self, clock: FakeClock, *late_s: float) -> None:
        self._clock = clock
        self._late_s = list(late_s)

    async def sleep(self, seconds: float) -> None:
        if not self._late_s:
            raise asyncio.CancelledError
        self._clock.advance(seconds + self._late_s.pop(0))


async def pulse_after(clock: FakeClock, *late_s: float) -> Pulse:
    pulse = Pulse(clock, Loop(clock, *late_s).sleep)
    with pytest.raises(asyncio.CancelledError):
        await pulse.run()
    return pulse


async def test_how_late_the_loop_is() -> None:
    pulse = await pulse_after(FakeClock(), 0.0, 6.0, 0.25)
    assert pulse.lag_s == pytest.approx(0.25)
    assert pulse.worst_lag_s == pytest.approx(6.0)


async def test_the_worst_is_that_of_the_last_minute() -> None:
    pulse = await pulse_after(FakeClock(), 6.0, *[0.0] * 60)
    assert pulse.worst_lag_s == pytest.approx(0.0)


async def test_a_loop_that_is_late_now_is_late_before_it_looks() -> None:
    clock = FakeClock()
    pulse = await pulse_after(clock, 0.0)
    clock.advance(9.0)
    assert pulse.lag_s == pulse.worst_lag_s == pytest.approx(8.0)


async def test_a_pulse_that_never_ran_is_not_late() -> None:
    assert Pulse(FakeClock()).worst_lag_s == 0.0


def test_limits() -> None:
    assert late_loop(4.9) is None
    assert late_loop(5.0) == "the event loop was 5 s late"
    assert late_runner(59.0) is None
    assert late_runner(60.0) == "the queue runner has not looked at the queue for 60 s"
    assert full_disk(114 * MIB, 100, 50 * MIB) is None
    assert full_disk(114 * MIB, None, 50 * MIB) is None
    assert full_disk(114 * MIB - 1, None, 50 * MIB) == "the disk of data_dir is nearly full: 113 MiB are left"
    assert full_disk(114 * MIB, 99, 50 * MIB) == "the disk of data_dir has room for only 99 more files"
