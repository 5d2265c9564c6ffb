"""The limiter: guessing becomes slow, nobody is locked out, memory is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthouse.identity import limiter as module
from posthouse.identity.limiter import COUNT_LIMIT, LONGEST_QUEUE_S, LimiterRules, LoginLimiter, neighbourhood
from tests.fake_world import FakeClock

RULES = LimiterRules(failures=3, delay_s=1.0, longest_delay_s=8.0, window_s=900.0)
HERE, NEAR, ELSEWHERE = "192.0.2.1", "192.0.2.2", "198.51.100.1"


class Guessing:
    """A limiter and its clock; `fail` counts failures, from a new address each time where none is named."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.limiter = LoginLimiter(RULES, self.clock)
        self._hosts = 0

    def fail(self, login: str, address: str | None = None, times: int = 1) -> None:
        for _time in range(times):
            self._hosts += 1
            self.limiter.failed(login, address or f"10.{self._hosts % 250}.{self._hosts // 250}.1")

    def wait(self, login: str, address: str) -> float | None:
        return self.limiter.wait_s(login, address)


@pytest.fixture
def guessing() -> Guessing:
    return Guessing()


@pytest.mark.conformance("C125", "C292", "S24")
def test_an_account_is_slowed_from_everywhere_and_not_for_ever(guessing: Guessing) -> None:
    waits = []
    for _time in range(8):
        waits.append(guessing.wait("alice", ELSEWHERE))
        guessing.fail("alice")
    assert waits == [0, 0, 0, 1, 2, 4, 8, 8]
    guessing.fail("alice", times=1000)
    assert guessing.wait("alice", ELSEWHERE) == 8
    assert guessing.wait("bob", ELSEWHERE) == 0
    guessing.clock.advance(6 * RULES.window_s)
    assert guessing.wait("alice", ELSEWHERE) == 0


@pytest.mark.conformance("C125", "C292", "S24")
def test_where_the_owner_was_before_strangers_change_nothing(guessing: Guessing) -> None:
    guessing.limiter.succeeded("alice", HERE)
    guessing.fail("alice", times=1000)
    guessing.fail("bob", HERE, times=50)
    guessing.fail("carol", NEAR, times=1000)
    assert guessing.wait("alice", HERE) == 0
    assert guessing.wait("alice", NEAR) == 8
    assert guessing.wait("bob", HERE) != 0


def test_guessing_from_the_owners_address_is_slow_too(guessing: Guessing) -> None:
    guessing.limiter.succeeded("alice", HERE)
    guessing.fail("alice", HERE, times=10)
    assert guessing.wait("alice", HERE) == 8
    assert guessing.wait("alice", ELSEWHERE) == 0
    guessing.limiter.succeeded("alice", HERE)
    assert guessing.wait("alice", HERE) == 0


@pytest.mark.conformance("C125")
def test_another_users_success_resets_nothing(guessing: Guessing) -> None:
    guessing.fail("alice", HERE, times=3)
    guessing.limiter.succeeded("bob", HERE)
    guessing.limiter.succeeded("alice", ELSEWHERE)
    assert guessing.wait("carol", HERE) == 1
    guessing.fail("alice", NEAR)
    assert guessing.wait("alice", "203.0.113.1") == 2


@pytest.mark.conformance("C292", "S24")
def test_one_address_is_slowed_whomever_it_tries(guessing: Guessing) -> None:
    for number in range(3):
        guessing.fail(f"user{number}", HERE)
    assert guessing.wait("alice", HERE) == 1
    assert guessing.wait("alice", NEAR) == 0


def test_attempts_of_a_slowed_address_wait_for_each_other(guessing: Guessing) -> None:
    guessing.fail("x", HERE, times=5)
    waits = [guessing.wait(f"user{number}", HERE) for number in range(9)]
    assert waits == [4, 8, 12, 16, 20, 24, 28, None, None]
    guessing.clock.advance(LONGEST_QUEUE_S)
    assert guessing.wait("y", HERE) == 4


