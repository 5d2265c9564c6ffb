"""One connection to a real server: what is said, and the class of each answer."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field

PATIENCE_S = 10.0
GONE = "-"
"""The class of an answer that did not come, for the connection had ended."""
SILENT = "…"
"""That of an answer that was owed and did not come in time."""
_ONE_ENTRY = {b"LIST": re.compile(rb"\+OK [0-9]+ [0-9]+\Z"), b"UIDL": re.compile(rb"\+OK [0-9]+ \S+\Z")}


@dataclass(frozen=True, slots=True)
class Turn:
    """What one unit of a dialogue was answered by both. `ours` and `theirs` are classes: 2 to 5, + or -ERR's E, -."""

    octets: bytes
    ours: str
    theirs: str
    our_answer: bytes
    their_answer: bytes

    @property
    def line(self) -> bytes:
        """The command without its line end, or the first line of content."""
        return self.octets.partition(b"\r\n")[0]

    @property
    def verb(self) -> str:
        return self.line.partition(b" ")[0].decode("ascii", "replace").upper()


@dataclass(slots=True)
class Answer:
    kind: str
    octets: bytes

    @property
    def accepts(self) -> bool:
        return self.kind in "23+"


class Talk:
    """A session; every read has a time limit, after which TimeoutError says that an answer is owed."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._nothing = GONE

    def say(self, octets: bytes) -> None:
        try:
            self._socket.sendall(octets)
        except OSError:
            # It has closed the connection; the answers will tell.
            pass

    def smtp_answer(self) -> Answer:
        """A reply with all its lines."""
        lines = b""
        while (line := self._line()) is not None:
            lines += line
            if line[3:4] != b"-":
                return Answer(chr(line[0]), lines)
        return Answer(self._nothing, lines)

    def pop3_answer(self, command: bytes) -> Answer:
        """A status line, and the lines that follow it where the command has such."""
        status = self._line()
        if status is None:
            return Answer(self._nothing, b"")
        if not status.startswith(b"+OK") or not _is_list(command, status):
            return Answer("+" if status.startswith(b"+") else "E", status)
        lines = status
        while (line := self._line()) is not None:
            lines += line
            if line == b".\r\n":
                return Answer("+", lines)
        return Answer(self._nothing, lines)

    def close(self) -> None:
        self._socket.close()

    def _line(self) -> bytes | None:
        while b"\r\n" not in self._buffer:
            try:
                octets = self._socket.recv(65536)
            except TimeoutError:
                self._nothing = SILENT
                return None
            except ConnectionError:
                octets = b""
            if not octets:
                return None
            self._buffer += octets
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line + b"\r\n"


def _is_list(command: bytes, status: bytes) -> bool:
    verb = command.partition(b" ")[0].strip().upper()
    if verb in (b"RETR", b"TOP", b"CAPA"):
        return True
    return verb in _ONE_ENTRY and _ONE_ENTRY[verb].match(status.rstrip()) is None


@dataclass(slots=True)
class Dialogue:
    """What is said to both servers: groups of units, each group in one write. `token` names it in content."""

    seed: int
    token: str
    groups: list[list[bytes]]
    turns: list[Turn] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"dialogue of seed {self.seed}:"]
        for turn in self.turns:
            lines.append(f"  C: {turn.octets!r}")
            lines.append(f"     ours {turn.our_answer[:200]!r}")
            lines.append(f"     theirs {turn.their_answer[:200]!r}")
        return "\n".join(lines)
