"""Time limits of waits: each on a virtual clock, with one timer for all of them."""

from __future__ import annotations

import asyncio

import pytest

from posthouse.net.deadline import Deadline
from posthouse.net.outbox import Outbox


class Handle:
    def __init__(self, when: float, callback: object) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class VirtualLoop:
    """Only what a Deadline asks of a loop."""

    def __init__(self) -> None:
        self.now = 0.0
        self.handles: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: object) -> Handle:
        self.handles.append(Handle(when, callback))
        return self.handles[-1]

    def advance(self, to: float) -> None:
        self.now = to
        for handle in list(self.handles):
            if not handle.cancelled and handle.when <= to:
                handle.cancelled = True
                handle.callback()  # type: ignore[operator]


async def waiting(deadline: Deadline, timeout_s: float) -> tuple[asyncio.Task[None], asyncio.Future[None]]:
    future = asyncio.get_running_loop().create_future()
    task = asyncio.Task(deadline.wait(future, timeout_s), loop=asyncio.get_running_loop())
    await asyncio.sleep(0)
    return task, future


async def test_a_wait_that_lasts_too_long_times_out_and_not_before() -> None:
    loop = VirtualLoop()
    deadline = Deadline(loop)  # type: ignore[arg-type]
    task, _ = await waiting(deadline, 10.0)
    loop.advance(9.9)
    await asyncio.sleep(0)
    assert not task.done()
    loop.advance(10.0)
    with pytest.raises(TimeoutError):
        await task


async def test_many_waits_share_one_timer_and_each_has_its_whole_time() -> None:
    loop = VirtualLoop()
    deadline = Deadline(loop)  # type: ignore[arg-type]
    for start in range(9):
        loop.now = float(start)
        task, future = await waiting(deadline, 10.0)
        future.set_result(None)
        await task
    assert len(loop.handles) == 1
    loop.now = 9.0
    task, _ = await waiting(deadline, 10.0)
    loop.advance(10.0)
    await asyncio.sleep(0)
    assert not task.done(), "the first wait's timer must not end the last one"
    loop.advance(19.0)
    with pytest.raises(TimeoutError):
        await task


async def test_a_shorter_wait_is_not_held_up_by_a_longer_timer() -> None:
    loop = VirtualLoop()
    deadline = Deadline(loop)  # type: ignore[arg-type]
    task, future = await waiting(deadline, 300.0)
    future.set_result(None)
    await task
    task, _ = await waiting(deadline, 5.0)
    loop.advance(5.0)
    with pytest.raises(TimeoutError):
        await task


async def test_stop_leaves_no_timer() -> None:
    loop = VirtualLoop()
    deadline = Deadline(loop)  # type: ignore[arg-type]
    task, future = await waiting(deadline, 5.0)
    future.set_result(None)
    await task
    deadline.stop()
    assert all(handle.cancelled for handle in loop.handles)


async def test_an_outbox_flushes_everyone_in_the_next_turn() -> None:
    flushed: list[str] = []

    class Writer:
        def __init__(self, name: str) -> None:
            self.name = name

        def flush(self) -> None:
            flushed.append(self.name)

    outbox = Outbox(asyncio.get_running_loop())
    outbox.add(Writer("a"))
    outbox.add(Writer("b"))
    assert flushed == []
    await asyncio.sleep(0)
    assert flushed == ["a", "b"]
