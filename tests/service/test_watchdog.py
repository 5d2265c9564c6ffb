"""Alive is not working."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from posthouse.service import watchdog
from posthouse.service.watchdog import EXIT_STATUS, Pulse, Watchdog
from posthouse.storage.errors import StorageFull


class Watched:
    """A watchdog whose looks are ours."""

    def __init__(self) -> None:
        self.pulse = Pulse()
        self.alive = 0
        self.dead: list[str] = []
        self.dog = Watchdog(self.pulse, alive=self._note, dead=self.dead.append, every_s=1, limit_s=30)

    def _note(self) -> None:
        self.alive += 1

    def look(self, times: int, *beating: str) -> None:
        for _ in range(times):
            for name in beating:
                self.pulse.beat(name)
            self.dog.look()


def test_as_long_as_both_tick_it_says_so() -> None:
    watched = Watched()
    watched.look(100, "loop", "writer")
    assert (watched.alive, watched.dead) == (100, [])


def test_a_pause_below_the_limit_is_none() -> None:
    watched = Watched()
    for _ in range(5):
        watched.look(29, "loop")
        watched.look(1, "loop", "writer")
    assert watched.dead == []


def test_the_writer_alone_may_not_be_silent() -> None:
    watched = Watched()
    watched.look(29, "loop")
    assert watched.dead == []
    watched.look(1, "loop")
    assert watched.dead == ["no tick of the writer for 30 s"]
    assert watched.alive == 29, "it said that it is alive, and was not"


def test_nor_may_the_loop() -> None:
    watched = Watched()
    watched.look(30, "writer")
    assert watched.dead == ["no tick of the loop for 30 s"]


def test_a_thread_looks() -> None:
    seen = threading.Event()
    dog = Watchdog(Pulse(), alive=seen.set, every_s=0.001)
    dog.start()
    assert seen.wait(20)
    dog.stop()


class Writer:
    """Answers, refuses, or hangs."""

    def __init__(self) -> None:
        self.asked = 0

    async def tick(self) -> None:
        self.asked += 1
        if self.asked == 1:
            raise StorageFull("no room")
        await asyncio.Event().wait()


async def test_a_writer_that_refuses_ticks_and_one_that_hangs_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "BEAT_EVERY_S", 0)
    pulse, writer = Pulse(), Writer()
    async with asyncio.TaskGroup() as group:
        beating = group.create_task(watchdog.go_on_beating(pulse, writer.tick))
        while pulse.ticks["loop"] < 50:
            await asyncio.sleep(0)
        beating.cancel()
    assert (pulse.ticks["writer"], writer.asked) == (1, 2)


def test_the_end_says_why_and_where(tmp_path: Path) -> None:
    program = "from posthouse.service.watchdog import end_process; end_process('no tick of the loop for 30 s')"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == EXIT_STATUS
    assert ran.stderr.startswith("posthouse: no tick of the loop for 30 s;")
    assert "end_process" in ran.stderr.splitlines()[2]
