"""Messages taken in by SMTP until all are in the maildrop: Posthouse and Postfix in turn, on this machine.

    scripts/bench [--rounds 5] [--messages 2000] [--sessions 10] [--size 4096] [--keep-connection]

Needs root and the programs that scripts/peers fetches. Each round runs both, A B A B; the figures are medians, and the
ratio is what is comparable between machines. Both sync to disk before they answer, and log as shipped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.peers.postfix import PostfixServer
from tests.peers.programs import Program, find
from tests.running_house import furnish, house_config

RECIPIENT = "sink@house.test"


class Posthouse:
    """`posthouse serve` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.cpu_s = 0.0

    def start(self) -> None:
        import asyncio

        from posthouse.world import World

        config = house_config(self.folder)
        asyncio.run(furnish(config, World(), (RECIPIENT,)))
        (self.folder / "posthouse.toml").write_text(
            'hostname = "mx.house.test"\ndata_dir = "."\n[listen]\nsmtp = ["127.0.0.1:0"]\n'
            # Postfix asks no name servers either; ours would be asked once, for up to a second.
            "[reception]\nrefuse_null_mx_senders = false\n"
        )
        self._log = (self.folder / "log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "posthouse.cli", "serve", "--config", str(self.folder / "posthouse.toml")],
            stderr=self._log,
        )
        while not (found := re.search(r'"smtp": "127.0.0.1:(\d+)"', (self.folder / "log").read_text())):
            time.sleep(0.05)
        self.port = int(found[1])

    def delivered(self) -> int:
        import apsw

        connection = apsw.Connection(str(self.folder / "posthouse.db"), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return int(connection.execute("SELECT count(*) FROM entries").fetchall()[0][0])
        finally:
            connection.close()

    def stop(self) -> None:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        self._log.close()


def time_posthouse(arguments: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        house = Posthouse(Path(folder))
        house.start()
        took_s = _load(house.port, arguments)
        while house.delivered() < arguments.messages:
            time.sleep(0.005)
        house.stop()
    return {"rate": arguments.messages / took_s, "cpu_ms": 1000 * house.cpu_s / arguments.messages}


def time_postfix(arguments: argparse.Namespace) -> dict[str, float]:
    folder = Path(tempfile.mkdtemp(dir=arguments.folder, prefix="posthouse-postfix-"))
    folder.chmod(0o755)
    server = PostfixServer(folder=folder)
    server.deliver(RECIPIENT)
    server.start()
    try:
        new = folder / "mail" / "house.test" / "sink" / "new"
        started = time.monotonic()
        _load(server.port, arguments)
        while not new.is_dir() or len(os.listdir(new)) < arguments.messages:
            time.sleep(0.005)
        took_s = time.monotonic() - started
    finally:
        server.remove()
    return {"rate": arguments.messages / took_s, "cpu_ms": float("nan")}


def _load(port: int, arguments: argparse.Namespace) -> float:
    program = find("smtp-source")
    assert program is not None, "run scripts/peers first"
    options = ["-d"] if arguments.keep_connection else []
    paths = ["-f", "source@client.test", "-t", RECIPIENT, f"inet:127.0.0.1:{port}"]
    sizes = ["-s", str(arguments.sessions), "-m", str(arguments.messages), "-l", str(arguments.size)]
    started = time.monotonic()
    run = Program(program)(*options, "-M", "client.test", *sizes, *paths)
    assert run.succeeded, str(run)
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--keep-connection", action="store_true")
    parser.add_argument("--folder", default=None, help="where both keep their files")
    arguments = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {"posthouse": [], "postfix": []}
    for round_number in range(arguments.rounds):
        for name, measure in (("posthouse", time_posthouse), ("postfix", time_postfix)):
            figures = measure(arguments)
            results[name].append(figures)
            print(json.dumps({"round": round_number + 1, "server": name, **figures}), flush=True)
    medians = {name: statistics.median(run["rate"] for run in runs) for name, runs in results.items()}
    print(
        f"median messages/s: posthouse {medians['posthouse']:.0f}, postfix {medians['postfix']:.0f},"
        f" ratio {medians['posthouse'] / medians['postfix']:.2f}"
    )


if __name__ == "__main__":
    main()
