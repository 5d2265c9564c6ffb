"""What journeys are found by beside their parties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.journey_words import MOST_CHARACTERS, MOST_WORDS, message_id_key, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("421 4.7.28 Try AGAIN later.", ("421", "4.7.28", "try", "again", "later")),
        ("550-5.7.1 [192.0.2.1] blocked, see https://x.test/a_b?c=5.7.1.", None),
        ("Mailbox voll: später", ("mailbox", "voll", "später")),
        ("4.7.28", ("4.7.28",)),
        ("14.7.28.3", ("14", "7", "28", "3")),
        ("again again", ("again",)),
        ("...", ()),
    ],
)
def test_words(text: str, words: tuple[str, ...] | None) -> None:
    found = words_of(text)
    assert words is None or found == words
    if words is None:
        assert {"5.7.1", "192", "blocked", "https", "test", "a", "b"} <= set(found)


@given(st.text())
def test_words_are_bounded_and_words_of_words_are_the_same(text: str) -> None:
    found = words_of(text * 50)
    assert len(found) <= MOST_WORDS
    assert all(0 < len(word) <= MOST_CHARACTERS and '"' not in word and " " not in word for word in found)


def test_a_message_id_is_compared_without_brackets_and_case() -> None:
    assert message_id_key(" <Tea@Laptop.LAN> ") == message_id_key("tea@laptop.lan") == "tea@laptop.lan"
    assert message_id_key("<<x>>") == "<x>"
    assert len(message_id_key("x" * 5000)) == 1000
