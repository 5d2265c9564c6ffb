"""Header fields that we write: dates, and folding that unfolds to the same value."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.header import MAX_LINE_OCTETS, clipped, date_time, field, fold


@pytest.fixture
def kathmandu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.conformance("C73")
@pytest.mark.usefixtures("kathmandu")
def test_a_date_is_utc_wherever_the_house_stands() -> None:
    assert time.localtime(0).tm_min == 30
    assert date_time(1772532764.9) == "Tue, 03 Mar 2026 10:12:44 +0000"
    assert date_time(0) == "Thu, 01 Jan 1970 00:00:00 +0000"


def test_a_field_ends_in_crlf() -> None:
    assert field("Subject", "a\r\n b") == b"Subject: a\r\n b\r\n"


@pytest.mark.conformance("C283", "S18")
@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\rb", "a\x00b", "a\r\n \r\n b", "a\r\n", "a\x7fb", "a\r\n\r\nb"])
def test_a_value_that_would_begin_a_field_is_a_bug(value: str) -> None:
    with pytest.raises(ValueError, match="header field"):
        field("Subject", value)


def test_folding_where_white_space_is() -> None:
    assert fold("Subject", "aaa bbb  ccc", 14) == "aaa\r\n bbb  ccc"
    assert fold("Subject", "a" * 100) == "a" * 100
    assert fold("Subject", "") == ""


@given(st.text("ab \t\u00e9"), st.integers(5, 40))
def test_unfolding_gives_the_same_value(value: str, limit: int) -> None:
    folded = fold("X", value, limit)
    assert folded.replace("\r\n", "") == value.rstrip()
    assert all(line.strip() for line in folded.split("\r\n")[1:])
    field("X", folded)


@given(st.text(st.characters(min_codepoint=33, codec="utf-8"), max_size=3000))
def test_clipped_words_can_always_be_folded(text: str) -> None:
    value = clipped(text)
    assert value.replace(" ", "") == text.replace(" ", "")
    assert all(len(line.encode()) <= MAX_LINE_OCTETS for line in fold("Subject", value).split("\r\n"))


def test_only_spaces_and_tabs_can_be_folded() -> None:
    value = fold("Subject", clipped("a" + "\u2001" * 600 + "b"))
    assert all(len(line.encode()) <= MAX_LINE_OCTETS for line in value.split("\r\n"))
