"""Durations, sizes, moments and foreign text as a person reads them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.words import count, cut, duration, moment, ordinal, size, some, visible


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 ms"),
        (0, "0 ms"),
        (0.34, "340 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (2.5, "2.5 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (125, "2 min 5 s"),
        (300, "5 min"),
        (3599.6, "1 h"),
        (3660, "1 h 1 min"),
        (4 * 3600, "4 h"),
        (86399, "1 day"),
        (86400, "1 day"),
        (3 * 86400 + 4 * 3600, "3 days 4 h"),
        (5 * 86400, "5 days"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, 1e9))
def test_duration_never_shows_a_full_unit(seconds: float) -> None:
    assert not {"60 s", "60 min", "24 h", "1000 ms"} & {duration(seconds)}
    assert duration(seconds).split()[0] != "0" or seconds < 0.001


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (0, "0 octets"),
        (1, "1 octet"),
        (812, "812 octets"),
        (1000, "1 KB"),
        (4096, "4.1 KB"),
        (9_960, "10 KB"),
        (999_499, "999 KB"),
        (999_500, "1 MB"),
        (25_000_000, "25 MB"),
        (3_000_000_000, "3 GB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_size(octets: int, text: str) -> None:
    assert size(octets) == text


def test_moment_is_utc_and_english() -> None:
    assert moment(1772532764.9) == "3 March 2026, 10:12 UTC"
    assert moment(0) == "1 January 1970, 00:00 UTC"


def test_counts_and_lists() -> None:
    assert count(1, "recipient", "recipients") == "1 recipient"
    assert count(2, "recipient", "recipients") == "2 recipients"
    assert some([]) == ""
    assert some(["a"]) == "a"
    assert some(["a", "b"]) == "a and b"
    assert some(["a", "b", "c"]) == "a, b and c"
    assert some(["a", "b", "c", "d"]) == "a, b, c and 1 more"


def test_cut() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abcde…"


def test_visible_shows_what_could_steer_a_terminal() -> None:
    assert visible("plain é \u00a0x") == "plain é \u00a0x"
    assert visible("a\x1b[31m\r\nb\u202e\U000e0001") == "a\\x1b[31m\\x0d\\x0ab\\u202e\\U000e0001"


@given(st.text())
def test_visible_leaves_no_control(text: str) -> None:
    assert not {unicodedata.category(c) for c in visible(text)} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def test_ordinals() -> None:
    numbers = (1, 2, 3, 4, 11, 12, 13, 21, 22, 33, 101, 111, 112)
    told = "1st 2nd 3rd 4th 11th 12th 13th 21st 22nd 33rd 101st 111th 112th"
    assert " ".join(map(ordinal, numbers)) == told
