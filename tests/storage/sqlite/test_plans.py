"""Queries that must stay cheap at a million rows: their plans seek in an index and never read a table through."""

from __future__ import annotations

import re
from collections.abc import Iterator

import apsw
import pytest

from posthouse.mail.queue_filter import parse_filter
from posthouse.mail.spool import Action
from posthouse.storage.sqlite import (
    accept,
    claims,
    directory,
    identities,
    journey_index,
    journey_search,
    maildrops,
    operations,
    ordered,
    orders,
    queue_filter,
    retention,
    sending_limits,
    settle,
    sources,
    spool,
    sweep,
)
from posthouse.storage.sqlite.journey_search import Search
from posthouse.storage.sqlite.migrate import migrations

HOT = {
    "due": spool._DUE,
    "due rows": spool._DUE_ROWS,
    "make due": spool._MAKE_DUE,
    "tokens": spool._TOKENS,
    "claims of an incarnation": claims._FIND.format(which=claims.OF_INCARNATION),
    "claims of a token": claims._FIND.format(which=claims.OF_TOKEN),
    "earliest": spool._EARLIEST,
    "orders": orders._NEXT,
    "claimable": spool._CLAIMABLE,
    "claim": spool._CLAIM,
    "one row": spool._ROWS + "WHERE spool.queue_id = ? AND recipient_number = ?",
    "settle": settle.OURS,
    "next uid": accept._NEXT_UID,
    "list": maildrops._LIST,
    "internationalised": maildrops._INTERNATIONALISED,
    "read": maildrops._READ,
    "mailbox": directory._MAILBOX,
    "targets": directory._TARGETS,
    "account": directory._ACCOUNT,
    "identities": directory._IDENTITIES,
    "identity": identities._ONE,
    "source": sources._ONE,
    "what was collected": sources._KNOWN,
    "whether it was collected": sources._IS_KNOWN,
    "unreferenced": sweep._CANDIDATES,
    "referenced": sweep._REFERENCED,
    "remove content": sweep._REMOVE_CONTENT,
    "old journeys": retention._OLD,
    "refused journeys": retention._REFUSED,
    "sent within the hour": sending_limits._SENT,
    "forget what was sent": sending_limits._FORGET,
    "replies of a journey": journey_index._REPLIES,
    "is found": journey_index._INDEXED,
    "journeys beginning with": journey_search._BEGINNING_WITH,
    "used octets": "SELECT coalesce(sum(used_octets), 0) FROM folders WHERE account = ?",
}
TABLES = (
    "spool",
    "entries",
    "messages",
    "contents",
    "accounts",
    "addresses",
    "aliases",
    "identities",
    "sources",
    "collected",
    "folders",
    "sent",
    "unreferenced",
    "events",
    "message_ids",
    "replies",
    "parties",
)
SEARCHES = {
    "newest": Search(),
    "party": Search(forward_path="a@b.test", since=1.0),
    "parties": Search(forward_path="a@b.test", reverse_path="c@d.test"),
    "refused": Search(refused=True, forward_path="a@b.test", since=1.0),
    "message id": Search(message_id="a@b.test", forward_path="a@b.test", since=1.0),
    "reply": Search(reply="a", refused=True, since=1.0),
    "reply and parties": Search(reply="a", forward_path="a@b.test", reverse_path="c@d.test"),
}


@pytest.fixture
def empty() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    for _, sql in migrations():
        connection.execute(sql)
    yield connection
    connection.close()


def plan_of(connection: apsw.Connection, sql: str) -> list[str]:
    """The lines of the plan; the values of parameters do not matter."""
    numbers = {int(number) for number in re.findall(r"\?(\d+)", sql)}
    count = max(numbers) if numbers else sql.count("?")
    return [line for *_, line in connection.execute(f"EXPLAIN QUERY PLAN {sql}", (1,) * count)]


@pytest.mark.parametrize("name", HOT)
def test_a_hot_query_reads_no_table_through(empty: apsw.Connection, name: str) -> None:
    plan = plan_of(empty, HOT[name])
    assert plan
    assert [line for line in plan if line.startswith("SCAN") and line.split()[1] in TABLES] == []


