"""`posthouse queue`, `journey` and `check` on a house with a letter that waits."""

from __future__ import annotations

import json
import re
import smtplib
import time
from pathlib import Path

import apsw
import pytest

from posthouse.mail.spool import AT_ONCE
from posthouse.storage.sqlite.connection import DATABASE
from tests.cli.conftest import Command
from tests.running_house import PASSWORD, RunningHouse


def send(port: int) -> str:
    """Hand in a letter for elsewhere; its queue id."""
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.login("ada@here.test", PASSWORD)
        client.mail("ada@here.test")
        client.rcpt("bob@far.test")
        _code, text = client.data(b"From: ada@here.test\r\nSubject: Tea\r\n\r\nCome at four.\r\n")
    found = re.search(rb"[0-7][0-9A-Z]{25}", text)
    assert found is not None
    return found[0].decode()


@pytest.fixture
def waiting(furnished: Command) -> str:
    """A letter that waits, since the next hop is a closed port; the house no longer runs."""
    with RunningHouse(Path(), ("ada@here.test",)) as house:
        queue_id = send(house.ports["submission"])
        deadline = time.monotonic() + 20
        while house.ask(lambda storage: storage.spool.list())[0].last_reply is None:
            assert time.monotonic() < deadline
    return queue_id


def test_an_operator_sees_and_steers_what_waits(furnished: Command, waiting: str) -> None:
    run = furnished.run
    assert "bob@far.test" in run("queue", "list").out
    (row,) = json.loads(run("queue", "list", "--json").out)
    assert (row["queue_id"], row["attempts"], row["held"]) == (waiting, 1, False)
    assert "next try in" in run("queue", "show", waiting).out
    assert run("queue", "release", waiting).failed_with("nothing to release")
    assert run("queue", "hold", waiting).out == "1 recipient held.\n"
    assert "next try held" in run("queue", "show", waiting).out
    assert run("queue", "retry", waiting).failed_with("nothing to retry")
    assert run("queue", "release", waiting.lower()).out == "1 recipient released.\n"
    assert run("queue", "retry", waiting).out == "1 recipient due at once.\n"
    assert json.loads(run("queue", "show", waiting, "--json").out)[0]["not_before"] == AT_ONCE
    assert "next try due" in run("queue", "show", waiting).out
    assert run("queue", "remove", waiting).out == "1 recipient removed.\n"
    assert run("queue", "remove", waiting).failed_with("does not wait", "posthouse journey")
    assert run("queue", "list").out == "Nothing waits.\n"
    told = [row["action"] for row in json.loads(run("journey", waiting, "--json").out) if row["event"] == "operated"]
    assert told == ["hold", "release", "retry", "remove"]


def put_off(folder: Path, sql: str) -> None:
    """Make the only row what a crash of the house would have made of it."""
    connection = apsw.Connection(str(folder / DATABASE))
    connection.execute(f"UPDATE spool SET {sql}")
    connection.close()


def test_what_may_have_arrived_is_shown_with_the_decision_to_make(furnished: Command, waiting: str) -> None:
    run = furnished.run
    put_off(Path(), "held = 1, sending_at = 1.0, via = 'smtp.provider.test:587'")
    assert "held, may have arrived" in run("queue", "list").out
    (row,) = json.loads(run("queue", "list", "--json").out)
    assert (row["may_have_arrived"], row["sending_at"], row["via"]) == (True, 1.0, "smtp.provider.test:587")
    shown = run("queue", "show", waiting).out
    assert f"send it again: posthouse queue retry {waiting}; if so: posthouse queue remove {waiting}" in shown
    assert "leaves    through smtp.provider.test:587" in shown
    assert run("queue", "release", "--all").out == "0 recipients released.\n"
    assert run("queue", "retry", waiting).out == "1 recipient due at once.\n"
    assert json.loads(run("queue", "list", "--json").out)[0]["may_have_arrived"] is False


def test_what_ended_the_house_is_shown(furnished: Command, waiting: str) -> None:
    put_off(Path(), "deaths = 2")
    assert "the house ended 2 times while it was tried" in furnished.run("queue", "show", waiting).out


def test_a_long_queue_is_cut_and_says_so(furnished: Command, waiting: str) -> None:
    connection = apsw.Connection(DATABASE)
    names = [name for name, *_ in connection.execute("SELECT name FROM pragma_table_info('spool')")]
    values = ", ".join("n" if name == "recipient_number" else name for name in names)
    numbers = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1200)"
    connection.execute(f"INSERT INTO spool {numbers} SELECT {values} FROM spool, c")
    connection.close()
    shown = furnished.run("queue", "list").out
    assert shown.endswith("Shown are the first 1000 recipients of 1201.\n")


def test_a_journey_is_found_by_id_and_by_its_parties(furnished: Command, waiting: str) -> None:
    for named in ((waiting,), ("--to", "bob@far.test"), ("--from", "ada@here.test")):
        told = furnished.run("journey", *named).out
        assert told.startswith(f"Message {waiting} ")
        assert "Waits" in told
    assert furnished.run("journey", "--refused").failed_with("no such mail was refused")


def test_check_says_what_is_right(furnished: Command) -> None:
    ran = furnished.run("check")
    assert (ran.status, ran.err) == (0, "")
    assert "read by ada@here.test" in ran.out
    assert "open to this machine only" in ran.out
    rows = json.loads(furnished.run("check", "--json").out)
    assert {row["state"] for row in rows} == {"ok", "note"}


def test_check_says_what_is_wrong(furnished: Command) -> None:
    furnished.run("account", "remove", "ada@here.test")
    ran = furnished.run("check")
    assert ran.failed_with("1 problem")
    assert "posthouse account add ada@here.test" in ran.out


def test_check_does_not_disturb_a_house_that_runs(furnished: Command) -> None:
    with RunningHouse(Path(), ("ada@here.test",)) as house:
        assert "a house serves this folder" in furnished.run("check").out
        assert send(house.ports["submission"])
