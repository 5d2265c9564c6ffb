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
    tables = {
        name: tuple(column for (column,) in rows(connection, "SELECT name FROM pragma_table_info(?)", (name,)))
        for name in _tables(connection, "table", "virtual")
    }
    indexes = rows(connection, "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND name NOT LIKE 'sqlite_%'")
    return Shape(tables, dict(indexes))


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
    """Rows of each table; not of indexes that are tables (full text)."""
    return {name: row(connection, f'SELECT count(*) FROM "{name}"')[0] for name in _tables(connection, "table")}


def _tables(connection: apsw.Connection, *kinds: str) -> list[str]:
    """Their names; what a virtual table keeps its rows in is `shadow`."""
    found = rows(connection, "SELECT name, type FROM pragma_table_list WHERE schema = 'main' ORDER BY name")
    return [name for name, kind in found if kind in kinds and not name.startswith("sqlite_")]
