"""Each system call of storage that writes ends the process, or fails: what was answered holds after the next start.

The calls of one acceptance, settle, expunge, sweep, checkpoint, backup, start and upgrade, by strace on a real disk.
The bounded form leaves out many of the page writes of one commit; POSTHOUSE_FAULTS=all leaves out none.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.faults.driver import ACTS, CALLS, OPENING, UPGRADE
from tests.faults.strace import KILL, error
from tests.faults.striking import Driver, Striker, Template, templates
from tests.peers.conftest import program
from tests.storage.crash.recovery import scratch_folder

pytestmark = [pytest.mark.long, pytest.mark.peers]

ALL = os.environ.get("POSTHOUSE_FAULTS") == "all"
EVERY = (*ACTS, OPENING, UPGRADE)
SPARSE = {"back_up": 6, UPGRADE: 20}
"""Acts of many pages: each how many-th page write is struck."""


@pytest.fixture(scope="module")
def template() -> Iterator[Template]:
    with scratch_folder() as folder, templates(folder) as made:
        yield made


def strike_all(template: Template, what: str, calls: tuple[str, ...], page_step: int) -> Counter[str]:
    """How many calls of each name were struck, in all acts together."""
    hits: Counter[str] = Counter()
    strace = program("strace").path
    with scratch_folder() as scratch, Driver(strace, what, scratch / "strace.log") as driver:
        striker = Striker(driver, template, scratch)
        for act in EVERY:
            counts = striker.count(act)
            for call in calls:
                step = max(page_step, SPARSE.get(act, 1)) if call == "pwrite64" and not ALL else 1
                hits[call] += striker.strike_each(act, call, counts, step)
    return hits


@pytest.mark.conformance("C58", "C103", "S6")
def test_the_process_ends_at_each_call(template: Template) -> None:
    hits = strike_all(template, KILL, CALLS, 1)
    assert min(hits.values()) > 0, f"a call that no act makes: {hits}"
    assert hits["pwrite64"] > 200
    assert hits["fsync"] > 10


@pytest.mark.conformance("C290", "C313", "S6")
@pytest.mark.parametrize(
    ("name", "calls", "page_step"),
    [
        ("EIO", CALLS, 3),
        ("ENOSPC", ("pwrite64", "write", "fsync", "fdatasync", "ftruncate", "openat", "mkdir", "linkat", "rename"), 7),
        ("EDQUOT", ("pwrite64", "write", "fsync", "openat", "mkdir"), 11),
        ("EMFILE", ("openat",), 1),
    ],
)
def test_each_call_fails(template: Template, name: str, calls: tuple[str, ...], page_step: int) -> None:
    hits = strike_all(template, error(name), calls, page_step)
    assert min(hits[call] for call in calls) > 0, f"a call that no act makes: {hits}"