@pytest.mark.parametrize("few", [-1, 2000])
@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_reads_no_table_through(
    empty: apsw.Connection, monkeypatch: pytest.MonkeyPatch, name: str, few: int
) -> None:
    monkeypatch.setattr(journey_search, "FEW", few)
    asked: list[str] = []
    empty.trace_v2(apsw.SQLITE_TRACE_STMT, lambda told: asked.append(told["sql"]))
    assert SEARCHES[name].run(empty) == ()
    empty.trace_v2(0, None)
    assert asked
    for sql in asked:
        plan = [line for *_, line in empty.execute(f"EXPLAIN QUERY PLAN {sql}", SEARCHES[name]._parameters())]
        # An index that is all of the wanted order is read from its end, and no further than the limit.
        scans = [line for line in plan if line.startswith("SCAN") and line.split()[1] in (*TABLES, "found")]
        assert [line for line in scans if "INDEX events_refused" not in line] == [], (sql, plan)
        assert [line for line in plan if "TEMP B-TREE" in line] == [], (sql, plan)


def test_refused_journeys_are_counted_in_their_index(empty: apsw.Connection) -> None:
    assert plan_of(empty, retention._REFUSED_COUNT) == ["SCAN events USING COVERING INDEX events_refused"]


def test_due_hops_by_both_columns_of_a_destination(empty: apsw.Connection) -> None:
    plan = [line for *_, line in empty.execute(f"EXPLAIN QUERY PLAN {spool._DUE}", (1, 1, "", ""))]
    assert any("(via=? AND domain>?)" in line for line in plan)
    assert any("(via>?)" in line for line in plan)


def planned(connection: apsw.Connection, sql: str, count: int) -> list[str]:
    return [line for *_, line in connection.execute(f"EXPLAIN QUERY PLAN {sql}", (1,) * count)]


@pytest.mark.parametrize("source", [ordered.AS_IT_IS, ordered.AS_ORDERED])
@pytest.mark.parametrize("words", ["id:01K5XJ6TQ0M8V3N2R7B4C9D1EF", "older:2h", "from:@far.test size:>1"])
def test_the_next_step_of_long_work_is_sought_in_the_key(empty: apsw.Connection, words: str, source: str) -> None:
    """Else each step would read all that the steps before it have done."""
    which = queue_filter.where(parse_filter(words.split()), 1e9)
    sql = orders._FOUND.format(
        spool="spool", joins=which.joins, may=operations.may(Action.HOLD, ()), condition=which.condition
    )
    plan = planned(empty, sql, len(which.parameters) + 3)
    assert [line for line in plan if line.startswith(("SEARCH spool", "SEARCH now")) and "PRIMARY KEY" in line], plan
    assert not [line for line in plan if "TEMP B-TREE" in line], plan
    read_through = tuple(f"SCAN {table}" for table in ("messages", "contents", "spool", "now", "ordered"))
    assert not [line for line in plan if line.startswith(read_through)], plan


def test_what_is_claimed_is_found_by_its_index(empty: apsw.Connection) -> None:
    which = queue_filter.where(parse_filter(["to:@far.test"]), 1e9)
    sql = orders._CLAIMED.format(joins=which.joins, may=operations.may(Action.HOLD, ()), condition=which.condition)
    plan = planned(empty, sql, len(which.parameters) + 4)
    assert any("spool_by_claim" in line for line in plan), plan


@pytest.mark.parametrize("sql", [operations.EVENTS, operations.UNREFERENCED])
def test_a_step_touches_only_its_own_rows(empty: apsw.Connection, sql: str) -> None:
    plan = plan_of(empty, sql)
    assert "SEARCH spool USING PRIMARY KEY (queue_id=? AND recipient_number=?)" in plan
    assert not [line for line in plan if line.startswith(("SCAN spool", "SCAN events"))]


@pytest.mark.parametrize("action", Action)
def test_a_step_changes_rows_by_their_keys(empty: apsw.Connection, action: Action) -> None:
    sql = f"{operations._DO[action]} {operations._AMONG}"
    assert "SEARCH spool USING PRIMARY KEY (queue_id=? AND recipient_number=?)" in plan_of(empty, sql)


@pytest.mark.parametrize("word", ["older:1h", "id:01K5XJ6TQ0M8V3N2R7B4C9D1EF"])
def test_a_filter_by_time_or_id_does_not_read_the_queue_through(empty: apsw.Connection, word: str) -> None:
    which = queue_filter.where(parse_filter([word]), 1e9)
    sql = operations.MESSAGES.format(spool="spool", joins=which.joins, may="TRUE", condition=which.condition)
    assert any("SEARCH spool USING PRIMARY KEY (queue_id" in line for line in planned(empty, sql, 1))


def test_accounts_over_their_limit_are_found_in_an_index(empty: apsw.Connection) -> None:
    assert "SCAN spool USING COVERING INDEX spool_by_limit" in plan_of(empty, sending_limits._OVER)
