"""Names of attachments: none leads out of a folder, on any system."""

from __future__ import annotations

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.file_names import MAX_OCTETS, harmless_file_name, numbered


@pytest.mark.parametrize(
    ("name", "harmless"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("C:\\Windows\\system.ini", "system.ini"),
        ("a/..", "attachment-7.pdf"),
        ("..", "attachment-7.pdf"),
        ("", "attachment-7.pdf"),
        ("\0\r\n", "attachment-7.pdf"),
        (".bashrc", "bashrc"),
        ("-rf", "rf"),
        ("--help", "help"),
        ("~root", "root"),
        ("a\0b\x1b[2J.pdf", "a_b_[2J.pdf"),
        ("invoice\u202efdp.exe", "invoice_fdp.exe"),
        ('<>:"|?*.txt', "_______.txt"),
        ("con", "_con"),
        ("NUL.txt", "_NUL.txt"),
        ("com1.tar.gz", "_com1.tar.gz"),
        ("trailing. . ", "trailing"),
        ("a  b\tc.pdf", "a b_c.pdf"),
        ("grün.pdf", "grün.pdf"),
        ("x" * 500 + ".pdf", "x" * (MAX_OCTETS - 4) + ".pdf"),
        ("x." + "y" * 500, ("x." + "y" * 500)[:MAX_OCTETS]),
    ],
)
def test_names(name: str, harmless: str) -> None:
    assert harmless_file_name(name, 7, "application/pdf") == harmless


@pytest.mark.conformance("C275")
@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Z", "C"]), max_size=400))
def test_any_name_is_one_name(name: str) -> None:
    made = harmless_file_name(name, 1)
    assert made == os.path.basename(made)
    assert made not in ("", ".", "..")
    assert not made.startswith((".", "-", "~", " "))
    assert not made.endswith((".", " "))
    assert "\\" not in made
    assert made.isprintable() or all(unicodedata.category(c) == "Zs" for c in made if not c.isprintable())
    assert len(numbered(made, 1000).encode()) <= 255


def test_a_number_stands_before_the_ending() -> None:
    assert numbered("report.pdf", 2) == "report (2).pdf"
    assert numbered("report", 3) == "report (3)"
