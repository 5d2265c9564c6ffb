"""What RFC 1939 and its extensions say, in few lines, none of them the server's: the reference of the random walk."""

from __future__ import annotations

import re
from collections.abc import Sequence

PLAIN = b"AGFsaWNlAHNlY3JldA=="
OK, ERR, GO_ON, SILENCE = b"+OK", b"-ERR", b"+ \r", b""
CAPABILITIES = (
    *(b"TOP", b"UIDL", b"USER", b"SASL SCRAM-SHA-256 PLAIN", b"STLS", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING"),
    *(b"EXPIRE NEVER", b"UTF8 USER", b"LANG", b"IMPLEMENTATION Posthouse"),
)
NOT_AT = {"clear": {b"USER", b"SASL SCRAM-SHA-256 PLAIN"}, "tls": {b"STLS"}}
NUMBER = re.compile(rb"0*([0-9]{1,9})")
NAME = re.compile("[^\x00-\x1f\x7f\ufffd]+")
TOP = re.compile(rb"0*([0-9]{1,9}) 0*([0-9]{1,9})")


class Model:
    """One session. `answer` says how the first line begins, and which lines follow it (None: none can)."""

    def __init__(self, contents: Sequence[bytes], door: str, uidl: bytes = b"uidl-%d") -> None:
        self.contents, self.door, self.uidl, self.state = contents, door, uidl, "authorization"
        self.user, self.exchange = b"", False
        self.marked: set[int] = set()
        self.updates: list[tuple[int, ...]] = []

    def answer(self, line: bytes, behind: bool = False) -> tuple[bytes, list[bytes] | None]:
        """`line` without its CRLF; `behind`: more was sent with it."""
        exchange, self.exchange = self.exchange, False
        verb, _, raw = line.partition(b" ")
        rest = raw.rstrip(b" ")
        there = {n: content for n, content in enumerate(self.contents, 1) if n not in self.marked}
        number = int(found[1]) if (found := NUMBER.fullmatch(rest)) else 0
        match self.state, verb.upper():
            case "closed", _:
                return SILENCE, None
            case _ if b"\r" in line or b"\n" in line or len(line) > (12286 if exchange else 510):
                return ERR, None
            case _ if exchange:
                return self._enter(line == PLAIN)
            case _, b"CAPA" if not rest:
                return OK, [tag for tag in CAPABILITIES if tag not in NOT_AT[self.door]]
            case _, b"LANG":
                return (OK if rest.lower() in (b"", b"en", b"*") else ERR), None if rest else [
                    b"i-default",
                    b"en English",
                ]
            case state, b"QUIT" if not rest:
                self.updates += [tuple(sorted(self.marked))] if state == "transaction" else []
                self.state = "closed"
            case "authorization", b"STLS" if not rest and self.door == "clear":
                self.state, self.door = "closed" if behind else self.state, "tls"
                return (ERR if behind else OK), None
            case "authorization", b"USER" if self.door == "tls":
                self.user = raw.strip(b" ") if NAME.fullmatch(raw.strip(b" ").decode("utf-8", "replace")) else b""
                return (OK if self.user else ERR), None
            case "authorization", b"PASS" if self.door == "tls":
                return self._enter((self.user, raw) == (b"alice", b"secret"))
            case "authorization", b"AUTH" if self.door == "tls" and rest.split(b" ")[0].upper() == b"PLAIN":
                self.user, self.exchange = b"", b" " not in rest
                return (GO_ON, None) if self.exchange else self._enter(rest[6:] == PLAIN)
            case "transaction", b"STAT" if not rest:
                return b"+OK %d %d\r" % (len(there), sum(map(len, there.values()))), None
            case "transaction", (b"LIST" | b"UIDL") as kind:
                show = (lambda n: b"%d" % len(there[n])) if kind == b"LIST" else (lambda n: self.uidl % n)
                if rest:
                    return (b"+OK %d %b\r" % (number, show(number)) if number in there else ERR), None
                return OK, [b"%d %b" % (n, show(n)) for n in there]
            case "transaction", b"RETR" if number in there:
                return OK, lines_of(there[number])
            case "transaction", b"TOP" if (found := TOP.fullmatch(rest)) and int(found[1]) in there:
                lines = lines_of(there[int(found[1])])
                return OK, lines[: lines.index(b"") + 1 + int(found[2])] if b"" in lines else lines
            case "transaction", b"DELE" if number in there:
                self.marked |= {number}
            case "transaction", b"RSET" if not rest:
                self.marked = set()
            case ("transaction", b"NOOP") | ("authorization", b"UTF8") if not rest:
                pass
            case _:
                return ERR, None
        return OK, None

    def _enter(self, known: bool) -> tuple[bytes, list[bytes] | None]:
        self.user, self.state = b"", "transaction" if known else self.state
        return (OK if known else ERR), None


def lines_of(content: bytes) -> list[bytes]:
    """A message's lines as a peer sees them, which all end."""
    return content.removesuffix(b"\r\n").split(b"\r\n") if content else []
