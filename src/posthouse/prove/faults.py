"""What is broken, and when: each round's faults follow from the seed and the round's number, and from nothing else."""

from __future__ import annotations

import random
import sys
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Family(StrEnum):
    """What `--faults` chooses from."""

    KILL = "kill"
    WORKER = "worker"
    NETWORK = "network"
    FREEZE = "freeze"
    RESTART = "restart"
    RELOAD = "reload"
    DISK = "disk"


class Fault(StrEnum):
    """One thing that is done to houses, or to all connections at once."""

    KILL_HOUSE = "kill -9: house"
    KILL_NEIGHBOUR = "kill -9: neighbour"
    KILL_BOTH = "kill -9: both houses"
    KILL_WORKER = "kill -9: a worker"
    KILL_PARENT = "kill -9: the workers' parent"
    STOP_NETWORK = "network: nothing passes"
    RESET_NETWORK = "network: all connections reset"
    FREEZE_HOUSE = "SIGSTOP: house"
    FREEZE_NEIGHBOUR = "SIGSTOP: neighbour"
    RESTART_HOUSE = "SIGTERM: house"
    RESTART_NEIGHBOUR = "SIGTERM: neighbour"
    RELOAD_HOUSE = "SIGHUP: house"
    FULL_DISK = "full disk: house"


_OF_FAMILY: dict[Family, tuple[Fault, ...]] = {
    Family.KILL: (Fault.KILL_HOUSE, Fault.KILL_HOUSE, Fault.KILL_NEIGHBOUR, Fault.KILL_BOTH),
    Family.WORKER: (Fault.KILL_WORKER, Fault.KILL_WORKER, Fault.KILL_PARENT),
    Family.NETWORK: (Fault.STOP_NETWORK, Fault.RESET_NETWORK),
    Family.FREEZE: (Fault.FREEZE_HOUSE, Fault.FREEZE_NEIGHBOUR),
    Family.RESTART: (Fault.RESTART_HOUSE, Fault.RESTART_NEIGHBOUR),
    Family.RELOAD: (Fault.RELOAD_HOUSE,),
    Family.DISK: (Fault.FULL_DISK,),
}
LINUX_ONLY = {
    Family.WORKER: "which processes are workers is read from /proc",
    Family.DISK: "a running process is given a limit by prlimit",
}
LOAD_S = (4.0, 7.0)
EVERY_S = (0.6, 2.2)
"""From one fault to the next."""
WORKERS = 2
SHARES = (0.0, 0.05, 0.15, 0.3)
"""Of connections that are harmed."""


@dataclass(frozen=True, slots=True)
class Step:
    """A fault, `at_s` seconds after the load began, that lasts for `hold_s` where it lasts at all."""

    at_s: float
    fault: Fault
    hold_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round does. `ends_in_kill`: the house dies under load, and what is checked is what it recovers."""

    number: int
    seed: str
    workers: int
    load_s: float
    steps: tuple[Step, ...]
    shares: tuple[float, float, float]
    """Harmed connections: of senders, of readers, of the house to its neighbour."""
    ends_in_kill: bool


def possible(families: Collection[Family]) -> tuple[frozenset[Family], dict[Family, str]]:
    """Which of these work on this system, and why the others do not."""
    left_out = {} if sys.platform == "linux" else {f: why for f, why in LINUX_ONLY.items() if f in families}
    return frozenset(families) - left_out.keys(), left_out


def plan(seed: int, number: int, families: Collection[Family]) -> Round:
    """The round of that number."""
    chance = random.Random(f"{seed}/{number}")
    chosen = sorted(families)
    # A worker can only be killed where there are workers; a limit is set for one process.
    workers = WORKERS if Family.WORKER in families and number % 3 == 2 else 1
    unfit = Family.DISK if workers > 1 else Family.WORKER
    pool = [fault for family in chosen if family is not unfit for fault in _OF_FAMILY[family]]
    load_s = chance.uniform(*LOAD_S)
    steps = []
    at_s = chance.uniform(*EVERY_S)
    while pool and at_s < load_s:
        steps.append(Step(at_s, chance.choice(pool), chance.uniform(0.1, 1.5)))
        at_s += chance.uniform(*EVERY_S)
    network = Family.NETWORK in families
    return Round(
        number=number,
        seed=f"{seed}/{number}",
        workers=workers,
        load_s=load_s,
        steps=tuple(steps),
        shares=tuple(chance.choice(SHARES) if network else 0.0 for _ in range(3)),  # type: ignore[arg-type]
        ends_in_kill=Family.KILL in families and chance.random() < 0.7,
    )
