"""Queue ids are ordered by time and cannot be guessed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from posthouse.mail.ids import QUEUE_ID_PATTERN, new_queue_id, time_of


class Chance:
    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def octets(self, count: int) -> bytes:
        return self._octets[:count]

    def uniform(self, low: float, high: float) -> float:
        return low


TIMES = st.integers(0, 2**47).map(lambda milliseconds: milliseconds / 1000)
TEN = st.binary(min_size=10, max_size=10)


@given(TIMES, TIMES, TEN, TEN)
def test_a_later_id_sorts_later(one: float, other: float, a: bytes, b: bytes) -> None:
    first, second = new_queue_id(one, Chance(a)), new_queue_id(other, Chance(b))
    assert QUEUE_ID_PATTERN.match(first)
    assert (first < second) == ((int(one * 1000), a) < (int(other * 1000), b))


def test_a_known_one() -> None:
    assert new_queue_id(0, Chance(bytes(9) + b"\x21")) == "0" * 24 + "11"
    assert new_queue_id(0, Chance(b"\xff" * 10)) == "0" * 10 + "Z" * 16
    assert not QUEUE_ID_PATTERN.match("0" * 26 + "\n")
    assert not QUEUE_ID_PATTERN.match("8" + "0" * 25)


@given(st.floats(0, 2**47 / 1000), st.binary(min_size=10, max_size=10))
def test_its_time_can_be_read_from_it(now: float, chance: bytes) -> None:
    assert abs(time_of(new_queue_id(now, Chance(chance))) - now) <= 0.0011
