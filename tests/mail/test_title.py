"""The Subject of any message, as a person wrote it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.title import title_of


@pytest.mark.parametrize(
    ("beginning", "title"),
    [
        (b"Subject: Hello\r\n\r\nbody", "Hello"),
        (b"From: x\r\nSUBJECT :\ttwo\r\n  lines\r\nTo: y\r\n", "two lines"),
        (b"Subject: =?utf-8?q?sch=C3=B6n?= =?utf-8?b?w7ZkZQ==?=\r\n\r\n", "schönöde"),
        ("Subject: schön\r\n\r\n".encode(), "schön"),
        (b"Subject: \xe9\r\n\r\n", "\ufffd"),
        (b"Subject: =?utf-8?b?!!!?=\r\n\r\n", ""),
        (b"Subject: =?nothing?q?x?=\r\n\r\n", "=?nothing?q?x?="),
        ("Subject: =?ütf-8?q?x?=\r\n\r\n".encode(), "=?ütf-8?q?x?="),
        (b"Subject: first\r\nSubject: second\r\n\r\n", "first"),
        (b"Subject:\r\n\r\n", ""),
        (b"X: y\r\n\r\nSubject: in the body\r\n", ""),
        (b"\r\nSubject: in the body\r\n", ""),
        (b"X-Subject: no\r\nNo-\r\n Subject: no\r\n\r\n", ""),
        (b"", ""),
    ],
)
def test_titles(beginning: bytes, title: str) -> None:
    assert title_of(beginning) == title


@given(st.binary(max_size=200) | st.text("=?utf-8qb_iso\r\n 01", max_size=100).map(str.encode))
def test_anything_has_a_title_or_none(octets: bytes) -> None:
    title = title_of(b"Subject: " + octets)
    assert title == " ".join(title.split())
    assert title_of(b"From: x\r\nSubject: " + octets + b"\r\n\r\n") is not None
