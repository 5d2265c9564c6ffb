"""The watchdog: alive is not working. A thread ends the process when the loop or the writer has not ticked for long.

What took mail and then hangs holds claims, locks and sessions; dead, it gives them all up, and whoever supervises it
(the parent of the workers, systemd) starts another. It counts its own looks, not the clock: a process that was
stopped for a while, or a machine that slept, is not taken for one that hangs.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

from posthouse.storage.errors import StorageError

LIMIT_S = 30.0
"""How long the loop or the writer may be silent."""
LOOK_EVERY_S = 1.0
BEAT_EVERY_S = 5.0
"""How often each of them ticks."""
EXIT_STATUS = 70


class Pulse:
    """Counts the ticks of what has to go on. Written by the loop, read by the watchdog's thread."""

    def __init__(self, *names: str) -> None:
        self.ticks = dict.fromkeys(names or ("loop", "writer"), 0)

    def beat(self, name: str) -> None:
        self.ticks[name] += 1


async def go_on_beating(pulse: Pulse, tick: Callable[[], Awaitable[None]]) -> None:
    """The loop's beat, and the writer's after each `tick`, as long as each of them goes on."""
    async with asyncio.TaskGroup() as both:
        both.create_task(_beat_of_the_loop(pulse))
        both.create_task(_beat_of_the_writer(pulse, tick))


async def _beat_of_the_loop(pulse: Pulse) -> None:
    while True:
        pulse.beat("loop")
        await asyncio.sleep(BEAT_EVERY_S)


async def _beat_of_the_writer(pulse: Pulse, tick: Callable[[], Awaitable[None]]) -> None:
    while True:
        # Refused (a full disk, another process that writes) is an answer: the writer is there.
        with suppress(StorageError):
            await tick()
        pulse.beat("writer")
        await asyncio.sleep(BEAT_EVERY_S)


def end_process(why: str) -> None:
    """One line, where every thread hangs (no values, only places), and the end."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"posthouse: {why}; the process ends, to be started again\n")
        sys.stderr.flush()
        faulthandler.dump_traceback(sys.stderr)
    os._exit(EXIT_STATUS)


class Watchdog:
    """Calls `alive` while everything in the pulse goes on, and `dead` once something has not for `limit_s`."""

    def __init__(
        self,
        pulse: Pulse,
        *,
        alive: Callable[[], None] = lambda: None,
        dead: Callable[[str], None] = end_process,
        every_s: float = LOOK_EVERY_S,
        limit_s: float = LIMIT_S,
    ) -> None:
        """`alive` is called at each look, that is each `every_s`."""
        self._pulse = pulse
        self._alive = alive
        self._dead = dead
        self._every_s = min(every_s, LOOK_EVERY_S)
        self._limit_s = limit_s
        self._seen = dict(pulse.ticks)
        self._silent_s = dict.fromkeys(pulse.ticks, 0.0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """The end has begun: it is not to be watched any more."""
        self._ended.set()

    def look(self) -> None:
        """One look, `every_s` after the last one."""
        for name, ticks in tuple(self._pulse.ticks.items()):
            self._silent_s[name] = 0.0 if ticks != self._seen[name] else self._silent_s[name] + self._every_s
            self._seen[name] = ticks
        longest_s = max(self._silent_s.values())
        if longest_s < self._limit_s:
            self._alive()
            return
        # A loop that hangs takes the writer's answers with it, and may have ticked once more than the writer.
        silent = [name for name, silent_s in self._silent_s.items() if silent_s >= self._limit_s / 2]
        self._dead(f"no tick of the {' and the '.join(silent)} for {longest_s:.0f} s")

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            self.look()
