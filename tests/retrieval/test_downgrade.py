"""Headers of internationalised messages for mail programs that know only ASCII (RFC 6858)."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.headerregistry import Address
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.retrieval.downgrade import NOTE, NOWHERE, downgraded

FIELDS = st.lists(
    st.tuples(
        st.sampled_from(
            ["From", "To", "Resent-Cc", "Subject", "Received", "Content-Type", "X-Any", "Return-Path", "Grün"]
        ),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=60)
        | st.sampled_from(
            ["Jürgen <j@grün.test>", "<jürgen@x.test>", "a@b.test, ü@x.test (c)", 'text/x; name="ü"', '"ü']
        ),
    ),
    max_size=6,
)


def section(*fields: str) -> bytes:
    return "".join(f"{field}\r\n" for field in fields).encode()


def parsed(header: bytes) -> EmailMessage:
    message = message_from_bytes(header + b"\r\n", policy=policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


def addresses(header: bytes, name: str) -> list[tuple[str, str]]:
    field = parsed(header)[name]
    assert not field.defects
    found: tuple[Address, ...] = field.addresses
    return [(address.display_name, address.addr_spec) for address in found]


def test_a_header_in_ascii_stays_as_it_is() -> None:
    header = section("Subject: a", "To: b@x.test", "bad", " folded")
    assert downgraded(header) == header
    assert downgraded(b"") == b""


@pytest.mark.conformance("C206")
def test_fields_in_ascii_stay_octet_for_octet_and_a_note_says_what_was_done() -> None:
    rest = section("DKIM-Signature: v=1;", "\tb=abc", "Subject:  odd   spacing ")
    assert downgraded(rest + section("X-Any: ü")).startswith(rest)
    assert downgraded(section("X-Any: ü") + rest).endswith(rest + NOTE)


@pytest.mark.conformance("C206")
@pytest.mark.parametrize(
    "text", ["Grüße aus Köln", "你好" * 200, "🐎", "a" * 900 + "ü", "tab\tü", "ü\u2028Bcc: x", "ü\x0b\x85\x1c"]
)
def test_texts_become_encoded_words(text: str) -> None:
    header = downgraded(section(f"Subject: {text}"))
    assert header.isascii()
    wanted = "".join(c if c.isprintable() else " " for c in text)
    assert parsed(header)["Subject"].split() == wanted.split()
    assert list(parsed(header)) == ["Subject", "X-Posthouse-Downgraded"]
    assert max(map(len, header.split(b"\r\n"))) <= 998


@pytest.mark.conformance("C206")
@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("Jürgen Groß <j@x.test>", [("Jürgen Groß", "j@x.test")]),
        ("jürgen@x.test", [("jürgen@x.test", NOWHERE)]),
        ("Jürgen <jürgen@grün.test>", [("Jürgen jürgen@grün.test", NOWHERE)]),
        ("j@grün.test", [("", "j@xn--grn-ioa.test")]),
        ("Ada <ada@grün.test>", [("Ada", "ada@xn--grn-ioa.test")]),
        ('"Groß, Jürgen" <j@x.test>, b@x.test', [("Groß, Jürgen", "j@x.test"), ("", "b@x.test")]),
        ('"a \\"b\\" ü" <j@x.test>', [('a "b" ü', "j@x.test")]),
        ('"Ada (x)" <a@x.test>, ü@x.test', [("Ada (x)", "a@x.test"), ("ü@x.test", NOWHERE)]),
        ("=?utf-8?q?J=C3=BCrgen?= <j@x.test>, ü@x.test", [("Jürgen", "j@x.test"), ("ü@x.test", NOWHERE)]),
        ("ü", [("ü", NOWHERE)]),
        ("ü@", [("ü@", NOWHERE)]),
        ("a@-ü-.test", [("a@-ü-.test", NOWHERE)]),
    ],
)
@pytest.mark.parametrize("name", ["From", "to", "Resent-Cc"])
def test_addresses_can_be_answered_or_read(name: str, value: str, wanted: list[tuple[str, str]]) -> None:
    assert addresses(downgraded(section(f"{name}: {value}")), name) == wanted


def test_a_folded_field_is_one_field() -> None:
    header = downgraded(section("To: Jürgen", " <j@x.test>,", "\tb@x.test"))
    assert addresses(header, "To") == [("Jürgen", "j@x.test"), ("", "b@x.test")]


@pytest.mark.conformance("C206")
def test_addresses_for_programs_are_left_out_and_trace_fields_stay_readable() -> None:
    header = downgraded(
        section("Return-Path: <ü@x.test>", "Delivered-To: ü@x.test", "Received: by x for <ü@x.test>; now")
    )
    assert header == b"Received: by x for <?@x.test>; now\r\n" + NOTE


@pytest.mark.conformance("C206")
def test_parameters_are_extended() -> None:
    value = 'attachment; filename="Grüße \\"5\\".txt"; size=3'
    header = downgraded(section(f"Content-Disposition: {value}"))
    assert parsed(header).get_filename() == 'Grüße "5".txt'
    assert header.startswith(
        b"Content-Disposition: attachment; filename*=utf-8''Gr%C3%BC%C3%9Fe%20%225%22.txt; size=3\r\n"
    )


def test_what_is_no_field_or_no_utf8() -> None:
    assert downgraded(section("grün")) == NOTE
    assert downgraded(section("Grün: x")) == NOTE
    assert parsed(downgraded(b"Subject: \xff\xfe\r\n"))["Subject"] == "\ufffd\ufffd"


@given(FIELDS)
def test_any_header_becomes_ascii_fields(fields: list[tuple[str, str]]) -> None:
    header = section(*(f"{name}: {value}" for name, value in fields))
    result = downgraded(header)
    assert result.isascii()
    assert result == downgraded(header)
    assert downgraded(result) == result
    lines = result.split(b"\r\n")
    assert lines.pop() == b""
    for line in lines:
        assert line[:1] in (b" ", b"\t") or b":" in line
        assert b"\r" not in line
        assert b"\n" not in line
    if not header.isascii():
        known = {name.lower() for name, _ in fields} | {"x-posthouse-downgraded"}
        assert {line.partition(b":")[0].decode().lower() for line in lines if line[:1] not in (b" ", b"\t")} <= known
