"""Targets: mail that is read here, and what people look for in it."""

from __future__ import annotations

import os
import unicodedata
import zlib

from tests.fuzz.draw import same_however_cut

from posthouse.mail.answer import answer_to
from posthouse.mail.charsets import decoded
from posthouse.mail.file_names import MAX_OCTETS, harmless_file_name
from posthouse.mail.found_by import found_by
from posthouse.mail.html_text import text_of_html
from posthouse.mail.mail_query import QueryError, parse_query
from posthouse.mail.mime import MAX_DEPTH, MAX_PARTS, Message, MimeReader
from posthouse.mail.readable import attachments, harmless, text
from posthouse.storage.sqlite.mail_search import match_of


def received_message(octets: bytes) -> None:
    """Any octets come apart the same however they are cut, and what is shown and saved of them is harmless."""
    message = same_however_cut(octets, zlib.crc32(octets), _parsed)
    assert 1 <= len(message.parts) <= MAX_PARTS
    assert all(part.parent < part.number for part in message.parts)
    assert len({part.parent for part in message.parts}) <= MAX_DEPTH + 1
    for line in harmless(text(message).text):
        assert all(c.isprintable() or unicodedata.category(c) == "Zs" for c in line)
    for each in attachments(message):
        file_name(each.part.name.encode("utf-8", "replace"))
    by = found_by(message, 1_800_000_000.0)
    "".join((by.sender, by.recipients, by.subject, by.text, *by.files)).encode()
    answer = answer_to(message, lambda _address: False, everyone=True, written="now")
    assert answer.subject.isprintable() or max(answer.subject) >= "\N{NO-BREAK SPACE}"


def _parsed(pieces: list[bytes]) -> Message:
    reader = MimeReader()
    for piece in pieces:
        reader.feed(piece)
    return reader.finish()


def html_text(octets: bytes) -> None:
    shown = text_of_html(octets.decode("utf-8", "replace"))
    assert len(shown) <= 4 * len(octets) + 100 or b"<blockquote" in octets.lower()


def file_name(octets: bytes) -> None:
    """Whatever it is called, it is one name in one folder."""
    name = harmless_file_name(decoded(octets), 1)
    assert name == os.path.basename(name)
    assert not name.startswith((".", "-", "~"))
    assert "\0" not in name
    assert len(name.encode()) <= MAX_OCTETS


def mail_query(octets: bytes) -> None:
    try:
        query = parse_query(octets.decode("utf-8", "replace"))
    except QueryError:
        return
    assert match_of(query.words).count('"') % 2 == 0
