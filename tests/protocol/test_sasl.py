"""SASL messages: strict base64, PLAIN, LOGIN."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.protocol.sasl import (
    Credentials,
    LoginExchange,
    PlainExchange,
    SaslError,
    decode_base64,
    decode_plain,
    encode_base64,
    encode_plain,
)

FIELD = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(st.binary())
def test_base64_round_trip(octets: bytes) -> None:
    assert decode_base64(encode_base64(octets)) == octets


@pytest.mark.conformance("C308")
@pytest.mark.parametrize(
    "text", [b"a", b"YQ", b"YQ=", b"YQ===", b"YQ==YQ==", b"Y Q==", b"YQ==\n", b"-_==", b"=", b"\xff"]
)
def test_bad_base64(text: bytes) -> None:
    with pytest.raises(SaslError):
        decode_base64(text)


@given(FIELD, FIELD, FIELD | st.just(""))
def test_plain_round_trip(login: str, password: str, authorization_id: str) -> None:
    decoded = decode_plain(encode_plain(login, password, authorization_id))
    assert decoded == Credentials(authorization_id, login, password)


@pytest.mark.conformance("C127")
@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0",
        b"a\0b",
        b"\0\0",
        b"\0a\0",
        b"\0\0b",
        b"\0a\0b\0",
        b"\0a\0b\0c",
        b"\0" + b"a" * 256 + b"\0b",
        b"\0a\0" + b"b" * 1025,
        b"a" * 256 + b"\0a\0b",
        b"\0\xff\0b",
        b"\0a\0\xff",
    ],
)
def test_bad_plain(message: bytes) -> None:
    with pytest.raises(SaslError):
        decode_plain(message)


@pytest.mark.conformance("C127")
def test_the_longest_fields() -> None:
    message = b"\0".join([b"z" * 255, b"a" * 255, b"b" * 1024])
    assert decode_plain(message) == Credentials("z" * 255, "a" * 255, "b" * 1024)


def test_plain_with_and_without_initial_response() -> None:
    assert PlainExchange().step(None) == b""
    assert PlainExchange().step(b"\0alice\0secret") == Credentials("", "alice", "secret")


@pytest.mark.conformance("C129")
def test_login() -> None:
    exchange = LoginExchange()
    assert exchange.step(None) == b"Username:"
    assert exchange.step(b"alice") == b"Password:"
    assert exchange.step(b"secret") == Credentials("", "alice", "secret")
    with pytest.raises(SaslError):
        exchange.step(b"a\0b")


@pytest.mark.conformance("C299")
def test_passwords_do_not_show() -> None:
    assert "secret" not in repr(Credentials("", "alice", "secret"))
