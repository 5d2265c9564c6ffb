"""What was said in an SMTP session, as it may stand in a journey: without content, without secrets, bounded."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

TRANSCRIPT_LINES = 200
"""How many lines of one transaction (or of what comes before the first one) are kept: the first and the last."""
LAST_LINES = 50
SHOWN_CHARACTERS = 512
SECRET = "(secret)"
MIN_SECRET_CHARACTERS = 4
"""Shorter ones are not looked for in what the peer says: they would be found in any text."""

Trace = Callable[[str, str], None]
"""Told of each line of the dialogue: who ("C" or "S") and the line, without content and secrets."""


class Step(NamedTuple):
    """One line of a dialogue, `C: ` or `S: ` in front, and when it was said, in monotonic seconds."""

    line: str
    at_s: float


class Dialogue:
    """What was said in one attempt, over as many connections as it took, with our own notes between."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        self.steps: list[Step] = []

    def append(self, line: str) -> None:
        """A note of ours, now."""
        self.steps.append(Step(line, self.monotonic()))

    def take(self, steps: list[Step]) -> None:
        """What a connection has heard since; it keeps none of it."""
        self.steps += steps
        steps.clear()


class Transcript:
    """Collects the lines. `steps` may be emptied by whoever has read them."""

    def __init__(self, trace: Trace | None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.steps: list[Step] = []
        self._trace = trace
        self._monotonic = monotonic
        self._begin = 0
        self._left_out = 0
        self._replies = _ReplyLines()
        self._secrets: set[str] | None = None

    def begin_part(self) -> None:
        """What follows has room of its own."""
        self._begin = len(self.steps)
        self._left_out = 0

    def begin_secrets(self, *secrets: str) -> None:
        """A login begins: what we say is secret, and what the peer repeats of it."""
        self._secrets = set(secrets)

    def end_secrets(self) -> None:
        """The login is over."""
        self._secrets = None

    def forget_unfinished(self) -> None:
        """What was read of a line before the handshake belongs to no line after it."""
        self._replies = _ReplyLines()

    def client(self, octets: bytes) -> None:
        """Whole lines of ours."""
        for line in octets.split(b"\r\n")[:-1]:
            self.note("C", self._without_secrets(line.decode("utf-8", "replace")))

    def server(self, octets: bytes) -> None:
        """What was read from the peer; b"" is the end."""
        for line in self._replies.feed(octets):
            self.note("S", self.redacted(shown(line.decode("ascii", "replace"))))

    def note(self, who: str, line: str) -> None:
        """A line as it is to stand."""
        if self._trace is not None:
            self._trace(who, line)
        self.steps.append(Step(f"{who}: {line}", self._monotonic()))
        self._begin = min(self._begin, len(self.steps) - 1)
        if len(self.steps) - self._begin > TRANSCRIPT_LINES:
            at = self._begin + TRANSCRIPT_LINES - LAST_LINES - 1
            self._left_out += 1 if self._left_out else 2
            self.steps[at : at + 2] = [Step(f"C: ({self._left_out} lines are left out here)", self.steps[at].at_s)]

    def redacted(self, text: str) -> str:
        """A peer's text without the secrets that it repeats: some echo the line that they did not understand."""
        for secret in sorted(self._secrets or (), key=len, reverse=True):
            if len(secret) >= MIN_SECRET_CHARACTERS:
                text = text.replace(secret, SECRET)
        if self._secrets is not None and text.startswith("334 "):
            return "334 (challenge)"
        return text

    def _without_secrets(self, line: str) -> str:
        if self._secrets is None or line == "*":
            return line
        *public, secret = line.split(" ")
        if public[:1] == ["AUTH"] and len(public) == 1:
            return line
        self._secrets.add(secret)
        return " ".join([*public, SECRET])


class _ReplyLines:
    """Lines of replies, however they are cut. Keeps at most SHOWN_CHARACTERS of one."""

    def __init__(self) -> None:
        self._line = b""

    def feed(self, octets: bytes) -> list[bytes]:
        """The lines that end in `octets`, without their line ends; an unfinished one too at the end of the stream."""
        *lines, rest = (self._line + octets).split(b"\n") if octets else (self._line, b"")
        self._line = rest[:SHOWN_CHARACTERS]
        return [line.removesuffix(b"\r")[:SHOWN_CHARACTERS] for line in lines if line]


def shown(text: str) -> str:
    """The peer's text as it may stand in a journey or on a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