@pytest.mark.conformance("C292")
@pytest.mark.parametrize(
    ("guesser", "other", "slowed"),
    [
        ("192.0.2.{}", "192.0.2.200", True),
        ("192.0.2.{}", "192.0.3.200", False),
        ("2001:db8:0:{}::1", "2001:db8:0:ffff::1", True),
        ("2001:db8:0:{}::1", "2001:db8:1:ffff::1", False),
    ],
)
def test_a_network_is_slowed(guessing: Guessing, guesser: str, other: str, slowed: bool) -> None:
    for number in range(RULES.failures * module.NETWORK_SHARE):
        assert guessing.wait("alice", other) == 0
        guessing.fail(f"user{number}", guesser.format(number))
    assert bool(guessing.wait("alice", other)) is slowed


@pytest.mark.conformance("C292", "S24")
@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.77", ("192.0.2.77/32", "192.0.2.0/24")),
        ("::ffff:192.0.2.77", ("192.0.2.77/32", "192.0.2.0/24")),
        ("2001:db8:1:2:3:4:5:6", ("2001:db8:1:2::/64", "2001:db8:1::/48")),
        ("fe80::1%eth0", ("fe80::/64", "fe80::/48")),
        ("", ("", "")),
        ("nonsense", ("", "")),
    ],
)
def test_neighbourhoods(address: str, expected: tuple[str, str]) -> None:
    assert neighbourhood(address) == expected


def test_the_same_wrong_password_again_slows_nobody_elsewhere(guessing: Guessing) -> None:
    for _time in range(50):
        guessing.limiter.failed("alice", HERE, repeated=True)
    assert guessing.wait("alice", ELSEWHERE) == 0
    assert guessing.wait("alice", HERE) == 8


def test_memory_is_bounded(guessing: Guessing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEYS", 10)
    for number in range(100):
        address = f"10.{number}.0.1"
        guessing.fail(f"user{number}", address, times=4)
        guessing.wait(f"user{number}", address)
        guessing.limiter.succeeded(f"user{number}", f"10.{number}.1.1")
        guessing.fail(f"user{number}", f"10.{number}.1.1")
    limiter = guessing.limiter
    counts = (limiter._accounts, limiter._addresses, limiter._networks, limiter._pairs)
    assert {len(table._counts) for table in counts} == {10}
    assert len(limiter._known) == len(limiter._queue_ends) == 10


@pytest.mark.conformance("C292", "S24")
def test_guesses_from_the_owners_address_wait_for_each_other(guessing: Guessing) -> None:
    """A hundred sessions that each waited eight seconds, beside each other, were twelve guesses in a second."""
    guessing.limiter.succeeded("alice", HERE)
    guessing.fail("alice", HERE, times=50)
    waits = [guessing.wait("alice", HERE) for _session in range(100)]
    assert [wait for wait in waits if wait is not None] == [8, 16, 24]
    # Nobody else waits for that, and the owner's next success ends it.
    assert guessing.wait("bob", HERE) == 0
    guessing.limiter.succeeded("alice", HERE)
    assert guessing.wait("alice", HERE) == 0


@given(st.lists(st.sampled_from(["fail", "right", "wait", "later"]), max_size=60), st.integers(0, 100))
def test_no_wait_is_longer_than_said(steps: list[str], attackers: int) -> None:
    """Whatever strangers do: the owner waits no longer than the longest delay, from wherever nobody else guesses."""
    guessing = Guessing()
    guessing.fail("alice", times=attackers)
    for step in steps:
        match step:
            case "fail":
                guessing.fail("alice")
            case "right":
                guessing.limiter.succeeded("bob", HERE)
            case "later":
                guessing.clock.advance(60)
            case _:
                wait = guessing.wait("alice", ELSEWHERE)
                assert wait is not None
                assert 0 <= wait <= RULES.longest_delay_s
    assert guessing.limiter.failed("alice", HERE) <= COUNT_LIMIT


def test_other_rules_keep_the_counts(guessing: Guessing) -> None:
    guessing.fail("alice", times=4)
    assert guessing.wait("alice", ELSEWHERE) == 2
    guessing.limiter.reconfigure(LimiterRules(failures=4, delay_s=0.5))
    assert guessing.wait("alice", ELSEWHERE) == 0.5
