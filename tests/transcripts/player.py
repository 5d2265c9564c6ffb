"""Plays written dialogues against a protocol half, or anything else that takes octets and answers with octets.

A transcript is text, one item a line:

    # a comment                     @ key=value        a setting that the test understands
    S: 220 mx.test                  C: EHLO c.test     a line of server or client; CRLF is added
    S> raw\\r\\n                      C> raw\\r\\n         octets with Python's escapes, nothing added
    C!                              S!                 the client, the server ends the connection
    ! begin a@x.test b@y.test       what a client half is told to do; a server half never sees it

An `S:` line that ends in `…` matches any line that begins so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

FOLDER = Path(__file__).parent
ANYTHING = "…".encode()


class Kind(Enum):
    """Who acts in a step."""

    SERVER = "S"
    CLIENT = "C"
    SERVER_ENDS = "S!"
    CLIENT_ENDS = "C!"
    ACTION = "!"


@dataclass(frozen=True)
class Step:
    """One line of a transcript. `octets` is what goes over the wire, `text` what an action says."""

    kind: Kind
    line_number: int
    octets: bytes = b""
    text: str = ""


@dataclass(frozen=True)
class Transcript:
    """A file of steps and its settings."""

    name: str
    steps: tuple[Step, ...]
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def for_client(self) -> bool:
        """Whether it tells a client half what to do."""
        return any(step.kind is Kind.ACTION for step in self.steps)


class Peer(Protocol):
    """What is played against: it is sent octets, b"" for the end, and has answered by the time it is asked."""

    def send(self, octets: bytes) -> None: ...

    def received(self) -> bytes:
        """What it said since the last call."""
        ...

    def ended(self) -> bool:
        """Whether it has ended the connection."""
        ...


def load_all(pattern: str) -> list[Transcript]:
    """The transcripts whose file names match, in order."""
    found = [parse(path.stem, path.read_text("utf-8")) for path in sorted(FOLDER.glob(pattern))]
    assert found, f"no transcript is called {pattern}"
    return found


def parse(name: str, text: str) -> Transcript:
    """Read the notation above."""
    steps: list[Step] = []
    settings: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        mark, rest = line[:2], line[3:]
        if mark in ("C!", "S!"):
            steps.append(Step(Kind(mark), number))
        elif mark in ("C:", "S:"):
            steps.append(Step(Kind(mark[0]), number, rest.encode() + b"\r\n"))
        elif mark in ("C>", "S>"):
            steps.append(Step(Kind(mark[0]), number, rest.encode("ascii").decode("unicode_escape").encode("latin-1")))
        elif mark == "! ":
            steps.append(Step(Kind.ACTION, number, text=line[2:]))
        elif mark == "@ ":
            key, _, value = line[2:].partition("=")
            settings[key.strip()] = value.strip()
        else:
            assert not line.strip() or line.startswith("#"), f"{name}:{number}: {line!r} is not a step"
    return Transcript(name, tuple(steps), settings)


def pieces(octets: bytes, size: int) -> Iterator[bytes]:
    """The octets in pieces of `size`; 0: in one."""
    if not size:
        yield octets
    else:
        yield from (octets[at : at + size] for at in range(0, len(octets), size))


def play_server(transcript: Transcript, peer: Peer, *, piece: int = 0, all_at_once: bool = False) -> None:
    """Say what the client says, in pieces; the server's lines must come as written, in order, and nothing else.

    `all_at_once`: the whole client side in one write, as the boldest pipelining client would.
    """
    steps = [step for step in transcript.steps if step.kind is not Kind.ACTION]
    if all_at_once:
        said = [step for step in steps if step.kind in (Kind.CLIENT, Kind.CLIENT_ENDS)]
        steps = said + [step for step in steps if step not in said]
    heard = b""
    for turn in _turns(steps):
        if turn[0].kind in (Kind.CLIENT, Kind.CLIENT_ENDS):
            assert not heard, f"{_place(transcript, turn[0])}: the server said too much: {heard!r}"
            _say(turn, peer, piece)
            continue
        heard += peer.received()
        for step in turn:
            if step.kind is Kind.SERVER_ENDS:
                assert peer.ended(), f"{_place(transcript, step)}: the server did not end the connection"
            else:
                heard = _match(transcript, step, heard)
    heard += peer.received()
    assert not heard, f"{transcript.name}: at the end the server said too much: {heard!r}"


def play_client(transcript: Transcript, peer: Peer, act: Callable[[str], None], *, piece: int = 0) -> None:
    """Say what the server says, do what the actions say; the client's octets must come as written."""
    heard = b""
    for step in transcript.steps:
        match step.kind:
            case Kind.ACTION:
                act(step.text)
            case Kind.SERVER:
                for part in pieces(step.octets.replace(ANYTHING, b""), piece):
                    peer.send(part)
            case Kind.SERVER_ENDS:
                peer.send(b"")
            case Kind.CLIENT:
                heard = _match(transcript, step, heard + peer.received())
            case Kind.CLIENT_ENDS:
                assert peer.ended(), f"{_place(transcript, step)}: the client did not end the connection"
    heard += peer.received()
    assert not heard, f"{transcript.name}: at the end the client said too much: {heard!r}"


def _turns(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """Steps of one side without interruption."""
    turn: list[Step] = []
    for step in steps:
        if turn and step.kind.value[0] != turn[0].kind.value[0]:
            yield turn
            turn = []
        turn.append(step)
    if turn:
        yield turn


def _say(turn: list[Step], peer: Peer, piece: int) -> None:
    for part in pieces(b"".join(step.octets for step in turn), piece):
        if part:
            peer.send(part)
    if any(step.kind is Kind.CLIENT_ENDS for step in turn):
        peer.send(b"")


def _match(transcript: Transcript, step: Step, heard: bytes) -> bytes:
    """Check that `heard` begins with what the step says; return the rest."""
    wanted = step.octets
    if wanted.endswith(ANYTHING + b"\r\n"):
        prefix = wanted[: -len(ANYTHING) - 2]
        line, _, rest = heard.partition(b"\r\n")
        assert line.startswith(prefix), f"{_place(transcript, step)}: wanted {prefix!r}…, heard {heard!r}"
        return rest
    assert heard.startswith(wanted), f"{_place(transcript, step)}: wanted {wanted!r}, heard {heard!r}"
    return heard[len(wanted) :]


def _place(transcript: Transcript, step: Step) -> str:
    return f"{transcript.name}.txt:{step.line_number}"
