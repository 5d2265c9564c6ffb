"""Encoded words as they come: right, cut in the middle of a character, broken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.encoded_words import text_of
from posthouse.mail.letter import encoded


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b" =?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
        (b"=?UTF-8?B?R3LDvMOfZQ==?= an =?iso-8859-1?Q?K=F6ln?=", "Grüße an Köln"),
        (b"=?utf-8?b?R3LD?=\r\n =?utf-8?b?vMOfZQ==?=", "Grüße"),
        (b"=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        (b"=?utf-8?q?a?= =?iso-8859-1?q?b?=", "ab"),
        (b"=?utf-8*de?q?a_b?=", "a b"),
        (b"=?nonsense?q?=E4?=", "ä"),
        (b"=?utf-8?x?a?= =?utf-8?q?a", "=?utf-8?x?a?= =?utf-8?q?a"),
        (b"plain\r\n folded", "plain folded"),
        ("roh: Grüße".encode(), "roh: Grüße"),
        (b"roh: Gr\xfc\xdfe", "roh: Grüße"),
        (b"", ""),
    ],
)
def test_words_are_read(value: bytes, text: str) -> None:
    assert text_of(value) == text


@given(st.text(max_size=300))
def test_what_we_write_is_read(text: str) -> None:
    spelled = encoded(text, "Subject").encode()
    plain = "".join(c if c.isprintable() or c == " " else " " for c in text)
    if plain == text:
        assert text_of(spelled) == " ".join(text.split())


@given(st.binary(max_size=300))
def test_anything_is_one_line(value: bytes) -> None:
    assert len(text_of(value).splitlines()) <= 1


def test_many_words_that_do_not_end_are_quickly_passed() -> None:
    assert text_of(b"=?utf-8?q?" * 100_000).startswith("=?utf-8?q?")
