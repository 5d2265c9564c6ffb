"""How long `posthouse queue` takes, from process start to exit, beside a running house with 100,000 that wait.

    PYTHONPATH=src python benchmarks/queue_commands.py [--rows 100000] [--rounds 3] [--actions]

One JSON line for each command: the best of the rounds, in seconds of the clock and of the processor. Each recipient is
a message of its own, four of five for one destination. Actions change all rows, and are undone between rounds.

While they run, a client hands in one message after another. For each action then, the worst of the rounds: `done_s`,
from the start of the command until the house has changed every row; `list_s`, `queue list --summary` begun when the
command ended; `wait_s`, the longest that a message waited for its 250 meanwhile. A table of them comes last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import smtplib
import subprocess
import sys
import tempfile
import threading
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


class Client:
    """Hands in one message after another, and knows how long the longest took."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.longest_s = 0.0
        self.accepted = 0

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with smtplib.SMTP("127.0.0.1", self._port) as session:
            session.ehlo("client.test")
            while not self._ended.is_set():
                began = time.perf_counter()
                session.sendmail("a@far.test", ["ada@here.test"], "Subject: wait\r\n\r\n")
                self.longest_s = max(self.longest_s, time.perf_counter() - began)
                self.accepted += 1
                time.sleep(0.002)


def wait_until_done(data: Path) -> None:
    """Until nothing is left of what was ordered."""
    connection = apsw.Connection(str(data / DATABASE), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(10_000)
    while connection.execute("SELECT 1 FROM orders LIMIT 1").fetchall():
        time.sleep(0.02)
    connection.close()


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
    parser.add_argument("--actions", action="store_true", help="only these")
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
        for command in () if options.actions else LOOKS:
            line = tuple(queue_id if word == "ID" else word for word in command)
            tell(command, [run(folder, line) for _ in range(options.rounds)])
        table = [act(house, folder, command, options.rounds) for command in ACTIONS]
    for name, *figures in (("", "s", "done_s", "list_s", "wait_s"), *table):
        print(f"{name:10}" + "".join(f"{figure:>8}" for figure in figures))


def act(house: ServedHouse, folder: Path, command: tuple[str, ...], rounds: int) -> tuple[str, ...]:
    """Do it, undo it, tell of it; the row of the table."""
    taken: list[tuple[float, float]] = []
    worst = {"done_s": 0.0, "list_s": 0.0, "wait_s": 0.0}
    # What removes can be done once.
    for number in range(1 if "remove" in command else rounds):
        put_off(folder)
        if command == RELEASE:
            run(folder, ("queue", "hold", "all", "--yes"))
            wait_until_done(folder)
        with Client(house.ports["smtp"]) as client:
            began = time.perf_counter()
            taken.append(run(folder, command))
            # In every other round nobody asks, and the house does it by itself.
            listed_s = run(folder, ("queue", "list", "--summary"))[0] if number % 2 == 0 else 0.0
            wait_until_done(folder)
            done_s = time.perf_counter() - began
        for name, figure in (("done_s", done_s), ("list_s", listed_s), ("wait_s", client.longest_s)):
            worst[name] = max(worst[name], round(figure, 3))
    clock_s = tell(command, taken, **worst)
    return command[1], f"{clock_s:.2f}", *(f"{figure:.2f}" for figure in worst.values())


def tell(command: tuple[str, ...], taken: list[tuple[float, float]], **more: float) -> float:
    clock_s, processor_s = min(taken)
    figures = {"command": " ".join(command), "s": round(clock_s, 2), "processor_s": round(processor_s, 2), **more}
    print(json.dumps(figures), flush=True)
    return clock_s


if __name__ == "__main__":
    main()
