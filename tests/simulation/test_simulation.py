"""Worlds from seeds: a handful each time, two thousand with `scripts/test --all`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.faults import Adversity
from tests.simulation.ledger import Violation
from tests.simulation.regressions import REGRESSIONS
from tests.simulation.run import Sums, run_chunk, scratch
from tests.simulation.world import Failed, Options, simulate

SEEDS = 2000
CHUNK = 50
FEW = range(4)


@pytest.mark.parametrize("seed", sorted(REGRESSIONS))
def test_found_before(seed: int, tmp_path: Path) -> None:
    simulate(seed, tmp_path)


@pytest.mark.parametrize("seed", FEW)
def test_world(seed: int, tmp_path: Path) -> None:
    assert simulate(seed, tmp_path).accepted


@pytest.mark.long
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_worlds(first: int) -> None:
    """What fails prints its seed, the last events, and the command that repeats it."""
    sums = Sums()
    summaries, failures = run_chunk(first, CHUNK)
    for summary in summaries:
        sums.add(summary)
    print(sums)
    assert not failures, "\n\n".join(failures)
    # (Two thousand worlds take 2.07 messages each in the mean; fifty of them now and then below two.)
    assert sums.accepted > CHUNK
    assert sums.deaths > CHUNK / 2


def test_one_seed_is_one_history() -> None:
    """Whatever the order of sets and addresses of objects: twice here, and once in another process."""
    seed = 15
    with scratch() as folder:
        one, other = (simulate(seed, folder, Options(hashed=True)) for _ in range(2))
    assert one == other
    program = (
        "import sys; from tests.simulation.run import scratch; from tests.simulation.world import *\n"
        f"with scratch() as folder: print(simulate({seed}, folder, Options(hashed=True)).trace)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == one.trace


def test_a_failure_says_how_to_repeat_it(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"(?s)seed 3 .*the last events:.*scripts/simulate --seed 3 --trace") as caught:
        simulate(3, tmp_path, Options(until=60.0))
    assert isinstance(caught.value.__cause__, Violation)


def test_without_a_kind_of_fault(tmp_path: Path) -> None:
    """The rest of the world stays as it was drawn: whoever looks for a cause leaves out one kind after the other."""
    assert simulate(1, tmp_path).deaths
    kinds = frozenset({Adversity.KILL, Adversity.POWER, Adversity.RESTART, Adversity.BAD_DISK, Adversity.FULL_DISK})
    assert not simulate(1, tmp_path, Options(without=kinds)).deaths
