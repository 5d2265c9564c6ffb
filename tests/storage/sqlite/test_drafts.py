"""What a draft takes while it is written: the budget counts octets, so small pieces must not cost more than those."""

from __future__ import annotations

import random
import time
import tracemalloc
from pathlib import Path

from posthouse.storage.sqlite.content import LARGE_OCTETS
from posthouse.storage.sqlite.storage import SqliteStorage
from tests.storage.contract.world import SeededRandom, SetClock

PIECE = 2


async def test_small_pieces_cost_no_more_than_large_ones(tmp_path: Path) -> None:
    storage = await SqliteStorage.open(tmp_path, clock=SetClock(time.time()), random=SeededRandom(1), create=True)
    draft = await storage.content.draft()
    octets = random.Random(1).randbytes(LARGE_OCTETS - PIECE)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for at in range(0, len(octets), PIECE):
            await draft.write(octets[at : at + PIECE])
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    await draft.discard()
    await storage.close()
    assert after - before < 2 * LARGE_OCTETS
