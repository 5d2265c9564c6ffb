from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.config_forwarding import Forwarding
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


@pytest.mark.conformance("C96")
def test_by_default_intervals_grow_above_half_an_hour_and_give_up_after_five_days() -> None:
    """RFC 5321 §4.5.4.1: sooner at first is its own advice for what fails once; it gives up after 4 to 5 days."""
    terms = Forwarding()
    schedule = RetrySchedule(intervals_s=terms.retry, delay_notice_after_s=terms.delay_notice_after)
    at, attempts, gaps = NOW, 0, []
    while (next_at := schedule.next_attempt(at, attempts + 1, NOW + terms.expire_after, MIDDLE)) is not None:
        gaps.append(next_at - at)
        at, attempts = next_at, attempts + 1
    assert gaps[:-2] == sorted(gaps[:-2])
    assert all(gap >= 1800 for gap in gaps[3:-1])
    assert at == NOW + terms.expire_after
    assert 4 * 86400 <= terms.expire_after <= 5 * 86400


@pytest.mark.conformance("C96")
def test_the_schedule_is_configurable() -> None:
    terms = Forwarding.model_validate({"retry": ["30m", "1h"], "expire_after": "4d", "delay_notice_after": "2h"})
    schedule = RetrySchedule(intervals_s=terms.retry, delay_notice_after_s=terms.delay_notice_after)
    assert schedule.next_attempt(NOW, 1, FAR, MIDDLE) == NOW + 1800
    assert schedule.next_attempt(NOW, 7, FAR, MIDDLE) == NOW + 3600
    assert schedule.wants_delay_notice(NOW + 7200, NOW, already=False)


@pytest.mark.conformance("C304")
@pytest.mark.parametrize("now", [0.0, 2**31 - 1.0, 2**31 + 0.0, 2**33 + 0.0])
def test_no_year_breaks_the_schedule(now: float) -> None:
    next_at = SCHEDULE.next_attempt(now, 1, now + 5 * 86400, MIDDLE)
    assert next_at is not None
    assert now < next_at <= now + SCHEDULE.longest_s


@pytest.mark.conformance("C304")
@given(jump_s=st.floats(-(2**32), 2**32), attempts=st.integers(1, 50))
def test_wherever_the_clock_jumps_the_next_attempt_is_near(jump_s: float, attempts: int) -> None:
    """Or it is the last one: then it was made after the time at which the clock says that it expires."""
    now = NOW + jump_s
    next_at = SCHEDULE.next_attempt(now, attempts, NOW + 5 * 86400, FakeRandom())
    if next_at is None:
        assert now >= NOW + 5 * 86400
    else:
        assert now < next_at <= now + SCHEDULE.longest_s
