"""Why a recipient waits, in words for an operator."""

from __future__ import annotations

from typing import Any

import pytest
from tests.forwarding.rows import a_message, a_row

from posthouse.mail.spool import SpoolRow
from posthouse.mail.waiting import Answered, next_try, wait_of

NOW = 1_800_000_000.0
REPLY = "451 4.7.28 Too much mail"


def row(**fields: Any) -> SpoolRow:
    return a_row(
        message=a_message(), **{"not_before": NOW + 600, "attempts": 3, "last_reply": REPLY, "claimed": False, **fields}
    )


@pytest.mark.parametrize(
    ("fields", "state", "why", "again"),
    [
        ({}, "next try in 10 min", f"The last of 3 tries, ended with: {REPLY}", "in 10 min, on "),
        ({"tried_at": NOW - 60}, "next try in 10 min", f"The last of 3 tries, 1 min ago, ended with: {REPLY}", "in 10"),
        ({"attempts": 0, "last_reply": None}, "next try in 10 min", "It was not tried yet.", "in 10 min"),
        ({"claimed": True}, "being tried now", "An attempt is under way.", "now"),
        ({"not_before": NOW - 5}, "due", "take turns", "as soon as it is its turn"),
        ({"held": True}, "held", "An operator put it on hold", "never, while it is held"),
        ({"held": True, "held_by_restore": True}, "held by restore", "since the backup was made", "never"),
        ({"held": True, "held_by_limit": True}, "held by limit", "its sending limit", "never"),
        ({"held": True, "sending_at": 5.0}, "held, may have arrived", "It may have arrived", "never"),
        ({"deaths": 2}, "next try in 10 min", "The house ended 2 times while it was tried", "in 10 min"),
    ],
)
def test_each_state_says_why_and_when(fields: dict[str, Any], state: str, why: str, again: str) -> None:
    wait = wait_of(row(**fields), NOW)
    assert wait.state == state
    assert why in " ".join(wait.why)
    assert next_try(row(**fields), NOW).startswith(again)
    assert bool(wait.decide) == bool(fields.get("held"))


def test_the_reply_is_explained_and_said_to_be_tried_again() -> None:
    said = " ".join(wait_of(row(), NOW).why)
    assert "The cause is at" in said or "The cause is on" in said
    assert "tried again by itself" in said


@pytest.mark.parametrize(
    ("reply", "ago_s", "rests"),
    [
        ("451 4.7.1 Greylisted", 30, "asked 30 s ago to be sent less (451 4.7.1 Greylisted)"),
        ("421 Too many connections", 30, "asked 30 s ago to be sent less"),
        ("451 4.4.1 No connection to 192.0.2.1", 30, "did not answer 30 s ago"),
        ("451 4.4.1 No connection to 192.0.2.1", 901, None),
        ("450 4.2.2 Mailbox full", 30, None),
        ("250 2.0.0 Ok", 30, None),
        ("not a reply", 30, None),
    ],
)
def test_what_was_never_tried_tells_that_its_destination_rests(reply: str, ago_s: float, rests: str | None) -> None:
    due = row(not_before=NOW - 5, attempts=0, last_reply=None)
    why = wait_of(due, NOW, answered=Answered(reply, NOW - ago_s)).why[0]
    assert (rests in why and "rest" in why) if rests else why == "It is due: destinations take turns."
    own = wait_of(row(not_before=NOW - 5, last_reply=reply, tried_at=NOW - ago_s), NOW).why[0]
    assert own == why
    assert wait_of(due, NOW).why[0] == "It is due: destinations take turns."


def test_what_nobody_can_try_says_how_to_start() -> None:
    wait = wait_of(row(not_before=NOW - 5), NOW, served=False)
    assert wait.why[0] == "It is due, but no house serves this folder now."
    assert wait.decide == ("start it: posthouse serve",)
    assert wait_of(row(), NOW, served=False).decide == ()
