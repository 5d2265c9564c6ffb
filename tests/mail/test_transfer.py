"""Transfer encodings undone, right ones and broken ones."""

from __future__ import annotations

import base64
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.transfer import decoder, undone

ENCODINGS = st.sampled_from(["base64", "quoted-printable", "7bit", "nonsense", ""])


@given(st.binary(max_size=500), st.integers(1, 100))
def test_base64_comes_back(octets: bytes, chunk: int) -> None:
    encoded = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    each = decoder("base64")
    got = b"".join(each.feed(encoded[at : at + chunk]) for at in range(0, len(encoded), chunk)) + each.finish()
    assert got == octets


@given(st.binary(max_size=500))
def test_quoted_printable_comes_back(octets: bytes) -> None:
    assert undone(quopri.encodestring(octets), "quoted-printable") == octets


@given(st.binary(max_size=300), ENCODINGS, st.integers(1, 300))
def test_anything_is_undone_the_same_in_any_chunks(octets: bytes, encoding: str, chunk: int) -> None:
    each = decoder(encoding)
    got = b"".join(each.feed(octets[at : at + chunk]) for at in range(0, len(octets), chunk)) + each.finish()
    assert got == undone(octets, encoding)


@pytest.mark.parametrize(
    ("encoded", "octets"),
    [
        (b"QUJD", b"ABC"),
        (b"Q U\r\nJ!D", b"ABC"),
        (b"QUI", b"AB"),
        (b"QQ==QUJD", b"AABC"),
        (b"QUJDQ", b"ABC"),
        (b"====", b""),
        (b"\xff\xfe", b""),
    ],
)
def test_broken_base64_gives_what_it_holds(encoded: bytes, octets: bytes) -> None:
    assert undone(encoded, "base64") == octets


@pytest.mark.parametrize(
    ("encoded", "octets"),
    [(b"a=3Db", b"a=b"), (b"a=\r\nb", b"ab"), (b"a=ZZb", b"a=ZZb"), (b"a=", b"a"), (b"=e4", b"\xe4")],
)
def test_broken_quoted_printable_gives_what_it_holds(encoded: bytes, octets: bytes) -> None:
    assert undone(encoded, "quoted-printable") == octets


def test_a_line_without_end_is_not_kept_whole() -> None:
    each = decoder("quoted-printable")
    got = b"".join(each.feed(b"=41" * 1000) for _ in range(100)) + each.finish()
    assert got == b"A" * 100_000
