"""How long `posthouse queue` takes, from process start to exit, beside a running house with 100,000 that wait.

    PYTHONPATH=src python benchmarks/queue_commands.py [--rows 100000] [--rounds 3]

One JSON line for each command: the best of the rounds, in seconds of the clock and of the processor. Each recipient is
a message of its own, four of five for one destination. Actions change all rows, and are undone between rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import apsw
from tests.house.served import ServedHouse
from tests.storage.contract.world import House, SeededRandom, SetClock

from posthouse.mail.ids import first_queue_id
from posthouse.storage.sqlite.connection import DATABASE
from posthouse.storage.sqlite.storage import SqliteStorage

NOWHERE = '[forwarding]\nroutes = { "*" = "127.0.0.1:1" }\n'
HOUR_S = 3600.0
LOOKS = (
    ("--help",),
    ("queue", "list"),
    ("queue", "list", "--summary"),
    ("queue", "list", "to:@big.test", "--json"),
    ("queue", "list", "to:r7@big.test"),
    ("queue", "list", "from:sender@far.test", "older:2h", "attempts:>1"),
    ("queue", "list", "reply:4.7.28", "size:>1", "held:no"),
    ("queue", "list", "domain:test", "account:ada@here.test"),
    ("queue", "show", "ID"),
    ("queue", "hold", "all", "--dry-run"),
    ("queue", "remove", "to:@big.test", "older:1h", "--dry-run"),
    ("queue", "release", "size:>1", "from:@far.test", "--dry-run"),
)
RELEASE = ("queue", "release", "--all", "--yes")
ACTIONS = (
    ("queue", "hold", "all", "--yes"),
    RELEASE,
    ("queue", "retry", "reply:4.7.28", "--yes"),
    ("queue", "remove", "older:1h", "--yes"),
)


def fill(data: Path, rows: int, now: float) -> str:
    """A queue that was tried and waits; the id of one message."""
    prefix = first_queue_id(now - 3 * HOUR_S)[:10]
    connection = apsw.Connection(str(data / DATABASE))
    connection.set_busy_timeout(10_000)
    connection.execute("BEGIN IMMEDIATE")
    numbers = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)"
    connection.execute(
        f"""INSERT INTO messages {numbers} SELECT '{prefix}' || printf('%016d', i), (SELECT max(content) FROM contents),
        ?2 - 10800, 'sender', 'far.test', zeroblob(300), NULL, NULL, 0, '7BIT', 0, 0, 0, 0, 0, NULL FROM n""",
        (rows, now),
    )
    connection.execute(
        f"""INSERT INTO events {numbers} SELECT '{prefix}' || printf('%016d', i), 1, ?2, 'queued',
        '{{"forward_path":"r@big.test","domain":"big.test"}}' FROM n""",
        (rows, now),
    )
    connection.execute(
        f"""INSERT INTO spool(queue_id, recipient_number, forward_local_part, forward_domain, reverse_local_part,
        reverse_domain, via, domain, not_before, expires_at, attempts, last_reply, tried_at) {numbers}
        SELECT '{prefix}' || printf('%016d', i), 0, 'r' || i, d, 'sender', 'far.test', '', d, ?2 + 3600, ?2 + 432000, 3,
        '451 4.7.28 Too much mail from your address', ?2 - 60
        FROM (SELECT i, CASE WHEN i % 5 THEN 'big.test' ELSE printf('d%04d.test', i % 2000) END AS d FROM n)""",
        (rows, now),
    )
    connection.execute("COMMIT")
    connection.close()
    return f"{prefix}{7:016d}"


def put_off(data: Path) -> None:
    """All of it waits again, unheld."""
    connection = apsw.Connection(str(data / DATABASE))
    connection.set_busy_timeout(10_000)
    later = (time.time() + HOUR_S,)
    connection.execute("UPDATE spool SET held = 0, not_before = ? WHERE claim_token IS NULL", later)
    connection.close()


def run(folder: Path, command: tuple[str, ...]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    line = [sys.executable, "-m", "posthouse.cli", *command]
    ran = subprocess.run(line, check=False, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    spent = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ran.returncode == 0, (command, ran.stdout[-300:], ran.stderr)
    return spent, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def one_message(folder: Path) -> None:
    clock = SetClock(time.time())
    storage = await SqliteStorage.open(folder, clock=clock, random=SeededRandom(3))
    await House(storage, clock, SeededRandom(4), lambda: None).accept()  # type: ignore[arg-type,return-value]
    await storage.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1] / "src")
    with (
        tempfile.TemporaryDirectory() as name,
        ServedHouse(Path(name), ("ada@here.test",), NOWHERE, ("smtp",)) as house,
    ):
        folder = Path(name)
        asyncio.run(one_message(folder))
        queue_id = fill(folder, options.rows, time.time())
        house.start()
        for command in (*LOOKS, *ACTIONS):
            line = tuple(queue_id if word == "ID" else word for word in command)
            # What removes can be done once.
            rounds = 1 if "remove" in command and "--yes" in command else options.rounds
            taken = []
            for _ in range(rounds):
                if command in ACTIONS:
                    put_off(folder)
                if command == RELEASE:
                    run(folder, ("queue", "hold", "all", "--yes"))
                taken.append(run(folder, line))
            clock_s, processor_s = min(taken)
            figures = {"command": " ".join(command), "s": round(clock_s, 2), "processor_s": round(processor_s, 2)}
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
