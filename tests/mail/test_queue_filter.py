"""The words with which operators say which recipients they mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.queue_filter import (
    FILTER_HELP,
    Attempts,
    Comparison,
    Condition,
    FilterError,
    From,
    Held,
    OfMessage,
    RepliedCode,
    RepliedText,
    SentBy,
    Size,
    Through,
    To,
    Toward,
    Waiting,
    parse_filter,
)
from posthouse.mail.spool import Hold

ID = "01K5XJ6TQ0M8V3N2R7B4C9D1EF"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        (ID, OfMessage(ID)),  # type: ignore[arg-type]
        (ID.lower(), OfMessage(ID)),  # type: ignore[arg-type]
        (f"id:{ID}", OfMessage(ID)),  # type: ignore[arg-type]
        ("to:bob@Far.test", To("bob", "far.test")),
        ("TO:@far.test", To("", "far.test")),
        ('to:"a:b@c"@far.test', To('"a:b@c"', "far.test")),
        ("from:<>", From("", "")),
        ("from:@far.test", From("", "far.test")),
        ("account:Ada@here.test", SentBy("ada@here.test")),
        ("domain:bücher.test", Toward("xn--bcher-kva.test")),
        ("via:smtp.far.test:587", Through("smtp.far.test:587")),
        ("older:2h", Waiting(Comparison.ABOVE, 7200.0)),
        ("younger:3d", Waiting(Comparison.BELOW, 259200.0)),
        ("reply:451", RepliedCode("451")),
        ("reply:4.7.28", RepliedCode("4.7.28")),
        ("reply:4.7", RepliedCode("4.7")),
        ("reply:none", RepliedText("")),
        ("reply:too many: really", RepliedText("too many: really")),
        ("held:", Held()),
        ("held:no", Held(held=False)),
        ("held:limit", Held(hold=Hold.LIMIT)),
        ("attempts:>3", Attempts(Comparison.ABOVE, 3)),
        ("attempts:3", Attempts(Comparison.EQUAL, 3)),
        ("size:>=1M", Size(Comparison.FROM, 1_000_000)),
        ("size:<20k", Size(Comparison.BELOW, 20_000)),
    ],
)
def test_a_word_means_a_condition(word: str, meant: Condition) -> None:
    assert parse_filter([word]) == (meant,)


@pytest.mark.parametrize(
    "word",
    [
        *(
            "",
            ":",
            "all",
            "bob@far.test",
            "to:",
            "to:bob",
            "to:@",
            "to:@a b",
            "older:2",
            "older:-1h",
            "older:h",
            "id:7",
        ),
        *(
            "attempts:>",
            "attempts:3K",
            "attempts:=>3",
            "size:big",
            "held:perhaps",
            "account:ada",
            "shoe:7",
            "to:<>",
            "sh\noe:7",
            "a\nb@c.test",
        ),
    ],
)
def test_what_is_no_filter_is_told_in_one_line(word: str) -> None:
    with pytest.raises(FilterError) as told:
        parse_filter([word])
    assert "\n" not in str(told.value)
    assert len(str(told.value)) > 20


@given(st.lists(st.text(max_size=30), max_size=3))
def test_no_word_breaks_the_parser(words: list[str]) -> None:
    try:
        assert len(parse_filter(words)) == len(words)
    except FilterError:
        pass


def test_the_help_holds_no_word_that_is_refused() -> None:
    shown = FILTER_HELP.partition("hold: ")[2].removesuffix(".").split(", ")
    assert len(parse_filter(word for word in shown if not word.endswith(":"))) == 7
