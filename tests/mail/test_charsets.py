"""Octets as text, whatever charset they claim."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.charsets import codec_of, decoded


@given(st.binary(max_size=200), st.sampled_from(["", "utf-8", "utf-7", "utf-16", "us-ascii", "hz", "iso-2022-jp", "x"]))
def test_anything_becomes_text_that_can_be_written(octets: bytes, charset: str) -> None:
    decoded(octets, charset).encode()


@given(st.binary(max_size=50), st.text(max_size=30))
def test_any_charset_may_be_claimed(octets: bytes, charset: str) -> None:
    decoded(octets, charset).encode()


@pytest.mark.parametrize(
    ("octets", "charset", "text"),
    [
        (b"Gr\xfc\xdfe", "ISO-8859-1", "Grüße"),
        (b"\x80 5", "iso-8859-1", "€ 5"),
        ("Grüße".encode(), "iso-2022-kr", "Grüße"),
        ("Grüße".encode(), "us-ascii", "Grüße"),
        (b"Gr\xfc\xdfe", "us-ascii", "Grüße"),
        ("привет".encode("koi8-r"), "KOI8-R", "привет"),
        ("你好".encode("gb2312"), "GB2312", "你好"),
        ("日本".encode("iso-2022-jp"), "iso-2022-jp", "日本"),
        (b"a\xffb", "utf-8", "a\ufffdb"),
        (b"+2AA-", "utf-7", "\ufffd"),
        ("é".encode(), "x-unknown", "é"),
    ],
)
def test_charsets_of_mail(octets: bytes, charset: str, text: str) -> None:
    assert decoded(octets, charset) == text


@pytest.mark.parametrize("name", ["punycode", "idna", "base64", "rot13", "unicode_escape", "undefined", "os", "a" * 99])
def test_what_is_no_charset_of_mail_is_none(name: str) -> None:
    assert codec_of(name) == ""
