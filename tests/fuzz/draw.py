"""What targets have in common: values drawn from a fuzzer's octets, cuts, and small assertions."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Sequence
from itertools import pairwise
from typing import Any, TypeVar

T = TypeVar("T")


class Draw:
    """Takes values off the octets of one input: numbers from its end, so that its beginning stays readable text.

    An input that is used up gives zeros and nothing.
    """

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def number(self, below: int = 256) -> int:
        """0 up to `below`, which is at most 256."""
        last, self._octets = self._octets[-1:], self._octets[:-1]
        return last[0] % below if last else 0

    def chance(self) -> bool:
        return bool(self.number(2))

    def choice(self, values: Sequence[T]) -> T:
        return values[self.number(len(values))]

    def piece(self, separator: bytes = b"\xfe") -> bytes:
        """What stands before the next separator."""
        piece, _, self._octets = self._octets.partition(separator)
        return piece

    def text(self, separator: bytes = b"\xfe") -> str:
        """A piece as text that UTF-8 can say."""
        return self.piece(separator).decode("utf-8", "replace")

    def rest(self) -> bytes:
        rest, self._octets = self._octets, b""
        return rest


def cut(octets: bytes, seed: int) -> list[bytes]:
    """The octets in pieces: by a seed, 0 for single octets."""
    if not seed:
        return [octets[at : at + 1] for at in range(len(octets))]
    chance = random.Random(seed)
    edges = sorted({0, len(octets), *(chance.randrange(len(octets) + 1) for _ in range(1 + seed % 7))})
    return [octets[begin:end] for begin, end in pairwise(edges)]


def same_however_cut(octets: bytes, seed: int, run: Callable[[list[bytes]], object]) -> Any:
    """What `run` makes of the octets as one piece; asserts that it makes the same of them in any pieces."""
    whole = run([octets] if octets else [])
    for pieces in (cut(octets, 0), cut(octets, seed or 1)):
        assert run(pieces) == whole, "cutting changed what was made of the octets"
    return whole


def run_without_io(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never has to wait."""
    try:
        work.send(None)
    except StopIteration as finished:
        result: T = finished.value
        return result
    raise AssertionError("it waited for something")


def assert_one_line(octets: bytes) -> None:
    """A line that ends in CRLF, with no CR, LF or NUL inside."""
    assert octets.endswith(b"\r\n"), octets
    assert not any(octet in octets[:-2] for octet in (b"\r", b"\n", b"\0")), octets


def assert_whole_lines(octets: bytes, limit_octets: int | None = None) -> None:
    """Lines that end in CRLF, no CR, LF or NUL elsewhere, each within the limit (CRLF not counted)."""
    if not octets:
        return
    assert octets.endswith(b"\r\n"), octets
    for line in octets[:-2].split(b"\r\n"):
        assert not any(octet in line for octet in (b"\r", b"\n", b"\0")), line
        assert limit_octets is None or len(line) <= limit_octets, line


def error_of(error: type[Exception] | tuple[type[Exception], ...], work: Callable[[], object]) -> str | None:
    """What the declared error says; None where there is none."""
    try:
        work()
    except error as exc:
        return str(exc)
    return None


def without(error: type[Exception] | tuple[type[Exception], ...], work: Callable[[], T]) -> T | None:
    """The result; None where this error, which is declared, was raised."""
    try:
        return work()
    except error:
        return None
