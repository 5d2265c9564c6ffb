"""Queries that must stay cheap at a million rows: their plans seek in an index and never read a table through."""

from __future__ import annotations

import re
from collections.abc import Iterator

import apsw
import pytest

from posthouse.storage.sqlite import accept, claims, directory, identities, maildrops, retention, settle, spool, sweep
from posthouse.storage.sqlite.migrate import migrations

HOT = {
    "due": spool._DUE,
    "due rows": spool._DUE_ROWS,
    "make due": spool._MAKE_DUE,
    "tokens": spool._TOKENS,
    "claims of an incarnation": claims._FIND.format(which=claims.OF_INCARNATION),
    "claims of a token": claims._FIND.format(which=claims.OF_TOKEN),
    "earliest": spool._EARLIEST,
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
    "unreferenced": sweep._CANDIDATES,
    "referenced": sweep._REFERENCED,
    "remove content": sweep._REMOVE_CONTENT,
    "old journeys": retention._OLD,
    "refused journeys": retention._REFUSED,
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
    "folders",
    "unreferenced",
    "events",
)


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


def test_refused_journeys_are_counted_in_their_index(empty: apsw.Connection) -> None:
    assert plan_of(empty, retention._REFUSED_COUNT) == ["SCAN events USING COVERING INDEX events_refused"]


def test_due_hops_by_both_columns_of_a_destination(empty: apsw.Connection) -> None:
    plan = [line for *_, line in empty.execute(f"EXPLAIN QUERY PLAN {spool._DUE}", (1, 1, "", ""))]
    assert any("(via=? AND domain>?)" in line for line in plan)
    assert any("(via>?)" in line for line in plan)
