"""The grammar of POP3, once for both halves: RFC 1939 §3, RFC 2449 §3, §4, §8 and the codes of RFC 3206.

Text that leaves is printable ASCII; text that comes is made printable before anybody may show or log it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

COMMAND_LIMIT_OCTETS: Final = 512
"""RFC 2449 §4 asks a server for 255, CRLF included; long names and passwords need more."""
RESPONSE_LIMIT_OCTETS: Final = 512
"""What a first line may hold at most, CRLF included (RFC 1939 §3)."""
LENIENT_RESPONSE_LIMIT_OCTETS: Final = 4096
"""What we take from a server that does not keep to it."""

END_OF_LIST: Final = b"."

IN_USE: Final = "IN-USE"
LOGIN_DELAY: Final = "LOGIN-DELAY"
SYS_TEMP: Final = "SYS/TEMP"
SYS_PERM: Final = "SYS/PERM"
AUTH: Final = "AUTH"

_NUMBER = re.compile(rb"[0-9]{1,18}\Z")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]")
_CODE = re.compile(r"\[([\x21-\x5a\x5c\x5e-\x7e]+)\] ?")
_NAMEABLE_VERB = re.compile(rb"[A-Z]{3,4}\Z")


@dataclass(frozen=True, slots=True)
class Response:
    """The first line of an answer. `code` is upper case and without its brackets (RFC 2449 §8)."""

    ok: bool
    text: str
    code: str | None = None


def parse_command(line: bytes) -> tuple[bytes, bytes | None]:
    """The verb in upper case, and the rest of the line after exactly one space, None where there is no space."""
    verb, space, argument = line.partition(b" ")
    return verb.upper(), argument if space else None


def nameable_verb(verb: bytes) -> str:
    """The verb if a log may hold it: a keyword of RFC 2449 §3, not a password that came a line too late."""
    return verb.decode("ascii") if _NAMEABLE_VERB.match(verb) else ""


def parse_number(octets: bytes) -> int | None:
    """A decimal number of 1 to 18 ASCII digits, else None. Leading zeros mean nothing: `01` is 1."""
    return int(octets) if _NUMBER.match(octets) else None


def has_control(octets: bytes) -> bool:
    """Whether an octet is a C0 control or DEL, which no name and no password holds."""
    return _CONTROL.search(octets) is not None


def encode_response(response: Response) -> bytes:
    """The line as it leaves, at most RESPONSE_LIMIT_OCTETS.

    A text that begins with "[" would be read as a code (RFC 2449 §6.4), so it gets a space before it.
    """
    text = _NOT_PRINTABLE.sub("?", response.text)
    if response.code is not None:
        text = f"[{response.code}] {text}"
    elif text.startswith("["):
        text = " " + text
    status = "+OK" if response.ok else "-ERR"
    line = f"{status} {text}" if text else status
    return line[: RESPONSE_LIMIT_OCTETS - 2].encode("ascii") + b"\r\n"


def parse_response(line: bytes) -> Response | None:
    """The first line of an answer, None where it is none. The status is upper case (RFC 1939 §3)."""
    for status, ok in ((b"+OK", True), (b"-ERR", False)):
        if line.startswith(status):
            rest = line[len(status) :]
            if rest[:1].isalnum():
                return None
            text = printable(rest.removeprefix(b" "))
            code = _CODE.match(text)
            if code is None:
                return Response(ok, text)
            return Response(ok, text[code.end() :], code[1].upper())
    return None


def printable(octets: bytes) -> str:
    """A peer's text, with U+FFFD for what is no UTF-8 and "?" for what is not printable."""
    text = octets.decode("utf-8", "replace")
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
