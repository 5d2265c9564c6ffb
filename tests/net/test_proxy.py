"""PROXY headers, v1 and v2: strict, never reading past the end, raising only their own error."""

from __future__ import annotations

import contextlib
import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.net.proxy import (
    MAX_V2_OCTETS,
    UNNAMED,
    ProxyHeader,
    ProxyHeaderError,
    crc32c,
    read_proxy_header,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ADDRESSES = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)), st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6))
)
PORTS = st.integers(0, 65535)


def v2(family: int, block: bytes, command: int = 0x21) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, family, len(block)) + block


def v1_line(peer: object, local: object, ports: tuple[int, int]) -> bytes:
    version = getattr(peer, "version", 4)
    return f"PROXY TCP{version} {peer} {local} {ports[0]} {ports[1]}\r\n".encode()


def named(address: object) -> str:
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


@given(ADDRESSES, st.tuples(PORTS, PORTS), st.binary(max_size=40), st.booleans())
def test_a_header_says_who_it_is_however_it_comes(
    ends: tuple[ipaddress.IPv4Address, ipaddress.IPv4Address], ports: tuple[int, int], more: bytes, old: bool
) -> None:
    """Each beginning wants more, and what comes behind is not touched: it may be a TLS handshake."""
    peer, local = ends
    block = peer.packed + local.packed + struct.pack(">HH", *ports)
    header = v1_line(peer, local, ports) if old else v2(0x11 if peer.version == 4 else 0x21, block)
    for cut in range(len(header)):
        assert read_proxy_header(header[:cut]) is None
    assert read_proxy_header(header + more) == (ProxyHeader(named(peer), named(local)), len(header))


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]))
def test_random_octets_raise_only_ours(octets: bytes, begin: bytes) -> None:
    with contextlib.suppress(ProxyHeaderError):
        found = read_proxy_header(begin + octets)
        assert found is None or found[1] <= len(begin + octets)


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
        v2(0x00, b""),
        v2(0x00, b"whatever"),
        v2(0x00, b"", command=0x20),
        v2(0x11, b"x", command=0x20),
        v2(0x99, b"x" * 50, command=0x20),
        v2(0x31, b"/run/x".ljust(216, b"\0")),
    ],
)
def test_who_is_not_named(header: bytes) -> None:
    assert read_proxy_header(header + b"EHLO x\r\n") == (UNNAMED, len(header))


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO x\r\n",
        b"PROXY\r\n",
        b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 -2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 \xd9\xa1\r\n",
        b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        b"PROXY UNKNOWN" + b"x" * 120,
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        v2(0x11, b"x" * 11),
        v2(0x21, b"x" * 35),
        v2(0x31, b"x" * 215),
        v2(0x12, b"x" * 12),
        v2(0x41, b"x" * 12),
        v2(0x11, b"x" * 12, command=0x22),
        v2(0x11, b"x" * 12, command=0x11),
        v2(0x11, b"x" * 12 + b"\x04\x00"),
        v2(0x11, b"x" * 12 + b"\x04\x00\x02x"),
        v2(0x11, b"x" * 12 + b"\x03\x00\x04\0\0\0\0"),
        v2(0x11, b"x" * 12 + b"\x03\x00\x01\0"),
        SIGNATURE + struct.pack(">BBH", 0x21, 0x11, MAX_V2_OCTETS),
    ],
)
@pytest.mark.conformance("C296")
def test_what_is_not_right(octets: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        read_proxy_header(octets)


def test_a_checksum_is_checked_once() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    block = bytes((192, 0, 2, 1, 192, 0, 2, 2)) + b"\0\1\0\2"
    tlv = b"\x04\x00\x01x" + b"\x03\x00\x04"
    header = v2(0x11, block + tlv + bytes(4))
    right = header[:-4] + crc32c(header).to_bytes(4)
    assert read_proxy_header(right) == (ProxyHeader("192.0.2.1", "192.0.2.2"), len(right))
    for wrong in (right[:-1] + bytes((right[-1] ^ 1,)), right[:20] + b"y" + right[21:]):
        with pytest.raises(ProxyHeaderError, match="checksum"):
            read_proxy_header(wrong)
    with pytest.raises(ProxyHeaderError, match="checksum"):
        read_proxy_header(v2(0x11, block + tlv + bytes(4) + tlv + bytes(4)))
