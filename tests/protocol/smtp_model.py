"""What SMTP demands of a dialogue, written from RFC 5321 §4.1.4, RFC 3030 §2, RFC 4954 §4 and RFC 3207 §4.2.

A unit is what gets one reply: a command line, a chunk with its octets, a line of an exchange, or content up to its
end. The model says of each whether it is taken; it knows nothing of how the core does it.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

SIZE, RECIPIENTS, MESSAGES, LINE = 60, 2, 6, 12_288


@dataclass(frozen=True)
class Unit:
    """`fate`: "syntax" is wrong in itself, "policy" is refused by the driver, "ends" ends the session."""

    verb: str
    octets: bytes
    fate: str = ""
    content: bytes = b""
    last: bool = False
    extended: bool = False


class Model:
    """One session. `deliveries`: content and number of recipients of each message that was taken."""

    def __init__(self) -> None:
        self.deliveries: list[tuple[bytes, int]] = []
        self.closed = False
        self.begin(tls=False)

    def begin(self, *, tls: bool) -> None:
        self.tls, self.hello, self.authenticated, self.messages = tls, "", False, 0
        self.answers: list[bytes] | None = None
        self.drop()

    def drop(self) -> None:
        self.mail, self.recipients, self.in_data = False, 0, False
        self.chunks: bytes | None = None

    def takes(self, unit: Unit) -> bool:
        if self.answers is not None:
            return self.exchange(self.answers, unit.octets[:-2])
        self.closed = unit.fate == "ends" or (unit.verb == "QUIT" and not unit.fate)
        allowed = {
            "MAIL": bool(self.hello) and not self.mail and (self.hello == "EHLO" or not unit.extended),
            "RCPT": self.mail and self.chunks is None and self.recipients < RECIPIENTS,
            "DATA": self.recipients > 0 and self.chunks is None,
            "BDAT": self.recipients > 0 and self.hello == "EHLO",
            "AUTH": self.hello == "EHLO" and not self.mail and not self.authenticated,
            "STARTTLS": bool(self.hello) and not self.tls,
        }.get(unit.verb, True)
        if unit.verb == "MAIL" and allowed and unit.fate != "syntax" and self.messages == MESSAGES:
            self.closed, allowed = True, False
        if not allowed or unit.fate:
            if unit.verb == "BDAT":
                self.drop()
            return False
        match unit.verb:
            case "EHLO" | "HELO":
                self.hello = unit.verb
                self.drop()
            case "RSET":
                self.drop()
            case "MAIL":
                self.mail, self.messages = True, self.messages + 1
            case "RCPT":
                self.recipients += 1
            case "DATA":
                self.in_data = True
            case "AUTH":
                return self.exchange([], *unit.octets[:-2].split(b" ")[2:])
            case "CONTENT":
                return self.ends(unit.content)
            case "BDAT":
                return self.chunk((self.chunks or b"") + unit.content, unit.last)
        return True

    def chunk(self, so_far: bytes, last: bool) -> bool:
        whole = so_far if not last or so_far[-2:] in (b"", b"\r\n") or so_far[-1:] == b"\r" else so_far + b"\r\n"
        if last:
            return self.ends(whole, octets=len(so_far))
        if len(so_far) > SIZE or _is_bare(so_far.removesuffix(b"\r")):
            self.drop()
            return False
        self.chunks = so_far
        return True

    def ends(self, content: bytes, octets: int | None = None) -> bool:
        size = len(content) if octets is None else octets
        taken = size <= SIZE and not _is_bare(content) and b"REFUSE" not in content
        if taken:
            self.deliveries.append((content, self.recipients))
        self.drop()
        return taken

    def exchange(self, answers: list[bytes], *lines: bytes) -> bool:
        """AUTH LOGIN: a login and a password are asked for."""
        self.answers = answers
        for line in lines:
            try:
                if len(line) + 2 > LINE or (len(answers) == 1 and not answers[0].decode()):
                    raise ValueError
                answers.append(base64.b64decode(line, validate=True))
            except (ValueError, binascii.Error):
                self.answers = None
                return False
        if len(answers) == 2:
            self.answers, self.authenticated = None, answers[1] == b"right"
            return self.authenticated
        return True


def _is_bare(octets: bytes) -> bool:
    rest = octets.replace(b"\r\n", b"")
    return b"\r" in rest or b"\n" in rest
