"""What a queue costs at 10,000 and at 1,000,000 waiting recipients, four of five of them for one dead destination.

    PYTHONPATH=src python benchmarks/queue_size.py [--few 10000] [--many 1000000] [--busy 15]

One JSON line for each size, with medians in ms, and one with the ratios, which are what is comparable between machines.
`first_reply_s` is from the start of `posthouse serve` to its first 220 and, as `again_s`, after a kill while every next
hop refused the connection; `rss_mib` is after the start, `peak_mib` the most in `--busy` seconds of such work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.house.served import ServedHouse
from tests.storage.contract.world import FAR, House, SeededRandom, SetClock, settlement
from tests.storage.sqlite.crowd import DEAD, crowd

from posthouse.storage.sqlite.storage import SqliteStorage

ROUNDS = 15
DUE_LIMIT = 1_000
NOWHERE = '[forwarding]\nroutes = { "*" = "127.0.0.1:1" }\n'


async def storage_ms(folder: Path, count: int) -> dict[str, float]:
    """Medians of what a house does all the time, on a store with that many rows."""
    clock, chance = SetClock(time.time()), SeededRandom(1)

    async def open_it(*, create: bool = False) -> SqliteStorage:
        return await SqliteStorage.open(folder, clock=clock, random=chance, create=create)

    house = House(await open_it(create=True), clock, chance, open_it)
    await house.accept()
    await house.storage.close()
    crowd(folder, count, clock.now())
    os.sync()
    house.storage = await open_it()
    spool, now = house.storage.spool, clock.now()
    found = {
        "due_ms": await median_ms(lambda: spool.due(now, DUE_LIMIT)),
        "accept_ms": await median_ms(lambda: house.accept(forwards=1)),
        "accept_1000_ms": await median_ms(lambda: house.accept(forwards=1_000)),
        "claim_100_ms": await median_ms(lambda: spool.claim(DEAD, 100, now)),
        "claim_1_ms": await median_ms(lambda: spool.claim(FAR, 1, clock.now())),
    }
    plans = [settlement(await house.claim(100, DEAD), now + 300) for _ in range(ROUNDS)]
    keys = [[(row.queue_id, row.recipient_number) for row in plan.rows] for plan in plans]
    marks = iter(list(zip(plans, keys, strict=True)))

    async def mark() -> None:
        plan, wanted = next(marks)
        assert await spool.mark_sending(plan.token, wanted, now)

    found["mark_100_ms"] = await median_ms(mark)
    settled = iter(plans)
    found["settle_100_ms"] = await median_ms(lambda: house.storage.settle(next(settled)))
    await house.storage.close()
    return found


async def median_ms(work: Callable[[], Awaitable[object]]) -> float:
    spent = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await work()
        spent.append((time.perf_counter() - began) * 1000)
    return round(statistics.median(spent), 2)


def served(folder: Path, count: int, busy_s: float) -> dict[str, float]:
    """Start, memory, and start again after a kill in the middle of the work."""
    with ServedHouse(folder, ("ada@here.test",), NOWHERE, ("smtp",)) as house:
        # Content for the rows to have; nobody reads it before the next hop is reached.
        asyncio.run(one_message(folder))
        crowd(folder, count, time.time())
        os.sync()
        found = {"first_reply_s": first_reply_s(house), "rss_mib": house.memory_kib("VmRSS") // 1024}
        time.sleep(busy_s)
        found |= {"peak_mib": house.memory_kib("VmHWM") // 1024}
        house.kill()
        found |= {"again_s": first_reply_s(house)}
    return found


async def one_message(folder: Path) -> None:
    clock = SetClock(time.time())
    storage = await SqliteStorage.open(folder, clock=clock, random=SeededRandom(3))
    await House(storage, clock, SeededRandom(4), lambda: None).accept()  # type: ignore[arg-type,return-value]
    await storage.close()


def first_reply_s(house: ServedHouse) -> float:
    """Seconds until the house said 220, that of the interpreter included."""
    began = time.perf_counter()
    house.start()
    with socket.create_connection(("127.0.0.1", house.ports["smtp"]), timeout=30) as wire:
        assert wire.recv(100).startswith(b"220 ")
    return round(time.perf_counter() - began, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--busy", type=float, default=15.0)
    options = parser.parse_args()
    results = []
    for count in (options.few, options.many):
        with tempfile.TemporaryDirectory() as stored, tempfile.TemporaryDirectory() as serving:
            figures = asyncio.run(storage_ms(Path(stored), count)) | served(Path(serving), count, options.busy)
        print(json.dumps({"rows": count, **figures}), flush=True)
        results.append(figures)
    few, many = results
    print(json.dumps({"ratios": {name: round(many[name] / few[name], 2) for name in few}}))


if __name__ == "__main__":
    main()
