"""A power cut at any moment loses nothing that was acknowledged, and leaves nothing in part.

The whole set of states takes minutes and is marked `long`; every run checks all states of a short day and a sample
of the long one's.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from tests.storage.crash.days import a_crowded_day, a_long_day, a_short_day, an_operators_day
from tests.storage.crash.disk import PowerCut, before_syncs, power_cuts, states, write_out
from tests.storage.crash.house import FILE_OCTETS, House, SetClock, open_house, open_storage, recording
from tests.storage.crash.ledger import Accept, Expunge, Settle
from tests.storage.crash.recovery import complaints, recover, scratch_folder, unsynced_answers

SEED = 20_260_801
EVERY = os.environ.get("POSTHOUSE_FAULTS") == "all"

Day = Callable[[House], Awaitable[None]]
days = pytest.mark.parametrize("day", [a_short_day, a_long_day])


@asynccontextmanager
async def lived(day: Day, *, threads: bool = False) -> AsyncIterator[tuple[House, int]]:
    """A house after that day, still open, and how many operations there had been before it."""
    with scratch_folder() as folder, recording(folder) as recorder:
        house = await open_house(recorder, SEED, threads=threads)
        since = recorder.position
        await day(house)
        try:
            yield house, since
        finally:
            await house.storage.close()


def sample(cuts: list[PowerCut], count: int) -> list[PowerCut]:
    chosen = random.Random(SEED).sample(cuts, min(count, len(cuts)))
    return sorted(chosen, key=lambda cut: cut.position)


async def power_cuts_of(day: Day, shuffles: int, at_most: int | None = None, *, threads: bool = False) -> list[str]:
    """Recover from the power cuts of a day, or from a sample of them; what was found wrong."""
    async with lived(day, threads=threads) as (house, since):
        cuts = power_cuts(house.recorder.log, since=since, shuffles=shuffles, seed=SEED)
        assert len(cuts) > 100, "a day with so few states proves nothing"
        if at_most is not None:
            cuts = sample(cuts, at_most)
        return await complaints(house, cuts)


@pytest.mark.conformance("C58", "C103", "S6")
async def test_every_crash_point_of_a_short_day() -> None:
    assert await power_cuts_of(a_short_day, 1) == []


@pytest.mark.conformance("S6")
async def test_some_crash_points_of_an_operators_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was ordered is seen whole or not at all, however much of it was done when the power went."""
    monkeypatch.setattr("posthouse.storage.sqlite.orders.STEP_ROWS", 3)
    assert await power_cuts_of(an_operators_day, 1, at_most=25) == []


async def test_some_crash_points_of_a_long_day() -> None:
    assert await power_cuts_of(a_long_day, 1, at_most=40) == []


async def test_some_crash_points_of_a_crowded_day() -> None:
    assert await power_cuts_of(a_crowded_day, 1, at_most=40, threads=True) == []


@pytest.mark.long
async def test_every_crash_point_of_a_crowded_day() -> None:
    assert await power_cuts_of(a_crowded_day, 3, threads=True) == []


@pytest.mark.conformance("C58", "S6")
@pytest.mark.long
async def test_every_crash_point_of_a_long_day() -> None:
    assert await power_cuts_of(a_long_day, 3) == []


@pytest.mark.conformance("C58", "S6")
@pytest.mark.long
async def test_each_unsynced_change_of_a_short_day_alone() -> None:
    """Missing, there, torn, or zeros in a file that has grown: before each sync, each change for itself."""
    async with lived(a_short_day) as (house, since):
        cuts = list(before_syncs(house.recorder.log, since=since))
        assert len(cuts) > 1_000
        assert await complaints(house, cuts if EVERY else sample(cuts, 500)) == []


@pytest.mark.conformance("C58", "S6")
@pytest.mark.long
async def test_a_second_power_cut_while_a_house_recovers_from_the_first() -> None:
    async with lived(a_short_day) as (house, since):
        first_cuts = power_cuts(house.recorder.log, since=since, shuffles=0, seed=SEED)
        second_cuts = 0
        for first, files in states(house.recorder.log, sample(first_cuts, 200 if EVERY else 12)):
            with scratch_folder() as folder, recording(folder) as recorder:
                write_out(files, folder)
                recorder.adopt()
                begun = recorder.position
                clock = SetClock(house.clock.time + 60)
                storage = await open_storage(folder, clock, SEED + 1_000_000, recorder)
                await storage.sweep(clock.time)
                storage.abandon()
                cuts = power_cuts(recorder.log, since=begun, shuffles=1, seed=SEED)
                second_cuts += len(cuts)
                with scratch_folder() as scratch:
                    for second, left in states(recorder.log, cuts):
                        again = scratch / "again"
                        again.mkdir()
                        write_out(left, again)
                        assert await recover(house, again, first.position) == [], f"{first}, then {second}"
                        shutil.rmtree(again)
        assert second_cuts > 200, "hardly anything was written"


@pytest.mark.conformance("C313", "S6")
@days
async def test_nothing_is_answered_before_it_is_durable(day: Day) -> None:
    async with lived(day) as (house, _):
        assert unsynced_answers(house) == []


async def test_the_long_day_is_what_it_is_meant_to_be() -> None:
    async with lived(a_long_day) as (house, _):
        granted = [type(asked.step) for asked in house.ledger.asked if asked.granted]
        assert (granted.count(Accept), granted.count(Settle), granted.count(Expunge)) == (20, 5, 5)
        sizes = {path.stat().st_size for path in house.recorder.folder.rglob("*") if path.is_file()}
        assert any(0 <= size - FILE_OCTETS < 1_000 for size in sizes), "no content stands in a file of its own"


async def test_one_commit_takes_the_mail_of_several_sessions_on_a_crowded_day() -> None:
    async with lived(a_crowded_day, threads=True) as (house, _):
        answers = [asked.answered for asked in house.ledger.asked if isinstance(asked.step, Accept)]
        assert len(set(answers)) < len(answers)


async def test_a_power_cut_while_a_house_is_founded() -> None:
    async def nothing(house: House) -> None:
        pass

    async with lived(nothing) as (house, until):
        cuts = power_cuts(house.recorder.log[:until], since=0, shuffles=1, seed=SEED)
        # Accounts that were not yet added cannot be looked into: here it matters that every state opens and is sound.
        house.accounts = ()
        assert await complaints(house, sample(cuts, 80)) == []
