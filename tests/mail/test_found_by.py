"""What messages are found by, and how much of them at most."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.mail.test_mime import MULTIPART, parse

from posthouse.mail.found_by import (
    MOST_REFERENCES,
    TEXT_CHARACTERS,
    addresses_in,
    answered_subject,
    found_by,
    id_hash,
    plain_subject,
)

NOW = 1_800_000_000.0


def test_a_message_is_found_by_all_that_people_remember() -> None:
    by = found_by(
        parse(b"To: Ada <ada@here.test>\r\nCc: carol@x.test\r\nSubject: =?utf-8?q?=C3=84?=\r\n" + MULTIPART), NOW
    )
    assert (by.sender, by.recipients, by.subject) == ("a@x.test", "Ada <ada@here.test>, carol@x.test", "Ä")
    assert (by.text, by.files, by.attached) == ("plain\ntext", ("a.pdf",), 1)
    assert by.addresses == {"a@x.test", "ada@here.test", "carol@x.test"}
    assert by.sender_address == "a@x.test"


@pytest.mark.parametrize(
    ("date", "at"),
    [
        ("Fri, 02 Jan 1970 00:00:00 +0000", 86_400.0),
        ("Fri, 02 Jan 1970 02:00:00 +0200", 86_400.0),
        ("2 Jan 1970 00:00:00 GMT", 86_400.0),
        ("Mon, 1 Jan 1900 00:00:00 +0000", NOW),
        ("Mon, 1 Jan 2999 00:00:00 +0000", NOW),
        ("nonsense", NOW),
        ("Fri, 99 Zzz 99999999999999999999 99:99:99 +9999999999", NOW),
        ("", NOW),
    ],
)
def test_a_date_is_believed_where_it_can_be(date: str, at: float) -> None:
    assert found_by(parse(f"Date: {date}\r\n\r\n".encode()), NOW).date == at


@pytest.mark.parametrize(
    ("subject", "plain", "answered"),
    [
        ("Plan for May", "plan for may", ""),
        ("Re: Plan for May", "plan for may", "plan for may"),
        ("AW: Re[2]: re:  Plan  for May", "plan for may", "plan for may"),
        ("Re: hi", "", ""),
        ("Regarding: x", "regarding: x", ""),
        ("re:" * 1000, "", ""),
    ],
)
def test_subjects_of_answers(subject: str, plain: str, answered: str) -> None:
    assert (plain_subject(subject), answered_subject(subject)) == (plain, answered)


def test_references_are_bounded() -> None:
    header = b"References: " + b" ".join(b"<%d@x>" % number for number in range(9000)) + b"\r\nIn-Reply-To: <last@x>"
    by = found_by(parse(header + b"\r\n\r\n"), NOW)
    assert len(by.references) == MOST_REFERENCES
    assert (by.references[0], by.references[-1]) == (id_hash(b"<0@x>"), id_hash(b"<last@x>"))


def test_texts_are_bounded() -> None:
    octets = b"Subject: " + b"s" * 50_000 + b"\r\nTo: " + b"a@b.test, " * 10_000 + b"\r\n\r\n" + b"word " * 300_000
    by = found_by(parse(octets), NOW)
    assert len(by.text) == TEXT_CHARACTERS
    assert len(by.subject) + len(by.recipients) < 10_000


@given(st.binary(max_size=300))
def test_anything_is_found_by_something(octets: bytes) -> None:
    by = found_by(parse(octets), NOW)
    "".join((by.sender, by.recipients, by.subject, by.text, *by.files)).encode()
    assert 0 <= by.date <= NOW + 86_400


def test_addresses_of_broken_lists_are_found_all_the_same() -> None:
    assert addresses_in("Bob <bob@x.test>, Ann") == ["bob@x.test"]
    assert addresses_in('"Bob (x" <BOB@x.test>; <<ann@x.test') == ["bob@x.test", "ann@x.test"]
