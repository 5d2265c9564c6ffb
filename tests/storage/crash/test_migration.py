"""A power cut, or a disk that fails, at any moment of a migration: the old database or the new one, never neither."""

from __future__ import annotations

import random
import shutil

import apsw
import pytest
from tests.storage.crash.disk import PowerCut, power_cuts, states, write_out
from tests.storage.crash.house import recording
from tests.storage.crash.migrating import SCHEMA, SEED, bring_up, complaint
from tests.storage.crash.recording import Fault, Recorder, Trouble
from tests.storage.crash.recovery import scratch_folder
from tests.storage.sqlite.old import make_old

from posthouse.storage.errors import StorageError


def complaints(recorder: Recorder, cuts: list[PowerCut], promised_at: int | None) -> list[str]:
    found = []
    with scratch_folder() as scratch:
        for cut, files in states(recorder.log, cuts):
            folder = scratch / "left"
            folder.mkdir()
            write_out(files, folder)
            must_be = SCHEMA if promised_at is not None and cut.position >= promised_at else None
            if (wrong := complaint(folder, must_be=must_be)) is not None:
                found.append(f"{cut}: {wrong}")
            shutil.rmtree(folder)
    return found


def test_a_power_cut_at_any_moment_of_a_migration() -> None:
    with scratch_folder() as folder, recording(folder) as recorder:
        make_old(folder, vfs=recorder.vfs_name, file_system=recorder.file_system)
        since = recorder.position
        assert len(bring_up(recorder)) == 1
        cuts = power_cuts(recorder.log, since=since, shuffles=1, seed=SEED)
        assert len(cuts) > 60
        assert complaints(recorder, cuts, recorder.position) == []


@pytest.mark.conformance("C290")
@pytest.mark.parametrize("trouble", Trouble)
def test_a_disk_that_fails_at_any_moment_of_a_migration(trouble: Trouble) -> None:
    nth, refused = 0, 0
    while nth < 400:
        with scratch_folder() as folder, recording(folder) as recorder:
            make_old(folder, vfs=recorder.vfs_name, file_system=recorder.file_system)
            recorder.fault = Fault(trouble, nth)
            promised: int | None = None
            try:
                bring_up(recorder)
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
