"""The reasons of a whole house, each put in its way, without a house around it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from posthouse.log import make_log
from posthouse.mail.spool import QueueDepth
from posthouse.metrics import Metrics
from posthouse.net.siblings import line
from posthouse.storage.upkeep import Sizes
from posthouse.watch.watch import Watch
from posthouse.workers import Part
from tests.fake_world import FakeClock, FakeRandom
from tests.running_house import house_config

GIB = 2**30


class Store:
    """A store in which all is well."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.takes_s = 0.0
        self.spool = self
        self.free_octets = 100 * GIB
        self.asked = 0

    def observe(self, _: object) -> None: ...

    async def prove(self) -> None: ...

    async def depth(self) -> QueueDepth:
        self.asked += 1
        self.clock.advance(self.takes_s)
        return QueueDepth(waiting=3, held=2, claimed=1, oldest_at=1_000.0, due_since=None)

    async def sizes(self) -> Sizes:
        return Sizes(
            database_octets=1,
            log_octets=2,
            content_octets=3,
            disk_free_octets=self.free_octets,
            disk_octets=200 * GIB,
            free_files=None,
        )


@pytest.fixture
def house(tmp_path: Path) -> Any:
    clock = FakeClock()
    return SimpleNamespace(
        config=house_config(tmp_path),
        part=Part(),
        world=SimpleNamespace(clock=clock, random=FakeRandom()),
        storage=Store(clock),
        doors=SimpleNamespace(admin=(), turned_away=dict),
        runner=SimpleNamespace(looked_at=clock.monotonic()),
        metrics=Metrics(),
        log=make_log(io.StringIO()),
    )


@pytest.fixture
async def watch(house: Any) -> AsyncIterator[Watch]:
    watch = Watch(house)
    async with asyncio.TaskGroup() as group:
        group.create_task(watch.run())
        await asyncio.sleep(0)
        yield watch
        watch.stop()


async def told(watch: Watch) -> dict[str, str]:
    text, _ = await watch.exposition("")
    return dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))


async def test_nothing_is_in_the_way(watch: Watch) -> None:
    assert await watch.unready() is None


async def test_a_disk_without_room_for_the_largest_message(watch: Watch, house: Any) -> None:
    house.storage.free_octets = house.config.reception.message_size_octets
    assert await watch.unready() == "the disk of data_dir is nearly full: 50 MiB are left"


async def test_a_runner_that_does_not_look(watch: Watch, house: Any) -> None:
    house.runner.looked_at -= 120.0
    assert await watch.unready() == "the queue runner has not looked at the queue for 120 s"


async def test_a_house_that_closes(watch: Watch) -> None:
    watch.closing()
    assert await watch.unready() == "the house is closing"


async def test_a_worker_that_does_not_answer(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.watch.watch.ANSWER_WITHIN_S", 0.0)
    ours, theirs = line()
    house.part = Part(count=2, lines={1: ours})
    watch = Watch(house)
    async with asyncio.TaskGroup() as group:
        group.create_task(watch.run())
        assert await watch.unready() == "worker 1 does not answer"
        assert (await told(watch))['posthouse_worker_up{worker="1"}'] == "0.0"
        watch.stop()
    ours.close()
    theirs.close()


async def test_what_is_asked_of_the_store_is_kept_for_a_moment(watch: Watch, house: Any) -> None:
    first = await told(watch)
    assert first['posthouse_queue_recipients{state="waiting"}'] == "3.0"
    assert float(first["posthouse_queue_oldest_seconds"]) == house.world.clock.now() - 1_000.0
    assert first["posthouse_queue_overdue_seconds"] == "0.0"
    await told(watch)
    assert house.storage.asked == 1
    house.world.clock.advance(5.0)
    await told(watch)
    assert house.storage.asked == 2


async def test_what_takes_long_is_asked_less_often(watch: Watch, house: Any) -> None:
    house.storage.takes_s = 1.0
    await told(watch)
    house.world.clock.advance(49.0)
    await told(watch)
    assert house.storage.asked == 1
    house.world.clock.advance(2.0)
    await told(watch)
    assert house.storage.asked == 2
