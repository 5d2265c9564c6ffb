"""What `prove` sends, and how it is known again: a serial number in the first line, and the SHA-256 of all octets."""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass

FILE_OCTETS = 128 * 1024
"""From this size on a house keeps content in a file."""
LARGEST_OCTETS = 900_000
_SERIAL = re.compile(rb"X-Prove: (\d{1,12})\r\n")
_END = "end of letter {serial}\r\n"
END = re.compile(rb"\r\nend of letter \d{1,12}\r\n(?:\.\r\n)?")
"""The last line of every content: the proxy knows by it where the final dot is."""
_PREFIX = re.compile(
    rb"Return-Path: <[^\r\n]*>\r\nDelivered-To: [^\r\n]*\r\n((?:Received: (?:[^\r\n]*\r\n[ \t])*[^\r\n]*\r\n){1,2})\Z"
)
_QUEUE_ID = re.compile(rb"\bid\s+([0-7][0-9A-HJKMNP-TV-Z]{25})\b")


class Unreadable(Exception):
    """An entry is nothing that anybody sent; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Read:
    """What an entry holds: the letter, and the queue ids that it had, the newest (of the house it is in) first.

    `digest` is that of the content; None for a report about the letter.
    """

    serial: int
    queue_ids: tuple[str, ...]
    digest: bytes | None


def digest_of(octets: bytes) -> bytes:
    """What contents are compared by."""
    return hashlib.sha256(octets).digest()


def write(serial: int, chance: random.Random) -> bytes:
    """A content of 300 octets to LARGEST_OCTETS, most of them small, never the same twice; it ends in CRLF."""
    lines = [
        f"X-Prove: {serial}",
        "From: Sender <sender@peer.test>",
        "To: a list of readers:;",
        f"Subject: Letter {serial}",
        "Date: Mon, 05 Jan 2026 10:00:00 +0000",
        f"Message-ID: <{serial}@prove.test>",
        "",
        # What only counts as the end, or as a dot, behind CRLF.
        *chance.sample((".", "..", ".leading dot", "", "x" * 998, "From here"), 3),
        "",
    ]
    head = "\r\n".join(lines).encode()
    line = chance.randbytes(36).hex().encode() + b"\r\n"
    body = line * (_size(chance) // len(line) + 1)
    return head + body + _END.format(serial=serial).encode()


def write_too_large(serial: int, limit_octets: int) -> bytes:
    """A content over the house's limit."""
    head = f"X-Prove: {serial}\r\nSubject: Too large\r\n\r\n".encode()
    return head + (b"y" * 76 + b"\r\n") * (limit_octets // 78 + 20) + _END.format(serial=serial).encode()


def write_malformed(serial: int) -> bytes:
    """A content with a line that ends in LF alone, which is refused (RFC 5321 §2.3.8)."""
    return f"X-Prove: {serial}\r\nSubject: Malformed\r\n\r\nThis line\nis none.\r\n".encode() + (
        _END.format(serial=serial).encode()
    )


def read(octets: bytes) -> Read:
    """What is in an entry of a maildrop. Raises Unreadable."""
    found = _SERIAL.search(octets)
    if found is None:
        raise Unreadable(f"no serial number in {octets[:200]!r}")
    is_report = b"multipart/report" in octets[: found.start()]
    head_end = octets.find(b"\r\n\r\n") + 2 if is_report else found.start()
    queue_ids = tuple(queue_id.decode() for queue_id in _QUEUE_ID.findall(octets[:head_end]))
    if not queue_ids:
        raise Unreadable(f"no queue id in {octets[:200]!r}")
    if is_report:
        return Read(int(found[1]), queue_ids, None)
    if _PREFIX.fullmatch(octets[: found.start()]) is None:
        raise Unreadable(f"something else stands before the content: {octets[: found.start()][:600]!r}")
    return Read(int(found[1]), queue_ids, digest_of(octets[found.start() :]))


def _size(chance: random.Random) -> int:
    dice = chance.random()
    if dice < 0.92:
        return int(10 ** chance.triangular(1.5, 4, 2.8))
    if dice < 0.985:
        # Around the size from which content has a file of its own.
        return chance.randrange(FILE_OCTETS - 4000, FILE_OCTETS + 40_000)
    return chance.randrange(FILE_OCTETS, LARGEST_OCTETS)
