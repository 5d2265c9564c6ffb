"""A house of the first schema with 100,000 messages and a queue: upgraded and rolled back, killed on the way."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from posthouse.storage.filesystem import RealFileSystem
from posthouse.storage.sqlite.trial import try_migration
from posthouse.storage.upkeep import tell_nobody
from tests.cli.conftest import CONFIG, spawn
from tests.storage.sqlite import then
from tests.storage.sqlite.test_released import Then, look, unpacked

MESSAGES = 100_000
KILLS = 6


def killed_on_the_way(command: str, folder: Path, whole_s: float, chance: random.Random) -> None:
    """Start it and kill it, KILLS times, then let it end. Whatever was left, it goes on from there."""
    for _ in range(KILLS):
        process = spawn(command, folder=folder)
        try:
            process.wait(chance.uniform(0.3, 0.9) * whole_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        out, err = process.communicate()
        # It may have been done in time, or a time before; nothing else is an end that it comes to by itself.
        assert process.returncode in (0, -signal.SIGKILL) or "nothing to go back from" in err, (out, err)
    process = spawn(command, folder=folder)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0 or "nothing to go back from" in err, err


@pytest.mark.long
@pytest.mark.conformance("C251")
async def test_a_hundred_thousand_messages_go_there_and_back(tmp_path: Path) -> None:
    program = unpacked(1, tmp_path / "then").program
    old = Then(program, tmp_path / "house")
    old.run("furnish", str(MESSAGES))
    before = old.look()
    assert sum(map(len, before["maildrops"].values())) > MESSAGES
    assert len(before["queue"]) > MESSAGES // 10
    (old.house / "posthouse.toml").write_text(CONFIG)
    trial = await try_migration(old.house, now=time.time(), disk=RealFileSystem(), tell=tell_nobody)
    assert trial.flaws == ()
    chance = random.Random(17)
    start_s = 1.0
    killed_on_the_way("upgrade", old.house, start_s + trial.copy_s + trial.migration_s, chance)
    assert await look(old.house) == before
    await then.go_on(old.house, 1000)
    since = await look(old.house)
    assert sum(map(len, since["maildrops"].values())) > sum(map(len, before["maildrops"].values())) + 1000
    killed_on_the_way("rollback", old.house, start_s + trial.copy_s + trial.migration_s, chance)
    assert old.look() == since
