"""Content-Transfer-Encodings undone (RFC 2045 §6), in pieces, whatever is wrong with them: no input fails."""

from __future__ import annotations

import binascii
import re
from typing import Final, Protocol

_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOT_BASE64: Final = bytes(octet for octet in range(256) if octet not in _ALPHABET + b"=")
_LONGEST_TAIL = 64 * 1024
# A soft line break, or an escape, that is not whole yet.
_UNFINISHED = re.compile(rb"(?:=[0-9A-Fa-f]?|=?[ \t]*\r?)\Z")


class Decoder(Protocol):
    """Takes encoded octets in pieces that may be cut anywhere."""

    def feed(self, octets: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class _Same:
    def feed(self, octets: bytes) -> bytes:
        return octets

    def finish(self) -> bytes:
        return b""


class _Base64:
    """What is not of its alphabet is passed over; `=` ends a group, and another may follow (pasted together)."""

    def __init__(self) -> None:
        self._group = b""

    def feed(self, octets: bytes) -> bytes:
        first, *others = octets.translate(None, _NOT_BASE64).split(b"=")
        done = [self._whole(first)]
        for other in others:
            done.append(self.finish())
            if other:
                done.append(self._whole(other))
        return b"".join(done)

    def finish(self) -> bytes:
        group, self._group = self._group, b""
        # One character of a group is not even an octet.
        return binascii.a2b_base64(group + b"=" * (-len(group) % 4)) if len(group) > 1 else b""

    def _whole(self, octets: bytes) -> bytes:
        octets = self._group + octets
        end = len(octets) - len(octets) % 4
        self._group = octets[end:]
        return binascii.a2b_base64(octets[:end])


class _QuotedPrintable:
    """Lines are decoded when they are whole, or long."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, octets: bytes) -> bytes:
        octets = self._tail + octets
        end = octets.rfind(b"\n") + 1
        if not end and len(octets) > _LONGEST_TAIL:
            end = len(octets) - 80
            cut = _UNFINISHED.search(octets, max(0, end - 80), end)
            end = cut.start() if cut else end
        self._tail = octets[end:]
        return binascii.a2b_qp(octets[:end])

    def finish(self) -> bytes:
        tail, self._tail = self._tail, b""
        return binascii.a2b_qp(tail)


def decoder(encoding: str) -> Decoder:
    """For a Content-Transfer-Encoding; one that is not known changes nothing."""
    match encoding:
        case "base64":
            return _Base64()
        case "quoted-printable":
            return _QuotedPrintable()
        case _:
            return _Same()


def base64_decoded(octets: bytes) -> bytes:
    """All at once."""
    return undone(octets, "base64")


def undone(octets: bytes, encoding: str) -> bytes:
    """All at once, for any encoding."""
    each = decoder(encoding)
    return each.feed(octets) + each.finish()
