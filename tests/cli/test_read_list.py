"""How lists of messages look on terminals."""

from __future__ import annotations

import pytest

from posthouse.cli.read_list import Line, columns_of, fitted, layout, short_name, state_in_words
from posthouse.mail.folders import INBOX, SENT
from posthouse.mail.ids import QueueId, Uid
from posthouse.mail.indexed import LETTER_BITS, Listed
from posthouse.mail.standing import Standing

NOW = 1_800_000_000


def line(subject: str = "subject", *, sender: str = "Bob <b@x.test>", folder: str = INBOX, state: str = "") -> Line:
    letter = Listed(
        letter=(NOW - 86_400 * 9) << LETTER_BITS,
        folder=folder,
        uid=Uid(1),
        queue_id=QueueId("01K8ZQ4T00000000000000000A"),
        copy=0,
        flags=frozenset({"\\Seen", "\\Answered", "\\Flagged"}),
        size_octets=1,
        sender=sender,
        recipients="Carol <c@x.test>, d@x.test",
        subject=subject,
        attached=1,
        conversation=1,
    )
    return Line(letter=letter, name="01K8ZQ4T", state=state)


def width_of(text: str) -> int:
    return sum(map(columns_of, text))


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_lines_fit(width: int) -> None:
    lines = [line("漢字" * 40, sender="漢字" * 20), line("x" * 200), line("e\u0301" * 100), line("\x1b" * 50)]
    shown = list(layout(lines, width=width, now=NOW, folder=INBOX))
    assert len(shown) == 5
    assert all(width_of(each) <= max(width, 71) for each in shown)
    assert len({each.index("01K8ZQ4T") for each in shown[1:]}) == 1


def test_sent_mail_shows_whom_it_is_to_and_how_far_it_came() -> None:
    head, told = layout([line(folder=SENT, state="may have arrived")], width=90, now=NOW, folder=SENT)
    assert head.split() == ["id", "date", "to", "state", "subject"]
    assert "r!@  Carol                 may have arrived  subject" in told
    _, among_others = layout([line(folder=SENT)], width=90, now=NOW, folder=None)
    assert "to Carol" in among_others
    assert "[Sent] subject" in among_others


@pytest.mark.parametrize(
    ("people", "name"),
    [
        ("Bob <b@x.test>", "Bob"),
        ('"Miller, Bob" <b@x.test>', "Miller, Bob"),
        ("b@x.test, c@x.test", "b@x.test"),
        ("<b@x.test>", "b@x.test"),
        ('""', "(nobody)"),
        ("", "(nobody)"),
        ("\x1b[2J <b@x.test>", "\\x1b[2J"),
    ],
)
def test_names(people: str, name: str) -> None:
    assert short_name(people) == name


def test_wide_text_is_cut_at_a_column() -> None:
    assert fitted("漢字漢字", 5) == "漢字…"
    assert fitted("漢字漢字", 4) == "漢… "
    assert fitted("abc", 5) == "abc  "


@pytest.mark.parametrize(
    ("states", "word"),
    [
        (["delivered"], "sent"),
        (["delivered", "in_maildrop", "deleted"], "sent"),
        (["delivered", "waiting"], "waiting"),
        (["delivered", "trying"], "waiting"),
        (["delivered", "held", "waiting"], "held"),
        (["delivered", "uncertain", "failed"], "may have arrived"),
        (["delivered", "failed", "waiting"], "failed"),
        (["removed"], "failed"),
        (["refused"], "failed"),
        (["delivered", "gone"], "unknown"),
        ([], "unknown"),
    ],
)
def test_sent_is_said_only_of_what_all_have(states: list[str], word: str) -> None:
    assert state_in_words(Standing(recipients=("x",), state=state, text="") for state in states) == word
