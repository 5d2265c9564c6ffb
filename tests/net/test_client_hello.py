"""The ClientHello: what OpenSSL's client sends is understood however it is cut; what is none raises only our errors."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.net.client_hello import (
    MAX_HELLO_OCTETS,
    ClientHello,
    HelloReader,
    MalformedHello,
    NotTls,
)


def read_client_hello(octets: bytes) -> ClientHello | None:
    """What a reader finds that gets all of it at once."""
    return HelloReader().feed(octets)


def hello(name: str | None = "mx.here.test", protocols: tuple[str, ...] = (), *, old: bool = False) -> bytes:
    """What OpenSSL sends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if old:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if protocols:
        context.set_alpn_protocols(protocols)
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def in_records(message: bytes, size: int) -> bytes:
    """A handshake message in records of at most `size` octets."""
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2) + piece for piece in pieces)


def vector(octets: bytes, length_octets: int) -> bytes:
    return len(octets).to_bytes(length_octets) + octets


def message(*extensions: tuple[int, bytes]) -> bytes:
    """A ClientHello with these extensions."""
    fields = b"".join(kind.to_bytes(2) + vector(octets, 2) for kind, octets in extensions)
    body = b"\x03\x03" + bytes(32) + vector(b"", 1) + vector(b"\x13\x01", 2) + vector(b"\0", 1) + vector(fields, 2)
    return b"\x01" + vector(body, 3)


def name_extension(name: bytes, kind: bytes = b"\0") -> tuple[int, bytes]:
    return 0, vector(kind + vector(name, 2), 2)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("name", "protocols", "expected"),
    [
        ("MX.here.test", (), ClientHello("mx.here.test", None)),
        (None, (), ClientHello(None, None)),
        ("a.test", ("h2", "http/1.1"), ClientHello("a.test", (b"h2", b"http/1.1"))),
    ],
)
def test_what_openssl_sends(name: str | None, protocols: tuple[str, ...], expected: ClientHello, old: bool) -> None:
    octets = hello(name, protocols, old=old)
    assert read_client_hello(octets) == expected
    assert read_client_hello(octets + b"more") == expected


@given(st.integers(0, 2000))
def test_a_beginning_is_no_hello_yet(cut: int) -> None:
    octets = hello()
    if cut < len(octets):
        assert read_client_hello(octets[:cut]) is None


@given(st.integers(1, 300))
def test_records_may_be_cut_anywhere(size: int) -> None:
    """Who stands between may cut them, and must not be able to hide what is offered."""
    octets = in_records(hello("a.test", ("h2",))[5:], size)
    assert read_client_hello(octets) == ClientHello("a.test", (b"h2",))
    assert read_client_hello(octets[:-1]) is None


@pytest.mark.conformance("S26", "S40")
def test_records_of_one_octet_cost_no_more_than_they_are() -> None:
    """Looked at anew with each octet, 16 KiB of them kept a loop busy for most of a minute."""
    looks = 0

    class Counting(HelloReader):
        def _take_record(self) -> bool:
            nonlocal looks
            looks += 1
            return super()._take_record()

    octets, reader = in_records(hello("a.test", ("h2",))[5:], 1), Counting()
    found = [reader.feed(octets[at : at + 1]) for at in range(len(octets))]
    assert found[-1] == ClientHello("a.test", (b"h2",))
    assert not any(found[:-1])
    assert looks < 2 * len(octets)


@given(st.binary(max_size=300))
def test_random_octets_raise_only_ours(octets: bytes) -> None:
    for tried in (octets, b"\x16\x03\x01" + vector(octets, 2), in_records(b"\x01" + vector(octets, 3), 100)):
        with contextlib.suppress(NotTls, MalformedHello):
            read_client_hello(tried)


@given(st.data())
def test_a_damaged_hello_raises_only_ours(data: st.DataObject) -> None:
    octets = bytearray(hello("a.test", ("smtp",)))
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(NotTls, MalformedHello):
        read_client_hello(bytes(octets))


@pytest.mark.parametrize("octets", [b"EHLO x\r\n", b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b"\x80\x2e\x01\x03\x01"])
def test_what_is_no_tls_at_all(octets: bytes) -> None:
    with pytest.raises(NotTls):
        read_client_hello(octets)


@pytest.mark.parametrize(
    "octets",
    [
        b"\x16\x02\x00\x00\x01x",
        b"\x16\x03\x01\x00\x00",
        in_records(b"\x02" + vector(b"x", 3), 100),
        in_records(message()[:10], 100) + b"\x17\x03\x03\x00\x01x",
        in_records(b"\x01" + vector(b"short", 3), 100),
        in_records(b"\x01" + vector(message()[4:] + b"more", 3), 100),
        in_records(message((16, vector(b"\x02h2", 2)), (16, vector(b"\x04smtp", 2))), 100),
        in_records(message((16, vector(b"\x05h2", 2))), 100),
        in_records(b"\x01\xff\xff\xff", 100),
    ],
)
def test_what_began_as_a_hello_and_is_none(octets: bytes) -> None:
    with pytest.raises(MalformedHello):
        read_client_hello(octets)


def test_what_never_ends_is_given_up() -> None:
    drip = in_records(b"\x01" + MAX_HELLO_OCTETS.to_bytes(3) + bytes(MAX_HELLO_OCTETS - 1), 1)
    with pytest.raises(MalformedHello, match="too long"):
        read_client_hello(drip)


@pytest.mark.conformance("C297")
@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\0b", b"", b"x" * 300, b"..", b"*.here.test", "bücher".encode()])
def test_a_server_name_may_be_anything(name: bytes) -> None:
    found = read_client_hello(in_records(message(name_extension(name)), 1000))
    assert found is not None
    assert isinstance(found.server_name, str)


def test_other_kinds_of_names_are_passed_over() -> None:
    assert read_client_hello(in_records(message(name_extension(b"x", b"\1")), 1000)) == ClientHello(None, None)
