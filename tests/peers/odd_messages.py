"""Messages that break mail programs: every one valid on the wire, none of them ordinary. Lines end in CRLF."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

CRLF = b"\r\n"
LONGEST_LINE_OCTETS = 10_000
OCTETS = bytes(set(range(1, 256)) - set(CRLF))
"""Every octet that may stand in a line, but NUL."""

_PIECES = (b".", b"..", CRLF, CRLF, CRLF + b".", b".\r\n", b" ", b"\t", b"\x80\xff", "Grüße".encode(), b"x" * 999, b"a")


def _until_octet(size_octets: int) -> bytes:
    """Content of this size, in the middle of a line of its body."""
    lines = b"Subject: cut\r\n\r\n" + (b"y" * 62 + CRLF) * (size_octets // 64)
    return lines[: size_octets - 70] + CRLF + b"z" * 68


BODIES: dict[str, bytes] = {
    "none": b"",
    "empty line": CRLF,
    "empty lines": CRLF * 500,
    "dot": b".\r\n",
    "dots in many forms": b".\r\n..\r\n...\r\n. \r\n .\r\n.\t\r\n.a\r\n..a\r\na.\r\n",
    "many dots": b".\r\n" * 3000,
    "dot last": b"end\r\n.\r\n",
    "dot after an empty line": b"\r\n.\r\n\r\n.\r\n",
    "like a dialogue": b"QUIT\r\n.\r\n250 OK\r\n+OK\r\n-ERR\r\nRSET\r\n354 go on\r\nMAIL FROM:<>\r\n",
    "like an mbox": b"From ada Mon Jan  1 00:00:00 2024\r\n>From \r\nFrom: x\r\n",
    "like a header": b"Return-Path: <liar@x.test>\r\nDelivered-To: liar@x.test\r\nReceived: by liar\r\n\r\nx\r\n",
    "Latin-1": "Grüße aus Köln, 5 £".encode("latin-1") + CRLF,
    "UTF-8": "Grüße, 你好, 🐎\r\n".encode(),
    "not UTF-8": b"\xc3\x28 \xa0\xa1 \xe2\x28\xa1 \xff\xfe\r\n",
    "every octet": OCTETS + CRLF,
    "every octet by itself": b"".join(bytes([octet]) + CRLF for octet in OCTETS),
    "controls": b"\x01\x02\x03\x04\x07\x08\x0b\x0c\x1a\x1b[31m\x7f\r\n",
    "white space at the ends": b" a \r\n\ta\t\r\n   \r\n\t\r\n",
    "soft hyphens and equals": b"=20=\r\n=3D=\r\n====\r\n",
    "MIME": b'--b\r\nContent-Type: text/plain; charset="x"\r\n\r\n..\r\n--b--\r\nepilogue\r\n',
    "no colour": b"\xff" * 700 + CRLF,
}
BODIES |= {f"a line of {length}": b"x" * length + CRLF for length in (997, 998, 999, 1000, 2047, 2048, 4095, 8192)}
BODIES |= {f"dots of {length}": b"." * length + CRLF for length in (998, 1000, 4096, LONGEST_LINE_OCTETS)}
BODIES |= {f"8-bit line of {length}": b"\xe9" * length + CRLF for length in (1000, LONGEST_LINE_OCTETS)}
BODIES |= {  # What a reader's buffer is cut at, with a dot around the cut.
    f"dot line at {size}{shift:+}": (b"y" * 62 + CRLF) * (size // 64 - 1) + b"z" * (60 + shift) + b"\r\n.\r\n.z\r\n"
    for size in (1024, 4096, 16_384, 65_536, 131_072)
    for shift in (-3, -2, -1, 0, 1)
}

WHOLE: dict[str, bytes] = {
    "nothing at all": b"",
    "an empty line only": CRLF,
    "header only": b"Subject: no empty line follows\r\nX: y\r\n",
    "header and empty line only": b"Subject: no body\r\n\r\n",
    "body only": b"\r\nThere is no header section.\r\n.\r\n",
    "no header, no empty line": b"just a line\r\n",
    "a dot only": b".\r\n",
    "a folded header": b"Subject: a\r\n b\r\n\tc\r\n \r\nTo: x\r\n\r\nbody\r\n",
    "a header field of 10,000": b"X-Long: " + b"h" * 9_990 + b"\r\n\r\nbody\r\n",
    "an 8-bit header": "Subject: Grüße\r\nX: \udcff\r\n\r\nbody\r\n".encode("utf-8", "surrogateescape"),
    "fields that only we write": b"Return-Path: <a@b.test>\r\nDelivered-To: x\r\nReceived: by x; y\r\n\r\nbody\r\n",
    "a header that begins with white space": b" folded under nothing\r\n\r\nbody\r\n",
}
WHOLE |= {  # Content is stored and read in chunks of 64 KiB; here a line of a dot stands where one is cut.
    f"a dot line at octet {cut - shift}": _until_octet(cut - shift) + b"\r\n.\r\n..\r\nend\r\n"
    for cut in (16_384, 65_536, 131_072)
    for shift in range(6)
}

NULS = {
    "NULs": b"Subject: NUL\r\n\r\na\0b\r\n\0\r\n\0.\r\n.\0\r\n" + bytes(1000) + CRLF,
    "NUL in a header": b"Subject: a\0b\r\n\r\nbody\r\n",
}


def random_body(seed: int, *, long_lines: bool = True) -> bytes:
    """A heap of what is hard, always the same for the same seed."""
    chance = random.Random(seed)
    choice = _PIECES if long_lines else tuple(piece for piece in _PIECES if len(piece) < 100)
    pieces = [chance.choice(choice) for _ in range(chance.randrange(1, 120))]
    # Two pieces may meet as CR CRLF only where one ends in CR, and none does.
    return b"".join(pieces) + CRLF


def headed(number: int, body: bytes) -> bytes:
    """A message that other servers have no reason to repair, with this body; `number_of` finds the number again."""
    fields = (
        "From: <ada@here.test>",
        "To: <ada@here.test>",
        "Date: Mon, 1 Jan 2024 12:00:00 +0000",
        f"Subject: odd {number}",
        f"Message-ID: <odd.{number}@client.test>",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=unknown-8bit",
        "Content-Transfer-Encoding: 8bit",
    )
    return "\r\n".join(fields).encode() + b"\r\n\r\n" + body


def number_of(message: bytes) -> int:
    found = re.search(rb"^Subject: odd (\d+)\r?$", message, re.MULTILINE)
    assert found is not None, message[:500]
    return int(found[1])


def well_formed(count: int) -> list[bytes]:
    """So many messages with a proper header section and odd bodies."""
    bodies = [*BODIES.values()]
    bodies += [random_body(seed) for seed in range(count - len(bodies))]
    return [headed(number, body) for number, body in enumerate(bodies[:count])]


def lawful(count: int) -> list[bytes]:
    """So many well-formed messages whose lines RFC 5322 §2.1.1 allows: for clients that break longer ones."""
    bodies = [body for body in BODIES.values() if len(max(body.split(CRLF), key=len)) <= 998]
    bodies += [random_body(seed, long_lines=False) for seed in range(count - len(bodies))]
    return [headed(number, body) for number, body in enumerate(bodies[:count])]


def all_odd(count: int, *, nuls: bool = True) -> list[bytes]:
    """So many messages, those included whose header section is odd or not there."""
    special = [*WHOLE.values(), *(NULS.values() if nuls else ())]
    return special + well_formed(count - len(special))


def huge(size_octets: int) -> bytes:
    """One message of at least so many octets, with dots and 8-bit octets all over."""
    block = b"".join(_lines())
    return headed(0, block * (size_octets // len(block) + 1))


def huge_header(size_octets: int) -> bytes:
    """One message with a header section of nearly so many octets, in one long field and in many short ones."""
    folded = b"X-Long: " + b"\r\n ".join([b"y" * 70] * (size_octets // 2 // 73)) + CRLF
    fields = b"".join(b"X-%d: %s\r\n" % (number, b"z" * 60) for number in range(size_octets // 2 // 72))
    return folded + fields + b"\r\nbody\r\n.\r\n"


def _lines() -> Iterator[bytes]:
    chance = random.Random(20)
    for _ in range(1000):
        yield b"." * chance.randrange(3) + bytes(chance.choices(OCTETS, k=chance.randrange(100))) + CRLF
