"""`scripts/simulate`: many seeds on all processors, or one of them in full."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.faults import Adversity
from tests.simulation.world import Failed, Options, Summary, simulate

CHUNK = 10
MEMORY = Path("/dev/shm")


@dataclass(slots=True)
class Sums:
    """What many seeds covered."""

    seeds: int = 0
    sent: int = 0
    accepted: int = 0
    taken_outside: int = 0
    deaths: int = 0
    connections: int = 0
    steps: int = 0
    audits: int = 0
    days: float = 0.0

    def add(self, summary: Summary) -> None:
        self.seeds += 1
        for field in dataclasses.fields(self):
            if field.name != "seeds":
                setattr(self, field.name, getattr(self, field.name) + getattr(summary, field.name))

    def __str__(self) -> str:
        return (
            f"{self.seeds:,} seeds: {self.sent:,} messages sent, {self.accepted:,} acknowledged, "
            f"{self.taken_outside:,} taken by outside hosts, {self.connections:,} connections, "
            f"{self.deaths:,} deaths and restarts, {self.audits:,} audits, {self.steps:,} steps, "
            f"{self.days / 365:.1f} simulated years"
        )


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for the disks, in memory where there is such a place: they are synced by nobody."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        yield Path(folder)


def run_chunk(first: int, count: int, without: frozenset[Adversity] = frozenset()) -> tuple[list[Summary], list[str]]:
    """Some seeds; what they covered, and what failed in them."""
    summaries, failures = [], []
    # What is there now stays: to look at it again and again would be a tenth of the time.
    gc.freeze()
    with scratch() as folder:
        for seed in range(first, first + count):
            try:
                summaries.append(simulate(seed, folder, Options(without=without)))
            except Failed as exc:
                failures.append(str(exc))
    return summaries, failures


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, metavar="N", help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="S", help="the first of them")
    parser.add_argument("--seed", type=int, metavar="S", help="only this one")
    parser.add_argument("--trace", action="store_true", help="tell everything that happens, with --seed")
    parser.add_argument("--without", action="append", default=[], choices=[kind.value for kind in Adversity])
    parser.add_argument("--until", type=float, default=float("inf"), metavar="T", help="stop at this time of the world")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args(arguments)
    without = frozenset(Adversity(kind) for kind in asked.without)
    if asked.seed is not None:
        return _one(asked.seed, Options(without=without, until=asked.until, trace=print if asked.trace else None))
    return _many(asked.first, asked.seeds, without, asked.processes)


def _one(seed: int, options: Options) -> int:
    with scratch() as folder:
        try:
            options.hashed = True
            print(simulate(seed, folder, options))
        except Failed as exc:
            print(exc)
            return 1
    return 0


def _many(first: int, count: int, without: frozenset[Adversity], processes: int) -> int:
    sums, failures, began = Sums(), 0, time.monotonic()
    chunks = [(at, min(CHUNK, first + count - at)) for at in range(first, first + count, CHUNK)]
    with ProcessPoolExecutor(processes) as pool:
        for summaries, failed in pool.map(run_chunk, *zip(*chunks, strict=True), [without] * len(chunks)):
            for text in failed:
                print(text, end="\n\n")
            failures += len(failed)
            for summary in summaries:
                sums.add(summary)
            print(f"\r{sums.seeds + failures}/{count}, {failures} failed", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(f"{sums}; {failures} failed; {time.monotonic() - began:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
