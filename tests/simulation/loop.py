"""An event loop in which time passes only when nothing is left to do, and then at once.

No selector, no sockets, no threads: what a house would do on a thread is done before the call returns. When all that
is ready has run, the clock goes to the next timer. Most timers of an idle house are its own polling, so the loop may
also *leap*: past many timers at once, as a machine does that was suspended. Each of them then runs once, late.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stuck(AssertionError):
    """Nothing is ready, no timer runs, and somebody still waits."""


class OrderedTask(asyncio.Task[Any]):
    """A task that has the same place in a set in each run: sets of tasks are walked where a group is cancelled."""

    _numbers = itertools.count(1)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._number = next(OrderedTask._numbers)

    def __hash__(self) -> int:
        # (The base class asks for it before the number is there.)
        return getattr(self, "_number", 0)


class SimulatedLoop(asyncio.BaseEventLoop):
    """`leap` is given the time of the next timer and says how far the clock goes, not less far."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._clock_resolution = 1e-6
        self._selector = self
        self._marks: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.leap: Callable[[float], float] = lambda until: until
        self.turns = 0
        OrderedTask._numbers = itertools.count(1)
        self.set_task_factory(lambda loop, coroutine, **named: OrderedTask(coroutine, loop=loop, **named))

    def time(self) -> float:
        return self._now

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Call at a time that is never leapt over."""
        heapq.heappush(self._marks, (max(when, self._now), next(self._numbers), callback))

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        self.at(self._now + seconds, callback)

    async def pause(self, seconds: float) -> None:
        """Sleep; the time of waking is never leapt over."""
        waking: asyncio.Future[None] = self.create_future()
        self.after(seconds, lambda: waking.done() or waking.set_result(None))
        await waking

    @property
    def next_mark(self) -> float:
        return self._marks[0][0] if self._marks else float("inf")

    # What BaseEventLoop asks of a selector: it calls `select` when all that was ready has been taken.

    def select(self, timeout: float | None) -> list[Any]:
        self.turns += 1
        if timeout == 0:
            return []
        mark = self.next_mark
        timer = float("inf") if timeout is None else self._now + timeout
        if mark == timer == float("inf"):
            raise Stuck("nothing is left to do, and somebody waits")
        self._now = max(self._now, mark if mark <= timer else min(mark, self.leap(timer)))
        while self._marks and self._marks[0][0] <= self._now:
            self.call_soon(heapq.heappop(self._marks)[2])
        return []

    def close(self) -> None:
        if not self.is_closed():
            self._marks.clear()
            super().close()

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    # Threads.

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as exc:
            done.set_exception(exc)
        return done

    # Doors (`net/listener.py`) and connections (`net/arrival.py`, `net/connect.py`); see `network.py`.

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        fd.watch(lambda: callback(*args))

    def remove_reader(self, fd: Any) -> bool:
        fd.watch(None)
        return True

    async def connect_accepted_socket(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], sock: Any, **_named: Any
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        protocol = protocol_factory()
        return sock.begin(protocol), protocol

    def drive(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run to the end."""
        asyncio.set_event_loop(None)
        return self.run_until_complete(coroutine)
