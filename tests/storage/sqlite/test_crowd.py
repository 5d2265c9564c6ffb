"""A queue of a million rows, most of them for one dead destination, costs what ten thousand cost.

Costs are pages that SQLite touches: unlike times, they are the same on every machine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import apsw
import pytest

from posthouse.mail.acceptance import Destination
from posthouse.mail.spool import DueDestination
from posthouse.storage.sqlite import claims
from posthouse.storage.sqlite.connection import row
from posthouse.storage.sqlite.storage import SqliteStorage
from tests.storage.contract.world import FAR, House, SeededRandom, SetClock, settlement
from tests.storage.sqlite.crowd import DEAD, HEALTHY, crowd

FEW, MANY = 10_000, 1_000_000
DUE_LIMIT = 1_000
GROWTH = 2
"""How many times more pages a hundred times more rows may cost: the trees are one or two levels deeper."""


async def crowded(folder: Path, count: int) -> House:
    clock, chance = SetClock(), SeededRandom(1)

    async def open_it(*, create: bool = False) -> SqliteStorage:
        return await SqliteStorage.open(folder, clock=clock, random=chance, inline_writer=True, create=create)

    house = House(await open_it(create=True), clock, chance, open_it)
    await house.accept()
    await house.storage.close()
    crowd(folder, count, clock.now())
    house.storage = await open_it()
    return house


@pytest.fixture(scope="module", params=[FEW, pytest.param(MANY, marks=pytest.mark.long)])
def count(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
async def house(count: int, tmp_path: Path) -> AsyncIterator[House]:
    house = await crowded(tmp_path, count)
    yield house
    await house.storage.close()


def engine(house: House) -> SqliteStorage:
    assert isinstance(house.storage, SqliteStorage)
    return house.storage


def pages(connection: apsw.Connection) -> int:
    """The pages touched since the last time it was asked, in memory or not."""
    kinds = (apsw.SQLITE_DBSTATUS_CACHE_HIT, apsw.SQLITE_DBSTATUS_CACHE_MISS)
    return sum(connection.status(kind, True)[0] for kind in kinds)


async def nothing() -> None:
    pass


async def cost(house: House, work: Awaitable[object], *, since_open: bool = False) -> int:
    connections = (engine(house)._connection, engine(house)._readers.here)
    if not since_open:
        sum(map(pages, connections))
    await work
    return sum(pages(connection) for connection in connections)


async def costs(house: House) -> dict[str, int]:
    """The pages that each thing costs which a house does all the time."""
    spool, now = house.storage.spool, house.clock.now()
    found = {
        "due": await cost(house, spool.due(now, DUE_LIMIT)),
        "nothing due": await cost(house, spool.due(now - 86_400, DUE_LIMIT)),
        "next due": await cost(house, spool.next_due()),
        "claim": await cost(house, spool.claim(DEAD, 100, now)),
        "claim few": await cost(house, spool.claim(Destination("", "d00007.test"), 2, now)),
        "accept": await cost(house, house.accept(forwards=1)),
        "accept for a thousand": await cost(house, house.accept(forwards=1_000)),
        "make due": await cost(house, spool.make_due(now + 86_400, now)),
        "free idle": await cost(house, spool.free_idle(set)),
        "claim again": await cost(house, spool.claim(DEAD, 100, now)),
    }
    engine(house).abandon()
    house.storage = await house.open_another()
    found["open after a death"] = await cost(house, nothing(), since_open=True)
    spool = house.storage.spool
    claim = await house.claim(limit=100, destination=DEAD)
    keys = [(row.message.queue_id, row.recipient_number) for row in claim.rows]
    found["mark sending"] = await cost(house, spool.mark_sending(claim.token, keys, now))
    found["settle"] = await cost(house, house.storage.settle(settlement(claim, now + 300)))
    return found


async def turns(house: House) -> list[Destination]:
    """Destinations in the order in which a runner is shown them, until it begins anew."""
    shown: list[Destination] = []
    after: Destination | None = None
    while True:
        due: tuple[DueDestination, ...] = await house.storage.spool.due(house.clock.now(), DUE_LIMIT, after)
        assert len(due) <= DUE_LIMIT
        assert len(shown) < 2 * HEALTHY, "the same ones again"
        assert [each.oldest_not_before for each in due] == sorted(each.oldest_not_before for each in due)
        shown += [each.destination for each in due]
        if len(due) < DUE_LIMIT:
            return shown
        after = max(each.destination for each in due)


@pytest.mark.conformance("C103")
@pytest.mark.long
async def test_a_hundred_times_more_rows_cost_the_same(tmp_path: Path) -> None:
    few, many = await crowded(tmp_path / "few", FEW), await crowded(tmp_path / "many", MANY)
    try:
        # The same number of destinations is due in both: nothing else may count.
        small, large = await costs(few), await costs(many)
        grown = {what: (small[what], large[what]) for what in small if large[what] > GROWTH * small[what] + 10}
        assert grown == {}
    finally:
        await few.storage.close()
        await many.storage.close()


async def test_every_destination_has_its_turn(house: House, count: int) -> None:
    healthy = {Destination("", f"d{number:05}.test") for number in range(min(HEALTHY, count // 10))}
    shown = await turns(house)
    assert len(shown) == len(set(shown))
    assert set(shown) == {DEAD, *healthy}


async def test_a_healthy_destination_is_seen_beside_thousands_that_are_always_due(house: House) -> None:
    last = Destination("", "zz.test")
    await house.storage.accept(await house.acceptance(forwards=[house.forward(0, last, house.clock.now())]))
    assert last in await turns(house)
    own = Destination("a.provider.test:587", "a.test")
    await house.storage.accept(await house.acceptance(forwards=[house.forward(0, own, house.clock.now())]))
    assert (await turns(house))[-1] == own


@pytest.mark.conformance("C103")
async def test_a_death_in_the_middle_loses_nothing(house: House, count: int) -> None:
    spool, now = house.storage.spool, house.clock.now()
    for _ in range(20):
        assert await spool.claim(DEAD, 100, now) is not None
    served = await house.claim(limit=50, destination=DEAD)
    assert await house.storage.settle(settlement(served, None))
    engine(house).abandon()
    house.storage = await house.open_another()
    assert await house.storage.spool.count() == count - 50
    claimed = row(engine(house)._readers.here, "SELECT count(*) FROM spool WHERE claim_token IS NOT NULL")[0]
    assert claimed == 0
    assert len((await house.claim(limit=100, destination=DEAD)).rows) == 100


async def test_claims_of_the_dead_are_freed_in_bounded_steps(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(12):
        assert await house.storage.spool.claim(DEAD, 100, house.clock.now()) is not None
    engine(house).abandon()
    steps: list[int] = []
    really = claims.free

    def counted(*arguments: object, **named: object) -> int:
        steps.append(really(*arguments, **named))  # type: ignore[arg-type]
        return steps[-1]

    monkeypatch.setattr("posthouse.storage.sqlite.incarnation.free", counted)
    house.storage = await house.open_another()
    assert steps == [500, 500, 200, 0]


async def test_no_answer_grows_with_the_queue(house: House) -> None:
    assert len(await house.storage.spool.due(house.clock.now(), 10)) == 10
    assert len((await house.claim(limit=100, destination=DEAD)).rows) == 100
    assert len(await house.storage.spool.list()) == 1_000
    assert await house.storage.spool.claim(FAR, 100, house.clock.now()) is None
