"""Preparing passwords: the examples of RFC 4013 and RFC 8265."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.protocol.sasl import SaslError
from posthouse.protocol.sasl_prepare import opaque_string, saslprep


@pytest.mark.conformance("C127", "C130")
@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("a\u3000b", "a b"),
        ("pa\u0308ss", "p\u00e4ss"),
        ("\u05d0\u05d1", "\u05d0\u05d1"),
    ],
)
def test_saslprep(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize(
    "text", ["\u0007", "\u0627\u0031", "a\u007f", "\u0627a\u0627", "\U0001f600", "\ue000", "\udc80", "\u200e"]
)
def test_what_saslprep_forbids(text: str) -> None:
    with pytest.raises(SaslError):
        saslprep(text)


@pytest.mark.conformance("C127")
@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("Correct Horse Battery Staple", "Correct Horse Battery Staple"),
        ("\u03c0\u00df\u00e5", "\u03c0\u00df\u00e5"),
        ("Jack of \u2666s", "Jack of \u2666s"),
        ("foo\u1680bar", "foo bar"),
        ("a\u0308", "\u00e4"),
        ("\u212b", "\u00c5"),
        ("\uff21", "\uff21"),
        ("\U0001f600", "\U0001f600"),
    ],
)
def test_opaque_string(text: str, prepared: str) -> None:
    assert opaque_string(text) == prepared


@given(st.text(st.characters()))
def test_preparing_twice_changes_nothing(text: str) -> None:
    assert opaque_string(opaque_string(text)) == opaque_string(text)
    try:
        prepared = saslprep(text)
    except SaslError:
        return
    assert saslprep(prepared) == prepared
