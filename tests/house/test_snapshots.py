"""A house that runs removes the snapshots of old upgrades, and says so."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from posthouse.storage.sqlite.snapshots import KEPT_S, snapshot_path
from tests.running_house import RunningHouse


def test_an_old_snapshot_is_removed_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.app.SWEEP_EVERY_S", 0.01)
    snapshot = snapshot_path(tmp_path, 3, time.time() - KEPT_S - 60)
    snapshot.write_bytes(b"SQLite format 3")
    with RunningHouse(tmp_path) as house:
        deadline = time.monotonic() + 20
        while "snapshot of an old upgrade removed" not in house.log.getvalue():
            assert time.monotonic() < deadline
            house.ask(lambda storage: storage.tick())
    assert not snapshot.exists()
    lines = [json.loads(line) for line in house.log.getvalue().splitlines()]
    (told,) = [line for line in lines if line["event"] == "snapshot of an old upgrade removed"]
    assert told["snapshot"] == str(snapshot)
