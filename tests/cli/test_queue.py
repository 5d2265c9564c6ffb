"""`posthouse queue`, `journey` and `check` on a house with a letter that waits."""

from __future__ import annotations

import json
import re
import smtplib
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from posthouse.mail.spool import AT_ONCE
from posthouse.storage.sqlite.connection import DATABASE
from tests.cli.conftest import Command, Ran
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
    assert "bob@far.test" in run("queue", "list", "all").out
    assert run("queue", "list", "all", "to:@far.test").failed_with("'all' is neither")
    assert run("queue", "show", "nonsense").failed_with("is not a queue id", "posthouse queue list")
    (row,) = json.loads(run("queue", "list", "--json").out)
    assert (row["queue_id"], row["attempts"], row["held"]) == (waiting, 1, False)
    shown = run("queue", "show", waiting).out
    assert "next try  in " in shown
    assert "The last of 1 try, " in shown
    assert run("queue", "release", waiting).failed_with("nothing to release")
    assert run("queue", "hold", waiting).out == "1 recipient held.\n"
    assert "next try  never, while it is held" in run("queue", "show", waiting).out
    held = "1 recipient that fits is held, and not tried until released.\n"
    assert run("queue", "retry", "to:@far.test", "--dry-run").out.endswith(held)
    assert run("queue", "retry", "all", "--yes").out.endswith(held)
    assert "until released" not in run("queue", "retry", "held:operator", "--dry-run").out
    assert "until released" not in run("queue", "hold", "all", "--dry-run").out
    assert run("queue", "retry", waiting).failed_with("nothing to retry")
    assert run("queue", "release", waiting.lower()).out == "1 recipient released.\n"
    assert run("queue", "retry", waiting).out == "1 recipient due at once.\n"
    assert json.loads(run("queue", "show", waiting, "--json").out)[0]["not_before"] == AT_ONCE
    assert "no house serves this folder now" in run("queue", "show", waiting).out
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
    assert "state     held, may have arrived" in shown
    assert run("queue", "release", "--all").out.startswith("0 recipients released; 1 recipient fits")
    assert run("queue", "retry", waiting).out == "1 recipient due at once.\n"
    assert json.loads(run("queue", "list", "--json").out)[0]["may_have_arrived"] is False


def test_what_ended_the_house_is_shown(furnished: Command, waiting: str) -> None:
    put_off(Path(), "deaths = 2")
    assert "The house ended 2 times while it was tried" in furnished.run("queue", "show", waiting).out


def test_a_long_queue_is_cut_and_says_so(furnished: Command, waiting: str) -> None:
    connection = apsw.Connection(DATABASE)
    names = [name for name, *_ in connection.execute("SELECT name FROM pragma_table_info('spool')")]
    values = ", ".join("n" if name == "recipient_number" else name for name in names)
    numbers = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1200)"
    connection.execute(f"INSERT INTO spool {numbers} SELECT {values} FROM spool, c")
    connection.close()
    shown = furnished.run("queue", "list").out
    assert "Shown are the first 1000 of 1201 recipients" in shown


def test_a_journey_is_found_by_id_and_by_its_parties(furnished: Command, waiting: str) -> None:
    for named in ((waiting,), ("--to", "bob@far.test"), ("--from", "ada@here.test")):
        told = furnished.run("journey", *named).out
        assert told.startswith(f"Message {waiting} ")
        assert "Waits" in told
        assert "bob@far.test: waits for its 2nd try in" in told
    shown = furnished.run("journey", waiting, "-v").out
    assert re.search(r"\+\d+ ms  S: \(Connection refused\)", shown)


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


def multiply(folder: Path, count: int) -> None:
    """The only row again for `count` more recipients."""
    connection = apsw.Connection(str(folder / DATABASE))
    names = [name for name, *_ in connection.execute("SELECT name FROM pragma_table_info('spool')")]
    values = ", ".join("n" if name == "recipient_number" else name for name in names)
    numbers = f"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {count})"
    connection.execute(f"INSERT INTO spool {numbers} SELECT {values} FROM spool, c")
    elsewhere = "domain = 'other.test', forward_domain = 'other.test'"
    connection.execute(f"UPDATE spool SET {elsewhere} WHERE recipient_number > 5")
    connection.close()


def states(run: Callable[..., Ran]) -> list[bool]:
    return [row["held"] for row in json.loads(run("queue", "list", "--json").out)]


