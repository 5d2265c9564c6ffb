"""A disk that fails: what was answered with an error is absent, also after a power cut; what was granted is there.

The n-th write, truncation, sync or creation of a file fails, for every n, once or from then on. A failed fsync leaves
its writes in doubt for ever, so the refused message must not come back from the WAL.
"""

from __future__ import annotations

import random

import pytest
from tests.storage.crash.acts import (
    ACTS,
    Act,
    accept_file,
    accept_small,
    accept_together,
    expunge,
    mark,
    settle_with_report,
)
from tests.storage.crash.disk import PowerCut, power_cuts
from tests.storage.crash.house import FILE_OCTETS, SMALL_OCTETS, Died, House, open_house, recording
from tests.storage.crash.recording import Fault, Kind, Trouble
from tests.storage.crash.recovery import complaints, scratch_folder

from posthouse.storage.errors import StorageBusy, StorageError, StorageFull

SEED = 20_260_802
MOST_OPERATIONS = 300
CUTS_PER_FAULT = 40


def each(*, always: tuple[tuple[Act, Trouble], ...]) -> pytest.MarkDecorator:
    """Every act with every trouble; all but a few take long enough to be marked so."""
    pairs = [(act, trouble) for act in ACTS for trouble in Trouble]
    marked = [pytest.param(*pair, marks=() if pair in always else (pytest.mark.long,)) for pair in pairs]
    return pytest.mark.parametrize(("act", "trouble"), marked)


async def strike(act: Act, fault: Fault, *, any_moment: bool, threads: bool) -> bool:
    """Do it on a disk with this fault, go on, cut the power and recover. False: the fault was never reached."""
    with scratch_folder() as folder, recording(folder) as recorder:
        house = await open_house(recorder, SEED, threads=threads)
        await house.accept(SMALL_OCTETS, to=(0,), forwards=1)
        await house.accept(FILE_OCTETS, to=(0, 1))
        since = recorder.position
        recorder.fault = fault
        answer = await answered(house, act)
        recorder.fault = None
        at = recorder.position
        if isinstance(answer, Died):
            house.storage.abandon()
        else:
            await house.accept(SMALL_OCTETS, to=(0, 1))
        ends = recorder.position
        await house.storage.close()
        if fault.hit is None:
            return False
        cuts = power_cuts(recorder.log[:ends], since=since, shuffles=2, seed=SEED)
        at_rest = [cut for cut in cuts if cut.position in (at, ends)]
        wrong = await complaints(house, sample(cuts, seed=fault.nth) if any_moment else at_rest)
        assert not wrong, f"{fault.nth}: {fault.hit} failed; {answer!r} was answered after operation {at}; {wrong}"
        return True


def sample(cuts: list[PowerCut], seed: int) -> list[PowerCut]:
    chosen = random.Random(seed).sample(cuts, min(CUTS_PER_FAULT, len(cuts)))
    return sorted(chosen, key=lambda cut: cut.position)


async def answered(house: House, act: Act) -> StorageError | Died | None:
    """Do it; why it was refused, if it was. Any other error is a bug."""
    try:
        await act(house)
    except (StorageBusy, StorageFull, Died) as refusal:
        return refusal
    return None


async def strike_each(
    act: Act, trouble: Trouble, *, more: int = 0, any_moment: bool = False, threads: bool = False
) -> None:
    """Let the n-th operation fail, for every n, and the `more` after it."""
    nth = 0
    while await strike(act, Fault(trouble, nth, more=more), any_moment=any_moment, threads=threads):
        nth += 1
        assert nth < MOST_OPERATIONS
    assert nth > 0, "nothing was written"


FULL, BROKEN, NO_DESCRIPTORS = Trouble.FULL, Trouble.BROKEN, Trouble.NO_DESCRIPTORS


@pytest.mark.conformance("C103", "C290", "C314", "S6")
@each(
    always=(
        (accept_small, FULL),
        (accept_small, BROKEN),
        (accept_file, BROKEN),
        (accept_file, NO_DESCRIPTORS),
        (accept_file, Trouble.OVER_QUOTA),
        (settle_with_report, BROKEN),
        (mark, BROKEN),
        (expunge, BROKEN),
    )
)
async def test_each_operation_fails_once(act: Act, trouble: Trouble) -> None:
    await strike_each(act, trouble)


@each(always=((accept_small, BROKEN),))
async def test_all_operations_fail_from_one_on(act: Act, trouble: Trouble) -> None:
    await strike_each(act, trouble, more=MOST_OPERATIONS)


@pytest.mark.parametrize("trouble", [FULL, pytest.param(BROKEN, marks=pytest.mark.long)])
async def test_each_operation_of_a_shared_commit_fails_once(trouble: Trouble) -> None:
    await strike_each(accept_together, trouble, threads=True)


@pytest.mark.conformance("C290", "S6")
@pytest.mark.long
@pytest.mark.parametrize("act", ACTS)
async def test_each_operation_fails_once_and_the_power_is_cut_at_any_moment(act: Act) -> None:
    await strike_each(act, BROKEN, any_moment=True)


@pytest.mark.parametrize("kind", [Kind.MAKE_FOLDER, Kind.SYNC_FOLDER])
async def test_a_folder_that_failed_once_is_made_durable_for_its_next_file(kind: Kind) -> None:
    with scratch_folder() as folder, recording(folder) as recorder:
        house = await open_house(recorder, SEED)
        house.storage.content.budget_octets = 0
        recorder.fault = Fault(Trouble.BROKEN, 0, frozenset({kind}))
        assert isinstance(await answered(house, accept_small), StorageBusy)
        recorder.fault = None
        # Content files go round 256 folders.
        for _ in range(255):
            draft = await house.storage.content.draft()
            await draft.write(b"\r\n")
            await draft.discard()
        await house.accept(SMALL_OCTETS)
        ends = recorder.position
        await house.storage.close()
        cuts = power_cuts(recorder.log[:ends], since=ends, shuffles=0, seed=SEED)
        assert await complaints(house, cuts) == []


async def test_a_full_disk_is_called_full() -> None:
    with scratch_folder() as folder, recording(folder) as recorder:
        house = await open_house(recorder, SEED)
        for act in (accept_small, accept_file):
            recorder.fault = Fault(Trouble.FULL, 0, frozenset({Kind.WRITE}))
            assert isinstance(await answered(house, act), StorageFull)
        recorder.fault = None
        await house.storage.close()
