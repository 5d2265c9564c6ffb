"""The one parser of addresses, and the one spelling of each mailbox (RFC 5321 §4.1.2, §4.5.3.1; RFC 6531 §3.3)."""

from __future__ import annotations

import ipaddress
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from posthouse.mail.address import (
    Address,
    AddressError,
    AddressNeedsUtf8,
    AddressTooLong,
    parse_address,
    parse_domain,
    path_text,
    quoted,
    unquoted,
)

DOMAIN_250 = ".".join(["d" * 49] * 5)


@pytest.mark.conformance("C23")
@pytest.mark.parametrize(
    ("text", "local_part", "domain"),
    [
        ("ada@north.test", "ada", "north.test"),
        ("Ada@North.Test", "Ada", "north.test"),
        ("a.b.c@x.test", "a.b.c", "x.test"),
        ("!#$%&'*+-/=?^_`{|}~@x.test", "!#$%&'*+-/=?^_`{|}~", "x.test"),
        ('"a b"@d', '"a b"', "d"),
        (r'"a\"b"@d', r'"a\"b"', "d"),
        ('"a@b"@d', '"a@b"', "d"),
        ('""@d', '""', "d"),
        (r'"a\\b"@d', r'"a\\b"', "d"),
        (r'"a\ b"@d', r'"a\ b"', "d"),
        ('"a.b."@d', '"a.b."', "d"),
        ("1@2.test", "1", "2.test"),
        ("a@x", "a", "x"),
        ("a@1.2.3.4", "a", "1.2.3.4"),
        ("a@a-b.test", "a", "a-b.test"),
        ("a@xn--sd-xka.test", "a", "xn--sd-xka.test"),
        ("a@s\u00fcd.test", "a", "xn--sd-xka.test"),
        ("a@S\u00dcD.test", "a", "xn--sd-xka.test"),
        ("a@su\u0308d.test", "a", "xn--sd-xka.test"),
        ("\u00e5da@north.test", "\u00e5da", "north.test"),
        ('"\u00e5 da"@north.test', '"\u00e5 da"', "north.test"),
        ("a@[192.0.2.1]", "a", "[192.0.2.1]"),
        ("a@[IPv6:2001:DB8:0::1]", "a", "[IPv6:2001:db8::1]"),
        ("a@[ipv6:::1]", "a", "[IPv6:::1]"),
        ("a@[x-tag:anything!]", "a", "[x-tag:anything!]"),
    ],
)
def test_what_is_an_address(text: str, local_part: str, domain: str) -> None:
    assert parse_address(text) == Address(local_part, domain)


@pytest.mark.conformance("C23", "C36", "S15")
@pytest.mark.parametrize(
    "text",
    [
        *("", "@", "a", "a@", "@d", "a@b@c", "a b@d", "a..b@d", ".a@d", "a.@d", "a@d ", " a@d", "<a@d>", "a,b@d"),
        *('"a@d', 'a"b@d', '"a"b@d', '"a""b"@d', '"a\r\nb"@d', '"a\\\r"@d', '"a\x00"@d', "a\x7f@d", '"\\'),
        *("a@b_c.test", "a@.b", "a@b..c", "a@-b.test", "a@b-.test", "a@b.", "a@b\n", "a@b c", "a@" + "l" * 64),
        *("a@[192.0.2.256]", "a@[192.0.2.1", "a@[]", "a@[1.2.3]", "a@[IPv6:zz]", "a@[::1]", "a@[x:a b]", "a@[x:\\]"),
        *("a@[IPv6:fe80::1%eth0]", "a@[IPv6:fe80::1%\r\nX-Canary:]", "a@[192.0.2.1]x", "a@[\u0661.0.0.1]"),
        *(
            "\u202eada@north.test",
            "a\u0085b@d",
            "a\u200bb@d",
            "a\ud800@d",
            "a@\u2028.test",
            "a@\u00fc..test",
            "a@\ud800",
        ),
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text)


@pytest.mark.conformance("C24")
@pytest.mark.parametrize("text", ['"user"@d', r'"u\ser"@d', "user@d", "USER@D", r'"\u\s\e\r"@d'])
def test_all_spellings_are_one_mailbox(text: str) -> None:
    assert parse_address(text).key == "user@d"


@pytest.mark.conformance("C200")
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\u00e9@d", "e\u0301@d"),
        ("\u00c9@d", "E\u0301@d"),
        ("W\u030a@d", "w\u030a@d"),
        ("W\u030a@d", "\u1e98@d"),
        ("\u212a@d", "k@d"),
        ("a@s\u00fcd.test", "a@xn--sd-xka.test"),
    ],
)
def test_canonically_equal_spellings_are_one_mailbox(one: str, other: str) -> None:
    assert parse_address(one).key == parse_address(other).key


