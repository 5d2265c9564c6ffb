"""What people see of an order that is not done yet is what they see when it is."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from posthouse.mail.acceptance import Destination
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Operated
from posthouse.mail.queue_filter import parse_filter
from posthouse.mail.spool import Action
from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.sqlite import operations, orders
from posthouse.storage.sqlite.connection import DATABASE, row
from posthouse.storage.sqlite.restore import restore_backup
from posthouse.storage.sqlite.rollback import roll_back
from posthouse.storage.sqlite.storage import SqliteStorage
from posthouse.storage.upkeep import Order, tell_nobody
from tests.storage.contract.world import FAR, House, SeededRandom, SetClock, settlement

PROVIDER = Destination("smtp.provider.test:587", "far.test")
FILTERS = ("", "to:@far.test", "held:", "held:no", "held:uncertain", "attempts:1", "to:r1@far.test", "from:@far.test")
DISK = RealFileSystem()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock, chance = SetClock(), SeededRandom(7)

    async def open_it() -> SqliteStorage:
        return await SqliteStorage.open(
            tmp_path / "data", clock=clock, random=chance, inline_writer=True, create=True, on_migrated=lambda _: None
        )

    house = House(await open_it(), clock, chance, open_it)
    yield house
    await house.storage.close()


def engine(house: House) -> SqliteStorage:
    assert isinstance(house.storage, SqliteStorage)
    return house.storage


def left(house: House) -> int:
    number: int = row(engine(house)._readers.here, "SELECT count(*) FROM orders")[0]
    return number


async def filled(house: House) -> None:
    """Rows that were deferred, that may have arrived, that are claimed, and that nobody tried yet."""
    for _ in range(3):
        await house.accept(forwards=3)
    claim = await house.claim(4)
    assert await house.storage.settle(settlement(claim, house.clock.now() + 600))
    await house.storage.accept(await house.acceptance(forwards=[house.forward(n, PROVIDER) for n in range(2)]))
    claim = await house.claim(destination=PROVIDER)
    keys = [(row.message.queue_id, row.recipient_number) for row in claim.rows]
    assert await house.storage.spool.mark_sending(claim.token, keys, house.clock.now())
    engine(house).abandon()
    house.storage = await house.open_another()
    await house.claim(2)


@pytest.mark.parametrize("seed", range(6))
async def test_what_is_ordered_looks_as_what_is_done(house: House, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(orders, "STEP_ROWS", 3)
    monkeypatch.setattr(orders, "NOTED_ROWS", 6)
    await filled(house)
    chance, spool = random.Random(seed), house.storage.spool
    for _ in range(chance.randint(1, 5)):
        action = chance.choice([Action.HOLD, Action.RELEASE, Action.RETRY, Action.RETRY, Action.REMOVE])
        wanted = parse_filter(chance.choice(FILTERS).split())
        expected = await spool.tally(wanted, action)
        assert await spool.operate(action, wanted, "ann") == expected.recipients
    seen = await look(house)
    await engine(house).spool.orders.carry_out()
    assert left(house) == 0
    assert await look(house) == seen


async def look(house: House) -> list[object]:
    spool, seen = house.storage.spool, []
    for words in FILTERS:
        wanted = parse_filter(words.split())
        seen += [await spool.list(wanted=wanted), await spool.count(wanted), await spool.tally(wanted)]
        seen += [await spool.tally(wanted, action) for action in Action]
    return seen


async def test_looking_does_nothing_that_was_ordered(house: House) -> None:
    """Else the test above would compare what was done with itself."""
    await filled(house)
    assert await house.storage.spool.operate(Action.REMOVE, (), "ann") == 9
    await look(house)
    assert left(house) == 1


async def test_what_is_claimed_is_changed_at_once(house: House) -> None:
    """It may be settled before the order's turn comes."""
    await house.accept(forwards=2)
    claim = await house.claim(2)
    assert await house.storage.spool.operate(Action.HOLD, (), "ann") == 2
    assert left(house) == 0 or [row.held for row in await house.storage.spool.list()] == [True, True]
    connection = engine(house)._readers.here
    assert connection.execute("SELECT held FROM spool").fetchall() == [(1,), (1,)]
    assert await house.storage.settle(settlement(claim, house.clock.now()))
    assert await house.storage.spool.claim(FAR, 9, house.clock.now()) is None


async def test_a_step_that_fails_is_done_later(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.accept(forwards=1)
    queue_id = (await house.storage.spool.list())[0].message.queue_id
    assert await house.storage.spool.operate(Action.HOLD, (), "ann") == 1
    change = operations.change

    def fail(connection: apsw.Connection, *, action: Action, keys: str, by: str, at: float) -> int:
        change(connection, action=action, keys=keys, by=by, at=at)
        raise LookupError

    with monkeypatch.context() as broken:
        broken.setattr(orders, "change", fail)
        with pytest.raises(LookupError):
            await house.storage.spool.claim(FAR, 9, house.clock.now())
    assert await house.storage.spool.claim(FAR, 9, house.clock.now()) is None
    told = [event for event in await house.storage.journey.read(queue_id) if isinstance(event, Operated)]
    assert [event.action for event in told] == ["hold"]


async def test_a_restore_lets_nothing_go_that_was_ordered_before(house: House, tmp_path: Path) -> None:
    await house.accept(forwards=2)
    await hold_and_release(house)
    await house.storage.backup(tmp_path / "backup", Order(hostname="mx.house.test"))
    assert left(house) == 1
    again = tmp_path / "again"
    again.mkdir()
    restored = restore_backup(tmp_path / "backup", again, now=house.clock.now(), disk=DISK, tell=tell_nobody)
    assert restored.held == 2
    storage = await SqliteStorage.open(again, clock=house.clock, random=house.chance)
    assert await storage.spool.claim(FAR, 9, house.clock.now()) is None
    assert [row.held_by_restore for row in await storage.spool.list()] == [True, True]
    await storage.close()


async def hold_and_release(house: House) -> QueueId:
    spool = house.storage.spool
    assert await spool.operate(Action.HOLD, (), "ann") == 2
    await engine(house).spool.orders.carry_out()
    assert await spool.operate(Action.RELEASE, (), "ann") == 2
    return (await spool.list())[0].message.queue_id


async def test_the_way_back_does_what_was_ordered(house: House, tmp_path: Path) -> None:
    await house.accept(forwards=2)
    await hold_and_release(house)
    await house.storage.close()
    path = tmp_path / "data" / DATABASE
    connection = apsw.Connection(str(path))
    # As an upgrade from the schema before leaves it.
    connection.execute("UPDATE migrations SET applied_at = applied_at - 60 WHERE number < 10")
    assert connection.execute("SELECT count(*) FROM orders").fetchall() == [(1,)]
    connection.close()
    done = roll_back(tmp_path / "data", now=house.clock.now(), disk=DISK, tell=tell_nobody)
    assert done.left_out == ()
    connection = apsw.Connection(str(path))
    assert connection.execute("SELECT held FROM spool").fetchall() == [(0,), (0,)]
    connection.close()
    house.storage = await house.open_another()
