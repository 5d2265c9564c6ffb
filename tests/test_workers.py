"""The parent of the workers, in a process of its own (it forks), with small works in place of a house."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAM = """
import os, select, signal, sys, time
from pathlib import Path
from posthouse import workers
from posthouse.log import make_log
from posthouse.workers import *

workers.KILL_AFTER_S, workers.START_S, workers.SILENT_S, workers.TURN_S = 20.0, {start_s}, {silent_s}, 0.05
told = []

def rest(to_parent, seconds):
    if select.select([to_parent.ends], [], [], seconds)[0]:
        sys.exit(0)

def until_told(to_parent, *, alive=True):
    signal.signal(signal.SIGHUP, lambda *_: print("reloaded", flush=True))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    to_parent.say(READY)
    while True:
        if alive:
            to_parent.say(ALIVE)
        rest(to_parent, 0.05)

def work(part, to_parent):
    starts = Path(f"starts-{{part.number}}")
    with starts.open("a") as file:
        file.write(f"{{os.getpid()}}\\n")
    times = len(starts.read_text().split())
{work}

def reload():
    print("asked", flush=True)
    return True

parent = Workers(work, {count}, {{}}, make_log(), reload=reload, stopping=lambda: print("stopping", flush=True))
try:
    parent.run(lambda: print("ready", flush=True))
except WorkerFailed as exc:
    print("failed:", exc, exc.told, flush=True)
try:
    os.wait()
except ChildProcessError:
    print("nobody left", flush=True)
"""
WORKS = "return until_told(to_parent)"


class Parent:
    """`line` is the next line it printed."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def starts(self, number: int) -> list[int]:
        """Process ids of one worker, one after the other."""
        return [int(pid) for pid in (self.folder / f"starts-{number}").read_text().split()]

    def wait_for_start(self, number: int, times: int) -> None:
        deadline = time.monotonic() + 20
        while len(self.starts(number)) < times:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def log(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()


@contextmanager
def parent(
    folder: Path, work: str = WORKS, count: int = 2, start_s: float = 20, silent_s: float = 20
) -> Iterator[Parent]:
    indented = "\n".join("    " + line for line in work.splitlines())
    program = PROGRAM.format(work=indented, count=count, start_s=start_s, silent_s=silent_s)
    source = str(Path(__file__).parents[1] / "src")
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": source},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Parent(process, folder)
    finally:
        process.kill()
        process.communicate()


def test_it_starts_them_in_turn_and_ends_them_all(tmp_path: Path) -> None:
    with parent(tmp_path) as running:
        assert running.line() == "ready"
        assert len(running.starts(0) + running.starts(1)) == 2
        running.send(signal.SIGTERM)
        assert [running.line(), running.line()] == ["stopping", "nobody left"]
        assert running.process.wait(20) == 0


def test_the_end_may_come_while_the_first_one_starts(tmp_path: Path) -> None:
    work = """
os.kill(os.getppid(), signal.SIGTERM)
signal.sigwait([signal.SIGTERM])
return 0
"""
    with parent(tmp_path, work) as running:
        assert [running.line(), running.line()] == ["stopping", "nobody left"]


def test_a_reload_waits_for_a_worker_that_starts(tmp_path: Path) -> None:
    work = """
os.kill(os.getppid(), signal.SIGHUP)
while not signal.SIGHUP in signal.sigpending():
    rest(to_parent, 0.01)
return until_told(to_parent)
"""
    with parent(tmp_path, work, 1) as running:
        assert running.line() == "asked"
        assert {running.line(), running.line()} == {"reloaded", "ready"}
        assert len(running.starts(0)) == 1, "it ended"


def test_what_the_first_one_says_is_enough(tmp_path: Path) -> None:
    with parent(tmp_path, "return SAID_WHY") as running:
        assert running.line() == "stopping"
        assert running.line() == "failed: worker 0 ended with status 1 before it was ready True"
        assert running.line() == "nobody left"


@pytest.mark.long
def test_one_that_dies_again_and_again_ends_the_house(tmp_path: Path) -> None:
    work = "if times > 1 and part.number:\n    return 3\nreturn until_told(to_parent)"
    with parent(tmp_path, work) as running:
        assert running.line() == "ready"
        os.kill(running.starts(1)[0], signal.SIGKILL)
        assert running.line() == "stopping"
        assert running.line() == "failed: worker 1 died 5 times, each time soon after its start False"
        assert running.line() == "nobody left"
        assert len(running.starts(1)) == 5


def test_one_that_is_never_ready_is_killed_and_replaced(tmp_path: Path) -> None:
    work = """
if part.number and times == 2:
    rest(to_parent, 100)
return until_told(to_parent)
"""
    with parent(tmp_path, work, start_s=0.3) as running:
        assert running.line() == "ready"
        os.kill(running.starts(1)[0], signal.SIGKILL)
        running.wait_for_start(1, 3)
        running.send(signal.SIGTERM)
        assert [running.line(), running.line()] == ["stopping", "nobody left"]
        log = running.log()
        assert '"event": "worker hangs"' in log
        assert '"ready": false' in log


def test_one_that_says_nothing_hangs(tmp_path: Path) -> None:
    work = "return until_told(to_parent, alive=part.number == 0 or times > 1)"
    with parent(tmp_path, work, silent_s=0.5) as running:
        assert running.line() == "ready"
        running.wait_for_start(1, 2)
        assert len(running.starts(0)) == 1
        running.send(signal.SIGTERM)
        assert [running.line(), running.line()] == ["stopping", "nobody left"]
        assert '"ready": true' in running.log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_takes_no_signal_of_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    """Its copy of the parent's pipe would tell the parent of a signal that only the worker was sent."""
    work = "if times == 1:\n    signal.signal(signal.SIGTERM, lambda *_: None)\nreturn until_told(to_parent)"
    with parent(tmp_path, work, 1) as running:
        assert running.line() == "ready"
        os.kill(running.starts(0)[0], number)
        running.wait_for_start(0, 2)
