from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.forwarding.schedule import JITTER, RetrySchedule
from tests.fake_world import FakeRandom

SCHEDULE = RetrySchedule(intervals_s=(300.0, 600.0, 3600.0), delay_notice_after_s=4 * 3600.0)
NOW = 1_700_000_000.0
FAR = NOW + 5 * 86400
MIDDLE = FakeRandom(fixed=0.5)


@pytest.mark.parametrize(("attempts", "wait_s"), [(1, 300), (2, 600), (3, 3600), (4, 3600), (1000, 3600)])
def test_intervals_follow_each_other_and_the_last_repeats(attempts: int, wait_s: float) -> None:
    assert SCHEDULE.next_attempt(NOW, attempts, FAR, MIDDLE) == NOW + wait_s


def test_a_row_without_a_counted_attempt_waits_the_first_interval() -> None:
    assert SCHEDULE.next_attempt(NOW, 0, FAR, MIDDLE) == NOW + 300


@given(attempts=st.integers(1, 50), seed=st.integers(0, 2**32))
def test_jitter_stays_within_its_bounds_and_the_longest(attempts: int, seed: int) -> None:
    interval_s = SCHEDULE.intervals_s[min(attempts, 3) - 1]
    next_at = SCHEDULE.next_attempt(NOW, attempts, FAR, FakeRandom(seed))
    assert next_at is not None
    assert interval_s * (1 - JITTER) - 1e-3 <= next_at - NOW <= interval_s * (1 + JITTER) + 1e-3
    assert next_at - NOW <= SCHEDULE.longest_s + 1e-3


def test_jitter_spreads() -> None:
    random = FakeRandom()
    assert len({SCHEDULE.next_attempt(NOW, 1, FAR, random) for _ in range(20)}) > 10


def test_the_last_attempt_is_at_expiry() -> None:
    assert SCHEDULE.next_attempt(NOW, 1, NOW + 100, MIDDLE) == NOW + 100


@pytest.mark.parametrize("late_s", [0.0, 0.001, 7 * 86400.0])
def test_an_attempt_made_at_or_after_expiry_is_the_last(late_s: float) -> None:
    assert SCHEDULE.next_attempt(NOW + late_s, 1, NOW, MIDDLE) is None


@given(late_s=st.floats(-10 * 86400, 10 * 86400), attempts=st.integers(1, 9))
def test_no_attempt_is_planned_after_expiry_nor_in_the_past(late_s: float, attempts: int) -> None:
    next_at = SCHEDULE.next_attempt(NOW, attempts, NOW - late_s, FakeRandom())
    assert next_at is None or NOW < next_at <= NOW - late_s


def test_the_delay_notice_is_wanted_once_and_not_before_its_time() -> None:
    notice_s = SCHEDULE.delay_notice_after_s
    assert not SCHEDULE.wants_delay_notice(NOW + notice_s - 1, NOW, already=False)
    assert SCHEDULE.wants_delay_notice(NOW + notice_s, NOW, already=False)
    assert not SCHEDULE.wants_delay_notice(NOW + notice_s, NOW, already=True)
