from __future__ import annotations

from posthouse.forwarding.places import HOPS_LIMIT, LONGEST_PAUSE_S, PAUSE_S, Places
from tests.fake_world import FakeClock

BOUND = 5


def grown(clock: FakeClock, hop: str = "a") -> Places:
    pace = Places(clock)
    pace.reached(hop)
    for _ in range(20):
        pace.took(hop, BOUND)
    return pace


def test_a_next_hop_has_one_place_until_it_greets_and_takes_mail() -> None:
    pace = Places(FakeClock())
    assert pace.places("a", BOUND) == 1
    assert not pace.has_answered("a")
    pace.reached("a")
    places = [pace.places("a", BOUND)]
    for _ in range(12):
        pace.took("a", BOUND)
        places.append(pace.places("a", BOUND))
    assert places == [1, 2, 2, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5]
    assert pace.places("b", BOUND) == 1


def test_the_bound_may_become_lower() -> None:
    assert grown(FakeClock()).places("a", 2) == 2


def test_slower_means_a_pause_and_half_the_places() -> None:
    clock = FakeClock()
    pace = grown(clock)
    assert pace.slow_down("a") == PAUSE_S
    assert pace.places("a", BOUND) == 0
    clock.advance(PAUSE_S - 0.1)
    assert pace.places("a", BOUND) == 0
    clock.advance(0.1)
    assert pace.places("a", BOUND) == 2
    assert pace.slow_down("a") == 2 * PAUSE_S
    clock.advance(2 * PAUSE_S)
    assert pace.places("a", BOUND) == 1


def test_several_connections_that_hear_it_at_once_are_one_reason() -> None:
    clock = FakeClock()
    pace = grown(clock)
    assert [pace.slow_down("a") for _ in range(3)] == [PAUSE_S, None, None]
    clock.advance(PAUSE_S)
    assert pace.places("a", BOUND) == 2


def test_the_pause_grows_within_bounds_and_ends_with_a_success() -> None:
    clock = FakeClock()
    pace = grown(clock)
    for _ in range(10):
        pause_s = pace.slow_down("a")
        assert pause_s is not None
        clock.advance(pause_s)
    assert pause_s == LONGEST_PAUSE_S
    pace.took("a", BOUND)
    assert pace.slow_down("a") == PAUSE_S


def test_whoever_stops_answering_begins_again_with_one() -> None:
    pace = grown(FakeClock())
    pace.unreachable("a")
    assert pace.has_failed("a")
    assert pace.places("a", BOUND) == 1
    pace.reached("a")
    assert not pace.has_failed("a")
    assert pace.places("a", BOUND) == 1


def test_memory_is_bounded() -> None:
    pace = Places(FakeClock())
    for number in range(HOPS_LIMIT + 1):
        pace.reached(f"hop{number}")
    assert not pace.has_answered("hop0")
    assert pace.has_answered("hop1")
