"""Each planted bug is found, by the seed that finds it first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulation.planted import PLANTED
from tests.simulation.world import Failed, simulate

FOUND_BY = {
    "early-250": (1, "nobody has it"),
    "settled-without-claim": (93, "more than one report"),
    "report-about-report": (3, "a report about what came from the null path"),
    "partial-success-retried": (63, "is sent again"),
    "unsynced-commits": (7, "acknowledged and is not known"),
    "expunge-before-quit": (4, "gone without QUIT"),
    "refused-but-stored": (0, "was refused, and is stored"),
    "late-expiry": (149, "does not drain"),
    "no-claims-freed": (28, "does not drain"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_found(name: str, tmp_path: Path) -> None:
    seed, told = FOUND_BY[name]
    with PLANTED[name](), pytest.raises(Failed, match=told):
        simulate(seed, tmp_path)
