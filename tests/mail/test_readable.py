"""What is text and what is attached."""

from __future__ import annotations

import pytest
from tests.mail.test_mime import MULTIPART, parse

from posthouse.mail.mime import Message
from posthouse.mail.readable import attachments, harmless, text


def made(*parts: tuple[str, str], kind: str = "mixed") -> Message:
    body = "".join(f"--x\r\n{header}\r\n\r\n{content}\r\n" for header, content in parts)
    return parse(f"Content-Type: multipart/{kind}; boundary=x\r\n\r\n{body}--x--\r\n".encode())


PLAIN = "Content-Type: text/plain"
HTML = "Content-Type: text/html"


def test_of_alternatives_the_plain_one_is_read() -> None:
    message = parse(MULTIPART)
    assert text(message).text == "plain\ntext"
    assert [(each.number, each.file_name) for each in attachments(message)] == [(1, "a.pdf")]


def test_html_is_read_where_the_plain_one_is_empty() -> None:
    found = text(made((PLAIN, "  "), (HTML, "<p>x"), kind="alternative"))
    assert (found.text, found.is_html) == ("x", True)


def test_texts_in_a_row_are_one_text_and_named_ones_are_attached_too() -> None:
    message = made((PLAIN, "one"), (f"{PLAIN}\r\nContent-Disposition: attachment", "two"), (PLAIN, "three"))
    assert text(message).text == "one\n\nthree"
    assert [each.file_name for each in attachments(message)] == ["attachment-1.txt"]


def test_pictures_of_html_belong_to_it() -> None:
    message = made((HTML, "x"), ("Content-Type: image/png\r\nContent-ID: <1@x>", "y"), kind="related")
    (picture,) = attachments(message)
    assert picture.is_picture_of_text
    assert picture.file_name == "attachment-1.png"


def test_a_message_in_a_message_is_a_file() -> None:
    message = made((PLAIN, "see"), ("Content-Type: message/rfc822", "Subject: inner\r\n\r\nbody"))
    assert text(message).text == "see"
    assert [each.file_name for each in attachments(message)] == ["attachment-1.eml"]


@pytest.mark.parametrize(
    ("foreign", "lines"),
    [
        ("\x1b[2Jx\x07", ["\\x1b[2Jx\\x07"]),
        ("a\u202eb\u2066c", ["a\\u202eb\\u2066c"]),
        ("a\u200bb", ["ab"]),
        ("a\tb\r", ["a       b\\x0d"]),
        ("a\x9b2J\u2028b", ["a\\x9b2J\\u2028b"]),
        ("one\ntwo", ["one", "two"]),
        ("x" * 50_000, ["x" * 20_000, "x" * 20_000, "x" * 10_000]),
    ],
)
def test_nothing_steers_a_terminal(foreign: str, lines: list[str]) -> None:
    assert list(harmless(foreign)) == lines