def test_different_mailboxes_stay_different() -> None:
    keys = {parse_address(text).key for text in ('"a b"@d', "ab@d", '"a@d"@d', r'"a\"b"@d', "\u00c9@d", "\u00e9@d")}
    assert len(keys) == 6


@pytest.mark.conformance("C37")
def test_limits_of_length() -> None:
    assert parse_address("l" * 64 + "@d")
    assert parse_address("\u00e9" * 32 + "@d")
    for too_long in ("l" * 65 + "@d", "\u00e9" * 33 + "@d", "l" * 5000 + "@d", "a@" + "d" * 5000):
        with pytest.raises(AddressTooLong):
            parse_address(too_long)
    assert len(f"<lll@{DOMAIN_250}>") == 255
    assert parse_address(f"lll@{DOMAIN_250}")
    assert parse_address(f"llll@{DOMAIN_250}")
    with pytest.raises(AddressTooLong):
        parse_address(f"lllll@{DOMAIN_250}")
    assert len(parse_domain(f"{DOMAIN_250}.ddddd")) == 255
    with pytest.raises(AddressTooLong):
        parse_domain(f"{DOMAIN_250}.dddddd")
    assert parse_domain("l" * 63)


def test_utf8_only_where_it_was_asked_for() -> None:
    with pytest.raises(AddressNeedsUtf8):
        parse_address("\u00e5da@north.test", utf8=False)
    assert not parse_address("\u00e5da@north.test").is_ascii
    assert parse_address("ada@s\u00fcd.test").is_ascii


def test_paths() -> None:
    assert path_text(None) == "<>"
    assert path_text(Address("Postmaster", "")) == "<Postmaster>"


ATEXT = st.characters(min_codepoint=33, exclude_characters='"(),:;<>@[\\].', exclude_categories=("C", "Z"))
DOT_STRINGS = st.lists(st.text(ATEXT, min_size=1, max_size=8), min_size=1, max_size=3).map(".".join)
QUOTED_STRINGS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12).map(quoted)
LABELS = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?", fullmatch=True)
DOMAINS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
LITERALS = st.ip_addresses(v=4).map("[{}]".format) | st.ip_addresses(v=6).map("[IPv6:{}]".format)


@given(DOT_STRINGS | QUOTED_STRINGS, DOMAINS | LITERALS)
def test_parse_of_str_is_the_same_address(local_part: str, domain: str) -> None:
    assume(len(local_part.encode()) <= 64)
    address = parse_address(f"{local_part}@{domain}")
    assert address.local_part == local_part
    assert parse_address(str(address)) == address


@given(DOT_STRINGS | QUOTED_STRINGS, DOMAINS)
def test_the_key_is_its_own_key(local_part: str, domain: str) -> None:
    key = Address(local_part, domain.lower()).key
    assume(len(key.partition("@")[0].encode()) <= 64)
    assert parse_address(key).key == key
    assert unicodedata.is_normalized("NFC", key)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_quoting_is_undone(plain: str) -> None:
    assert unquoted(quoted(plain)) == plain


@pytest.mark.conformance("S15")
@given(st.text() | st.text('a.@"\\[]:%\r\n \u00e9-'))
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    try:
        address = parse_address(text)
    except AddressError:
        return
    assert str(address).isprintable() or not str(address).isascii()
    assert "\r" not in str(address)
    assert "\n" not in str(address)
    assert parse_address(str(address)) == address


@pytest.mark.conformance("C307", "S15", "S40")
def test_hostile_texts_need_no_time() -> None:
    # With a pattern that backtracks exponentially, none of these would ever end.
    for hostile in (
        "a" * 1000,
        "a." * 500,
        '"' + "\\a" * 500,
        '"' + "\\" * 1000,
        "a@[" + "a-" * 480,
        "a@" + "a-" * 480,
    ):
        for end in ("", "!", "@", '"', "]"):
            with pytest.raises(AddressError):
                parse_address(hostile + end)
    assert ipaddress.ip_address("192.0.2.1")
