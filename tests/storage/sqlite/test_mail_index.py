"""The index of mail: on which queries it relies, that it may be damaged, and that accepting mail writes none of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from posthouse.indexing import bring_up_to_date
from posthouse.mail.folders import SEEN
from posthouse.mail.ids import Uid
from posthouse.mail.mail_query import parse_query
from posthouse.storage.interfaces import Storage
from posthouse.storage.sqlite.connection import DATABASE
from posthouse.storage.sqlite.mail_search import FEW, MailSearch
from tests.storage.contract.engines import ENGINES, open_engine
from tests.storage.contract.world import House, SeededRandom, SetClock

TABLES = ("letters", "letter_words_docsize", "conversation_ids", "read_folders", "read_accounts")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock, chance = SetClock(), SeededRandom(7)

    async def another() -> Storage:
        return await open_engine(ENGINES[0], tmp_path / "data", clock, chance)

    house = House(await another(), clock, chance, another)
    yield house
    await house.storage.close()


def counts(folder: Path) -> list[int]:
    connection = apsw.Connection(str(folder / "data" / DATABASE))
    try:
        return [connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in TABLES]
    finally:
        connection.close()


async def test_accepting_mail_writes_none_of_it(house: House, tmp_path: Path) -> None:
    account = await house.account()
    await house.storage.reading.begin(account)
    await house.accept(b"Message-ID: <1@x>\r\nSubject: x\r\n\r\nhello\r\n", to=[account])
    assert counts(tmp_path) == [0, 0, 0, 0, 1]
    await bring_up_to_date(house.storage, account)
    assert counts(tmp_path) == [1, 1, 1, 1, 1]


async def test_a_damaged_index_keeps_nobody_from_their_mail(house: House, tmp_path: Path) -> None:
    account = await house.account()
    for number in range(30):
        await house.accept(b"Subject: word%d\r\n\r\nhello\r\n" % number, to=[account])
    await bring_up_to_date(house.storage, account)
    await house.storage.close()
    connection = apsw.Connection(str(tmp_path / "data" / DATABASE))
    connection.execute("UPDATE letter_words_data SET block = x'00' WHERE id > 10")
    connection.close()
    house.storage = await house.open_another()
    flaws = [flaw async for flaw in house.storage.check()]
    assert [flaw.mend for flaw in flaws] == ["run: posthouse check --store --mend"] * len(flaws)
    assert flaws
    assert [flaw async for flaw in house.storage.check(mend=True)] == flaws
    assert [flaw async for flaw in house.storage.check()] == []
    await bring_up_to_date(house.storage, account)
    assert len(await house.storage.reading.find(account, parse_query("hello subject:word7"), 9)) == 1


@pytest.mark.parametrize(
    ("query", "ways"),
    [
        ("word", ["SCAN letter_words", "SEARCH letters USING INTEGER PRIMARY KEY", "entries_by_message"]),
        ("word in:Inbox before:2026", ["SCAN letter_words", "entries_by_message"]),
        ("", ["SEARCH letters USING INDEX letters_by_account", "entries_by_message"]),
        ("in:Inbox", ["letters_by_entry"]),
        ("is:unread", ["letters_by_entry"]),
    ],
)
async def test_no_question_sorts_or_scans(house: House, tmp_path: Path, query: str, ways: list[str]) -> None:
    account = await house.account()
    search = MailSearch(account, parse_query(query), 20)
    connection = apsw.Connection(str(tmp_path / "data" / DATABASE))
    try:
        sql = search._sql(connection)
        plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", search._parameters()).fetchall()
    finally:
        connection.close()
    told = "\n".join(line[3] for line in plan)
    for way in ways:
        assert way in told
    assert "SCAN letters" not in told
    assert "SCAN entries" not in told
    # (A folder that is looked through has at most FEW entries.)
    assert ("TEMP B-TREE" in told) is (query in ("in:Inbox", "is:unread")), told
    assert FEW <= 10_000


async def test_few_and_many_are_found_alike(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever way is taken, the answer is the same."""
    account = await house.account()
    for number in range(12):
        await house.accept(b"Subject: m%d\r\n\r\nhello\r\n" % number, to=[account])
    await house.storage.folders.flag(account, "Inbox", [Uid(uid) for uid in range(1, 12, 2)], add=[SEEN])
    await bring_up_to_date(house.storage, account)
    for query in ("in:inbox", "is:unread", "in:inbox is:read", "is:read before:2028", "is:flagged", "-has:attachment"):
        found = []
        for few in (0, 100):
            monkeypatch.setattr("posthouse.storage.sqlite.mail_search.FEW", few)
            found.append(await house.storage.reading.find(account, parse_query(query), 5))
        assert found[0] == found[1], query
    assert len(found) == 2
