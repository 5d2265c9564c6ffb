"""What keeping a store in order is told in: migrations, backups, checks, and how long journeys are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

HOUSE = "house"
"""The folder in a backup with what is not the store's: configuration, self-signed pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """A database was brought to this version's schema; `posthouse restore SNAPSHOT` returns to what it was."""

    path: Path
    before: int
    after: int
    snapshot: Path


@dataclass(frozen=True, slots=True)
class Progress:
    """How far long work is. `total` is 0 where it cannot be known."""

    step: str
    done: int
    total: int


Tell: TypeAlias = Callable[[Progress], None]
"""May be called on any thread, often."""


def tell_nobody(_progress: Progress) -> None:
    """For those who do not watch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long journeys are kept, in seconds after their last event, and how many of refused mail at most.

    A journey of a message that is still in the queue is kept.
    """

    journeys_s: float
    refused_s: float
    refused_limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """Something that is not as it must be. `what` names it, `mend` says what to do. A `note` is no damage."""

    check: str
    what: str
    mend: str
    note: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a migration of a copy came to. With `before` equal to `after` there was nothing to do."""

    before: int
    after: int
    changes: tuple[str, ...] = ()
    flaws: tuple[Flaw, ...] = ()
    copy_s: float = 0.0
    migration_s: float = 0.0
    check_s: float = 0.0
    needed_octets: int = 0
    """What must be free for the migration itself."""
    free_octets: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be backed up besides the store, and for whom. `house`: name in the backup → file."""

    hostname: str
    house: Mapping[str, Path] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much there is in a store, or in a backup."""

    accounts: int
    messages: int
    entries: int
    queued: int
    contents: int
    content_files: int
    content_octets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much the store takes, and what the disk has. `log_octets`: commits that are not in the database file yet."""

    database_octets: int
    log_octets: int
    content_octets: int
    """Content in files of its own."""
    disk_free_octets: int
    """For us, without what is kept for root."""
    disk_octets: int
    free_files: int | None
    """How many more files the disk has room for; None where it has no such limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup says of itself. `database_sha256` is in hexadecimal."""

    posthouse: str
    schema: int
    made_at: float
    hostname: str
    database_octets: int
    database_sha256: str
    counts: Counts
    left_out: tuple[str, ...] = ()
    """Files that the house needs and that are not in the backup."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What came of a restore. `set_aside` is where the state before is kept, if there was one."""

    counts: Counts
    made_at: float
    held: int
    dropped: int = 0
    """Recipients and entries left out: of a snapshot, whose content was deleted since; of a backup, damaged ones."""
    set_aside: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """A database was brought back to the schema before its last migration; all mail is in it."""

    before: int
    after: int
    migrated_at: float
    snapshot: Path
    """The state of the newer schema, from before the way back."""
    left_out: tuple[str, ...]
    """What the older schema has no place for, in words."""
    held: int
    """Recipients that the older program would send wrongly or twice, and that wait until somebody releases them."""
    counts: Counts
