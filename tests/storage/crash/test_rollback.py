"""A power cut, or a disk that fails, at any moment of a way back: one schema or the other, with the mail of today."""

from __future__ import annotations

import random
import shutil
from functools import cache
from pathlib import Path

import apsw
import pytest
from tests.storage.crash.disk import PowerCut, power_cuts, states, write_out
from tests.storage.crash.house import recording
from tests.storage.crash.migrating import NOW, REBUILDS, SCHEMA, SEED, bring_up, examined
from tests.storage.crash.recording import Fault, Recorder, Trouble
from tests.storage.crash.recovery import scratch_folder
from tests.storage.sqlite.old import make_old

from posthouse.storage.errors import StorageError
from posthouse.storage.filesystem import FileSystem, RealFileSystem
from posthouse.storage.sqlite.changes_of_schema import Shape, shape_of
from posthouse.storage.sqlite.connection import DATABASE, forget, open_writable
from posthouse.storage.sqlite.rollback import roll_back, ways_back
from posthouse.storage.upkeep import RolledBack, tell_nobody

# It rewrites what is there, as those of later migrations will.
WAYS = {
    **ways_back(),
    SCHEMA: """
        CREATE TABLE older(domain TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
        INSERT INTO older SELECT domain FROM domains;
        DROP TABLE domains;
        ALTER TABLE older RENAME TO domains;
        DROP TABLE bulk;
    """,
}
MAIL_SINCE = """
INSERT INTO messages VALUES ('01SINCE', 1, 2.0, NULL, NULL, x'', NULL, NULL, 0, '7BIT', 2, 0, 0, 0, 0, NULL);
INSERT INTO entries VALUES (1, 2, 1, '01SINCE', 1, '01SINCE', 0, 4, '', 2, 'alice', 'house.test', x'');
UPDATE folders SET next_uid = 3, change_counter = 2, message_count = 2, used_octets = 8;
"""


def upgraded(recorder: Recorder) -> None:
    """An old house that was upgraded, and took mail since."""
    make_old(recorder.folder, vfs=recorder.vfs_name, file_system=recorder.file_system)
    bring_up(recorder)
    connection = open_writable(recorder.folder / DATABASE, vfs=recorder.vfs_name)
    connection.execute(f"BEGIN; {MAIL_SINCE}; COMMIT")
    forget(connection)


@cache
def shapes() -> dict[int, Shape]:
    """What a database of each of the two schemas looks like."""
    found = {}
    with scratch_folder() as folder, recording(folder) as recorder:
        path = make_old(folder, file_system=recorder.file_system)
        for schema in (1, SCHEMA):
            connection = apsw.Connection(str(path))
            found[schema] = shape_of(connection)
            connection.close()
            bring_up(recorder)
    return found


def shape_is_right(path: Path) -> bool:
    connection = apsw.Connection(str(path))
    try:
        schema = connection.pragma("user_version")
        assert isinstance(schema, int)
        return shape_of(connection) == shapes()[schema]
    finally:
        connection.close()


def back(folder: Path, disk: FileSystem, vfs: str | None, now: float) -> RolledBack:
    return roll_back(folder, now=now, disk=disk, tell=tell_nobody, vfs=vfs, known=REBUILDS, ways=WAYS)


def complaint(folder: Path, *, must_be: int | None) -> str | None:
    """What is wrong with what a power cut left; `must_be` is the schema that was promised."""
    for one in folder.glob("*.snapshot"):
        if (found := examined(one)) not in ((1, 1), (SCHEMA, 2)):
            return f"{one.name}: {found}"
    schema, mail = examined(folder / DATABASE)
    if mail != 2 or schema not in (1, SCHEMA) or must_be not in (None, schema):
        return f"{schema}, {mail}, {must_be}"
    if not shape_is_right(folder / DATABASE):
        return f"not what schema {schema} looks like"
    if schema == SCHEMA:
        # Whatever was left, the way back can be gone then.
        back(folder, RealFileSystem(), None, NOW + 120)
    return None if examined(folder / DATABASE) == (1, 2) else "the way back could not be gone afterwards"


def complaints(recorder: Recorder, cuts: list[PowerCut], promised_at: int | None) -> list[str]:
    found = []
    with scratch_folder() as scratch:
        for cut, files in states(recorder.log, cuts):
            folder = scratch / "left"
            folder.mkdir()
            write_out(files, folder)
            must_be = 1 if promised_at is not None and cut.position >= promised_at else None
            if (wrong := complaint(folder, must_be=must_be)) is not None:
                found.append(f"{cut}: {wrong}")
            shutil.rmtree(folder)
    return found


def test_a_power_cut_at_any_moment_of_a_way_back() -> None:
    with scratch_folder() as folder, recording(folder) as recorder:
        upgraded(recorder)
        since = recorder.position
        assert back(folder, recorder.file_system, recorder.vfs_name, NOW + 60).after == 1
        cuts = power_cuts(recorder.log, since=since, shuffles=1, seed=SEED)
        assert len(cuts) > 60
        assert complaints(recorder, cuts, recorder.position) == []


@pytest.mark.conformance("C290")
@pytest.mark.parametrize(
    "trouble",
    [Trouble.FULL, *(pytest.param(one, marks=pytest.mark.long) for one in Trouble if one is not Trouble.FULL)],
)
def test_a_disk_that_fails_at_any_moment_of_a_way_back(trouble: Trouble) -> None:
    nth, refused = 0, 0
    while nth < 400:
        with scratch_folder() as folder, recording(folder) as recorder:
            upgraded(recorder)
            recorder.fault = Fault(trouble, nth)
            promised: int | None = None
            try:
                back(folder, recorder.file_system, recorder.vfs_name, NOW + 60)
                promised = recorder.position
            except (apsw.Error, OSError, StorageError):
                refused += 1
            hit, recorder.fault = recorder.fault.hit, None
            if hit is None:
                break
            cuts = power_cuts(recorder.log, since=recorder.position, shuffles=1, seed=SEED)
            chosen = random.Random(nth).sample(cuts, min(3, len(cuts)))
            assert complaints(recorder, chosen, promised) == [], (nth, hit)
        nth += 1
    assert refused > 20
