"""What a change of schema changes, in words: tables, columns, indexes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import apsw

from posthouse.storage.sqlite.connection import row, rows


@dataclass(frozen=True, slots=True)
class Shape:
    """The tables with their columns, and the SQL of the indexes."""

    tables: Mapping[str, tuple[str, ...]]
    indexes: Mapping[str, str]


def shape_of(connection: apsw.Connection) -> Shape:
    found = rows(connection, "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name")
    tables = {
        name: tuple(column for (column,) in rows(connection, "SELECT name FROM pragma_table_info(?)", (name,)))
        for kind, name, _ in found
        if kind == "table"
    }
    return Shape(tables, {name: sql for kind, name, sql in found if kind == "index"})


def differences(before: Shape, after: Shape) -> tuple[str, ...]:
    """One line for each table and index that comes, goes or changes."""
    said: list[str] = []
    for name in sorted({*before.tables, *after.tables}):
        said += _of_table(name, before.tables.get(name), after.tables.get(name))
    for name in sorted({*before.indexes, *after.indexes}):
        old, new = before.indexes.get(name), after.indexes.get(name)
        if old != new:
            said.append(f"index {name} {'is new' if old is None else 'goes' if new is None else 'changes'}")
    return tuple(said)


def _of_table(name: str, old: tuple[str, ...] | None, new: tuple[str, ...] | None) -> list[str]:
    if old is None:
        return [f"table {name} is new"]
    if new is None:
        return [f"table {name} goes"]
    comes = [column for column in new if column not in old]
    goes = [column for column in old if column not in new]
    return [
        f"table {name} {verb} {', '.join(columns)}" for verb, columns in (("gets", comes), ("loses", goes)) if columns
    ]


def row_counts(connection: apsw.Connection) -> dict[str, int]:
    """Rows of each table."""
    names = rows(connection, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return {name: row(connection, f'SELECT count(*) FROM "{name}"')[0] for (name,) in names}
