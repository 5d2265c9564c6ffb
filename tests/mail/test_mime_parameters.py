"""Parameters of Content-Type and Content-Disposition, the long and the broken ones too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.mime_parameters import media_type_of, parametrised


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b'attachment; filename="a b.pdf"', "a b.pdf"),
        (b"attachment; filename=a b.pdf", "a b.pdf"),
        (b'attachment; filename="a \\"b\\".pdf"', 'a "b".pdf'),
        (b"attachment; filename*=utf-8''gr%C3%BCn.pdf; filename=\"grn.pdf\"", "grün.pdf"),
        (b"attachment; filename*0*=iso-8859-1'de'gr%FC; filename*1=n; filename*2*=%2Epdf", "grün.pdf"),
        (b'attachment; filename*1="b.pdf"; filename*0="a"', "ab.pdf"),
        (b'attachment; filename="=?utf-8?q?gr=C3=BCn.pdf?="', "grün.pdf"),
        (b'attachment;\r\n\tfilename="never closed', "never closed"),
        (b"attachment; filename*=nonsense''%ff%zz", "ÿ%zz"),
        (b"attachment; filename=first; filename=second", "first"),
        (b"attachment;;; ; filename = x.pdf (comment)", "x.pdf"),
    ],
)
def test_file_names(value: bytes, name: str) -> None:
    found = parametrised(value)
    assert (found.value, found.parameters["filename"]) == ("attachment", name)


def test_a_boundary_stays_as_it_stands() -> None:
    assert parametrised(b'multipart/mixed; boundary="=_a  b?="').boundary == b"=_a  b?="


@given(st.binary(max_size=300))
def test_anything_has_parameters(value: bytes) -> None:
    for name, text in parametrised(value).parameters.items():
        (name + text).encode()


@pytest.mark.parametrize(
    ("value", "media_type"),
    [("text/html", "text/html"), ("", "text/plain"), ("text", "text/plain"), ("a/b c", "application/octet-stream")],
)
def test_media_types(value: str, media_type: str) -> None:
    assert media_type_of(value) == media_type
