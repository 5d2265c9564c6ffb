"""The doors of a house notice that all its peers are one."""

from __future__ import annotations

import json
import smtplib
from pathlib import Path

import pytest

from posthouse.net.crowd import ENOUGH_SESSIONS, read_note
from tests.running_house import RunningHouse


def knock(house: RunningHouse, door: str) -> list[dict[str, object]]:
    """Many sessions; what the log says about them all."""
    for _ in range(ENOUGH_SESSIONS + 5):
        with smtplib.SMTP("127.0.0.1", house.ports[door], timeout=20):
            pass
    lines = (json.loads(line) for line in house.log.getvalue().splitlines())
    return [line for line in lines if line["event"] == "most sessions come from one private address"]


@pytest.mark.parametrize(("door", "told"), [("smtp", 1), ("submission", 0)])
def test_strangers_behind_one_trusted_address_are_told(tmp_path: Path, door: str, told: int) -> None:
    with RunningHouse(tmp_path, reception={"trusted_networks": ["127.0.0.0/8"]}) as house:
        warnings = knock(house, door)
    assert len(warnings) == told
    assert (read_note(tmp_path) is not None) == bool(told)
