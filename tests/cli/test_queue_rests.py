"""`posthouse queue show` of what is due and was never tried: its destination rests because of other mail."""

from __future__ import annotations

import time
from pathlib import Path

import apsw
import pytest

from posthouse.storage.sqlite.connection import DATABASE
from tests.cli.conftest import Command
from tests.cli.test_queue import send
from tests.running_house import RunningHouse

NEVER_TRIED = "UPDATE spool SET last_reply = NULL, tried_at = NULL, attempts = 0, not_before = ? WHERE queue_id = ?"


def test_what_another_message_met_with_is_told(furnished: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunningHouse(Path(), ("ada@here.test",)) as house:
        tried, waits = (send(house.ports["submission"]) for _ in range(2))
        deadline = time.monotonic() + 20
        while None in [row.last_reply for row in house.ask(lambda storage: storage.spool.list())]:
            assert time.monotonic() < deadline
    connection = apsw.Connection(DATABASE)
    connection.execute(NEVER_TRIED, (time.time() - 5, waits))
    connection.close()
    monkeypatch.setattr("posthouse.cli.check.is_served", lambda config: True)
    shown = furnished.run("queue", "show", waits).out
    assert "tried     0 times" in shown
    assert "It is due, but far.test did not answer " in shown
    assert "It was not tried yet." in shown
    assert "It is due" not in furnished.run("queue", "show", tried).out
