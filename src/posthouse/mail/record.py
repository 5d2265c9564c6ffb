"""Values that are made for each message, frozen by the type checker instead of at run time.

`@dataclass(frozen=True)` sets each field through `object.__setattr__`, which for an `Accepted` takes as long as a
statement of SQL. These classes are the same to mypy, which refuses an assignment; Python itself would not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def record(cls: type[T]) -> type[T]:
    """A dataclass with slots, fields by keyword, equality and a hash."""
    return dataclass(slots=True, kw_only=True, unsafe_hash=True)(cls)
