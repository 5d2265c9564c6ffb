"""The PROXY protocol, versions 1 and 2, without I/O: whom a proxy in front of us speaks for.

Strict: a header is whole and right, or the connection is worth nothing. What a header does not name (LOCAL, UNKNOWN,
UNSPEC, sockets of one machine) leaves the connection's own addresses as they are. The protocol's specification is
HAProxy's `proxy-protocol.txt`, whose sections are cited.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

MAX_V1_OCTETS = 107
"""Section 2.1: the longest line, CRLF included."""
MAX_V2_OCTETS = 4096
"""Addresses take 216 octets at most; what proxies add (TLVs) is far below this."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V1_BEGIN = b"PROXY "
_PORT = re.compile(rb"(?:0|[1-9][0-9]{0,4})\Z")
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6, _UNIX = 0x11, 0x21, 0x31
_ADDRESS_OCTETS = {_TCP4: 12, _TCP6: 36, _UNIX: 216}
_CRC32C = 0x03


class ProxyHeaderError(Exception):
    """There is no right PROXY header at the beginning of the connection."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """Both ends as the proxy saw them, IP addresses; None: not named, so those of the connection are meant."""

    peer: str | None
    local: str | None


UNNAMED = ProxyHeader(None, None)


def read_proxy_header(octets: bytes) -> tuple[ProxyHeader, int] | None:
    """The header that `octets` begin with and its length; None while all of them belong to it and more must come.

    Raises ProxyHeaderError as soon as it cannot become one.
    """
    if octets.startswith(_SIGNATURE):
        return _read_v2(octets)
    if octets.startswith(_V1_BEGIN):
        return _read_v1(octets)
    if _SIGNATURE.startswith(octets) or _V1_BEGIN.startswith(octets):
        return None
    raise ProxyHeaderError("it does not begin with a PROXY header")


def _read_v1(octets: bytes) -> tuple[ProxyHeader, int] | None:
    """Section 2.1: `PROXY TCP4 192.0.2.1 198.51.100.2 56324 25` and CRLF, one space between the words."""
    end = octets.find(b"\r\n", 0, MAX_V1_OCTETS)
    if end < 0:
        if len(octets) >= MAX_V1_OCTETS or b"\n" in octets:
            raise ProxyHeaderError("the PROXY line is too long or ends wrongly")
        return None
    words = octets[len(_V1_BEGIN) : end].split(b" ")
    if words[0] == b"UNKNOWN":
        return UNNAMED, end + 2
    if words[0] not in (b"TCP4", b"TCP6") or len(words) != 5:
        raise ProxyHeaderError("the PROXY line is malformed")
    if not all(_PORT.match(port) and int(port) <= 65535 for port in words[3:]):
        raise ProxyHeaderError("a port of the PROXY line is malformed")
    peer, local = (_address_v1(word, 4 if words[0] == b"TCP4" else 6) for word in words[1:3])
    return ProxyHeader(peer, local), end + 2


def _address_v1(word: bytes, version: int) -> str:
    try:
        text = word.decode("ascii")
        parsed = ipaddress.IPv4Address(text) if version == 4 else ipaddress.IPv6Address(text)
    except ValueError as exc:
        raise ProxyHeaderError("an address of the PROXY line is malformed") from exc
    if "%" in text:
        raise ProxyHeaderError("an address of the PROXY line has a scope")
    return _text(parsed)


def _read_v2(octets: bytes) -> tuple[ProxyHeader, int] | None:
    """Section 2.2: the signature, command, family, length, addresses and TLVs."""
    if len(octets) < 16:
        return None
    command, family = octets[12], octets[13]
    length = 16 + int.from_bytes(octets[14:16])
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError("the PROXY header has an unknown version or command")
    if length > MAX_V2_OCTETS:
        raise ProxyHeaderError("the PROXY header is too long")
    if len(octets) < length:
        return None
    if command == _LOCAL or family == 0:
        return UNNAMED, length
    if family not in _ADDRESS_OCTETS:
        raise ProxyHeaderError("the PROXY header is for another kind of connection")
    block = octets[16:length]
    addresses, rest = block[: _ADDRESS_OCTETS[family]], block[_ADDRESS_OCTETS[family] :]
    if len(addresses) < _ADDRESS_OCTETS[family]:
        raise ProxyHeaderError("the PROXY header is shorter than its addresses")
    _check_tlvs(octets[:length], rest)
    if family == _UNIX:
        return UNNAMED, length
    size = 4 if family == _TCP4 else 16
    peer, local = (_text(ipaddress.ip_address(addresses[at : at + size])) for at in (0, size))
    return ProxyHeader(peer, local), length


def _check_tlvs(header: bytes, tlvs: bytes) -> None:
    """Sections 2.2.3 and following: each is whole, and the checksum, where there is one, is right."""
    checksums: list[int] = []
    at = 0
    while at < len(tlvs):
        end = at + 3 + int.from_bytes(tlvs[at + 1 : at + 3])
        if len(tlvs) < at + 3 or len(tlvs) < end:
            raise ProxyHeaderError("the PROXY header ends inside a TLV")
        if tlvs[at] == _CRC32C:
            checksums.append(len(header) - len(tlvs) + at + 3)
            if end - at != 7 or len(checksums) > 1:
                raise ProxyHeaderError("the checksum of the PROXY header is malformed")
        at = end
    for begin in checksums:
        without = header[:begin] + bytes(4) + header[begin + 4 :]
        if crc32c(without) != int.from_bytes(header[begin : begin + 4]):
            raise ProxyHeaderError("the checksum of the PROXY header is wrong")


def crc32c(octets: bytes) -> int:
    """The checksum of RFC 3720 appendix B.4, which the standard library does not have."""
    value = 0xFFFFFFFF
    for octet in octets:
        value ^= octet
        for _bit in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def _text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """As the rest of the house writes it: an IPv4 address is one, also inside IPv6."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
