"""From the start of `posthouse serve` to its first `220`, after a kill under load, and what that time consists of.

    PYTHONPATH=src python benchmarks/recovery.py [--rounds 15] [--waiting 100000] [--wal 64] [--load 1.0]

A house takes mail, is read and forwards (all next hops refuse), until `kill -9`; then it is started again. Three
cases: as it is; with so many rows in its queue; and with a write-ahead log of so many MiB left over, which no
checkpoint has taken. One JSON line each: medians, and p99, in seconds. `imports` is the same interpreter importing
what `serve` imports; `open` the time in `open_storage`, WAL and dead claims included; `rest` all else. `cpu` is the
processor time of the start, which is what to compare where the machine is busy.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import apsw
from tests.house.served import SRC, ServedHouse
from tests.house.wire import Wire
from tests.storage.sqlite.crowd import crowd

from posthouse.config import load
from posthouse.engines import open_storage
from posthouse.world import World

PERSON = "ada@here.test"
CONTENT = b"Subject: load\r\n\r\n" + b"x" * 4000 + b"\r\n"
SETTINGS = (
    '[reception]\ntrusted_networks = ["127.0.0.0/8"]\n[forwarding]\nroutes = { "*" = "127.0.0.1:1" }\nretry = ["1s"]\n'
)
IMPORTS = "import posthouse.cli, posthouse.cli.serve, posthouse.app, uvloop"


def under_load(house: ServedHouse, load_s: float) -> None:
    """Accept, forward and read, and be killed in the middle of it."""
    dying = threading.Event()

    def send(number: int) -> None:
        with contextlib.suppress(OSError, AssertionError), Wire(house.ports["smtp"]) as wire:
            wire.greet()
            while not dying.is_set():
                wire.deliver(CONTENT, PERSON, f"x@far{number}.test")

    def read() -> None:
        while not dying.is_set():
            with contextlib.suppress(OSError, AssertionError), Wire(house.ports["pop3"]) as wire:
                wire.login(PERSON)
                for number in range(1, len(wire.uidls()) + 1):
                    wire.retrieve(number)
                    wire.pop3(f"DELE {number}")
                wire.pop3("QUIT")

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    threads.append(threading.Thread(target=read))
    for thread in threads:
        thread.start()
    time.sleep(load_s)
    dying.set()
    house.kill()
    for thread in threads:
        thread.join()


def grow_wal(folder: Path, mib: int) -> None:
    """Leave a write-ahead log of that size, as after a kill before a checkpoint: committed, synced, and not taken."""
    script = (
        "import apsw, os, sys\n"
        "c = apsw.Connection(sys.argv[1])\n"
        "c.execute('PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=FULL')\n"
        "c.execute('CREATE TABLE IF NOT EXISTS ballast (octets BLOB)')\n"
        "while os.path.getsize(sys.argv[1] + '-wal') < int(sys.argv[2]) << 20:\n"
        "    c.execute('BEGIN'); c.execute('DELETE FROM ballast')\n"
        "    c.executemany('INSERT INTO ballast VALUES (zeroblob(?))', [(60000,)] * 16); c.execute('COMMIT')\n"
        "c.execute('DROP TABLE ballast')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(folder / "posthouse.db"), str(mib)], check=False)


def started(house: ServedHouse) -> dict[str, float]:
    """Start it; seconds to the first 220, and of the processor until then."""
    began = time.perf_counter()
    house.start()
    with socket.create_connection(("127.0.0.1", house.ports["smtp"]), timeout=60) as wire:
        assert wire.recv(100).startswith(b"220 ")
    return {"first_220_s": time.perf_counter() - began, "cpu_s": house.processor_s()}


def imports_s() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, env={**os.environ, "PYTHONPATH": str(SRC)})
    return time.perf_counter() - began


def open_s(folder: Path) -> float:
    """What opening the store takes, on a copy as the kill left it."""

    async def open_it() -> float:
        config = load(folder / "posthouse.toml")
        began = time.perf_counter()
        storage = await open_storage(config, World())
        took = time.perf_counter() - began
        await storage.close()
        return took

    return asyncio.run(open_it())


def measure(name: str, options: argparse.Namespace, prepare: Callable[[Path], None], *, each: bool) -> None:
    """`prepare` makes the case, once, or before `each` round, while the house is down."""
    found: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory() as place,
        ServedHouse(Path(place), (PERSON,), SETTINGS, ("smtp", "pop3")) as house,
    ):
        folder = Path(place)
        house.start()
        under_load(house, options.load)
        for number in range(options.rounds):
            if each or number == 0:
                prepare(folder)
            log = folder / "posthouse.db-wal"
            wal_mib = log.stat().st_size / (1 << 20) if log.exists() else 0.0
            with tempfile.TemporaryDirectory() as copy:
                subprocess.run(["cp", "-a", f"{folder}/.", copy], check=True)
                opening = open_s(Path(copy))
            figures = started(house) | {"imports_s": imports_s(), "open_s": opening, "wal_mib": wal_mib}
            figures["rest_s"] = max(0.0, figures["first_220_s"] - figures["imports_s"] - opening)
            found.append(figures)
            under_load(house, options.load)
    medians = {key: round(statistics.median(each[key] for each in found), 3) for key in found[0]}
    worst = sorted(each["first_220_s"] for each in found)[min(len(found) - 1, int(len(found) * 0.99))]
    print(json.dumps({"case": name, "rounds": len(found), **medians, "p99_s": round(worst, 3)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--wal", type=int, default=64)
    parser.add_argument("--load", type=float, default=1.0)
    options = parser.parse_args()
    print(json.dumps({"load_average": os.getloadavg()[0], "sqlite": apsw.sqlite_lib_version()}), flush=True)
    measure("as it is", options, lambda _folder: None, each=False)
    measure("queue", options, lambda folder: crowd(folder, options.waiting, time.time()), each=False)
    measure("write-ahead log", options, lambda folder: grow_wal(folder, options.wal), each=True)


if __name__ == "__main__":
    main()