def test_filters_are_counted_and_asked_about_before_anything_is_done(furnished: Command, waiting: str) -> None:
    run = furnished.run
    multiply(Path(), 9)
    asked = run("queue", "hold", "to:@far.test", "from:ada@here.test", "attempts:1", "younger:1h")
    assert asked.failed_with("nothing was done", "--yes", "--dry-run")
    assert "To hold: 6 recipients of 1 message, waiting for up to " in asked.out
    assert not any(states(run))
    dry = run("queue", "hold", "to:@far.test", "--dry-run").out
    assert "For example:" in dry
    assert f"  {waiting}  to bob@far.test, for " in dry
    assert dry.endswith("Nothing was changed.\n")
    assert not any(states(run))
    assert run("queue", "hold", "to:@far.test", "--yes").out.endswith("\n6 recipients held.\n")
    assert sum(states(run)) == 6
    assert run("queue", "hold", "to:@far.test", "--yes").out.startswith("0 recipients held; 6 recipients fit")
    assert run("queue", "release", "held:operator", "-y").out.endswith("6 recipients released.\n")
    assert run("queue", "retry", "domain:test", "--yes").out.endswith("10 recipients due at once.\n")
    assert run("queue", "remove", "all", "--yes").out.endswith("10 recipients removed.\n")
    told = [row for row in json.loads(run("journey", waiting, "--json").out) if row["event"] == "operated"]
    assert [(row["action"], len(row["forward_paths"])) for row in told] == [
        ("hold", 6),
        ("release", 6),
        ("retry", 10),
        ("remove", 10),
    ]
    assert told[0]["by"]


@pytest.mark.parametrize(("answer", "held"), [("y\n", 1), ("\n", 0)])
def test_who_is_asked_may_say_no(
    furnished: Command, waiting: str, monkeypatch: pytest.MonkeyPatch, answer: str, held: int
) -> None:
    monkeypatch.setattr("posthouse.cli.queue_actions.asked_by_somebody", lambda: True)
    ran = furnished.run("queue", "hold", "all", stdin=answer)
    assert (ran.status == 0) == bool(held)
    assert "Hold them? [y/N]" in ran.err
    assert sum(states(furnished.run)) == held


def test_a_summary_says_what_waits_where(furnished: Command, waiting: str) -> None:
    run = furnished.run
    multiply(Path(), 9)
    shown = run("queue", "list", "--summary").out.splitlines()
    assert shown[0].split() == ["recipients", "destination", "oldest", "next", "try", "last", "reply"]
    assert shown[1].split()[:2] == ["6", "far.test"]
    assert shown[2].split()[:2] == ["4", "other.test"]
    assert shown[-1].startswith("10 recipients of 1 message for 2 destinations, waiting for up to ")
    rows = json.loads(run("queue", "list", "to:@other.test", "--summary", "--json").out)
    assert [(row["destination"], row["recipients"], row["held"]) for row in rows] == [("other.test", 4, 0)]
    assert rows[0]["last_reply"].startswith("4")
    assert rows[0]["tried_at"] is not None
    assert "1 more destinations" in run("queue", "list", "--summary", "--limit", "1").out


def test_a_list_takes_filters_and_a_limit(furnished: Command, waiting: str) -> None:
    run = furnished.run
    multiply(Path(), 9)
    assert len(json.loads(run("queue", "list", "to:@other.test", "--json").out)) == 4
    assert run("queue", "list", "to:@nowhere.test").out == "Nothing that fits waits.\n"
    assert "first 3 of 4 recipients" in run("queue", "list", "to:@other.test", "--limit", "3").out
    cut_short = run("queue", "list", "--json", "--limit", "2")
    assert len(json.loads(cut_short.out)) == 2
    assert "first 2 of 10" in cut_short.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("bob@far.test",), "say which side is meant, to:bob@far.test or from:bob@far.test"),
        (("nonsense",), "is neither a queue id nor a filter"),
        (("fro:@far.test",), "did you mean from:?"),
        (("older:2",), "older:30m"),
        (("held:maybe",), "held:limit"),
        (("to:",), "says nothing behind the colon"),
        ((), "name a message or filters"),
    ],
)
def test_words_that_are_no_filters_are_one_line(furnished: Command, words: tuple[str, ...], said: str) -> None:
    assert furnished.run("queue", "hold", *words).failed_with(said)


def test_what_is_shown_fits_the_terminal(furnished: Command, waiting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.cli.queue_shown.on_terminal", lambda: True)
    for columns in (60, 80, 160):
        monkeypatch.setenv("COLUMNS", str(columns))
        for command in (("list",), ("list", "--summary"), ("show", waiting)):
            shown = furnished.run("queue", *command).out
            assert shown
            assert max(map(len, shown.splitlines())) <= max(columns, 76), shown
