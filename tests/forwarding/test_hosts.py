from __future__ import annotations

from posthouse.config_values import Endpoint
from posthouse.forwarding.hosts import BUSY_S, FIRST_S, HOSTS_LIMIT, LONGEST_S, DeadHosts
from tests.fake_world import FakeClock

HOST = Endpoint("192.0.2.1", 25)


def test_a_host_that_failed_is_left_alone_for_a_while() -> None:
    clock = FakeClock()
    hosts = DeadHosts(clock)
    assert hosts.dead_for_s(HOST) == 0
    hosts.failed(HOST)
    assert hosts.dead_for_s(HOST) == FIRST_S
    assert hosts.dead_for_s(Endpoint("192.0.2.1", 26)) == 0
    clock.advance(FIRST_S - 1)
    assert hosts.dead_for_s(HOST) == 1
    clock.advance(1)
    assert hosts.dead_for_s(HOST) == 0


def test_it_is_left_alone_longer_each_time_and_asked_again_within_bounds() -> None:
    clock = FakeClock()
    hosts = DeadHosts(clock)
    waited = []
    for _ in range(8):
        hosts.failed(HOST)
        waited.append(hosts.dead_for_s(HOST))
        clock.advance(waited[-1])
    assert waited == [60, 120, 240, 480, 900, 900, 900, 900]
    assert max(waited) == LONGEST_S


def test_connections_that_fail_together_are_one_failure() -> None:
    hosts = DeadHosts(FakeClock())
    for _ in range(5):
        hosts.failed(HOST)
    assert hosts.dead_for_s(HOST) == FIRST_S


def test_an_answer_forgets_all() -> None:
    clock = FakeClock()
    hosts = DeadHosts(clock)
    hosts.failed(HOST)
    clock.advance(FIRST_S)
    hosts.answered(HOST)
    clock.advance(BUSY_S)
    hosts.failed(HOST)
    assert hosts.dead_for_s(HOST) == FIRST_S


def test_a_host_that_answers_others_is_busy_and_not_dead() -> None:
    clock = FakeClock()
    hosts = DeadHosts(clock)
    hosts.answered(HOST)
    clock.advance(BUSY_S - 1)
    hosts.failed(HOST)
    assert hosts.dead_for_s(HOST) == 0
    clock.advance(1)
    hosts.failed(HOST)
    assert hosts.dead_for_s(HOST) == FIRST_S


def test_no_clock_of_the_wall_makes_it_longer() -> None:
    clock = FakeClock()
    hosts = DeadHosts(clock)
    hosts.failed(HOST)
    clock.jump(-365 * 86400)
    assert hosts.dead_for_s(HOST) == FIRST_S


def test_memory_is_bounded() -> None:
    hosts = DeadHosts(FakeClock())
    many = [Endpoint(f"2001:db8::{number:x}", 25) for number in range(HOSTS_LIMIT + 10)]
    for host in many:
        hosts.failed(host)
    assert hosts.dead_for_s(many[9]) == 0
    assert all(hosts.dead_for_s(host) for host in many[10:])
    hosts = DeadHosts(FakeClock())
    for host in many:
        hosts.answered(host)
    for host in many:
        hosts.failed(host)
    assert all(hosts.dead_for_s(host) for host in many[:10])
    assert not any(hosts.dead_for_s(host) for host in many[10:])


def test_a_house_that_tries_again_soon_forgets_soon() -> None:
    clock = FakeClock()
    hosts = DeadHosts(clock)
    hosts.keep_within((0.2, 1.0))
    waited = []
    for _ in range(5):
        hosts.failed(HOST)
        waited.append(round(hosts.dead_for_s(HOST), 3))
        clock.advance(waited[-1])
    assert waited == [0.1, 0.2, 0.4, 0.5, 0.5]
    hosts.keep_within((300.0, 14400.0))
    hosts.answered(HOST)
    clock.advance(BUSY_S)
    hosts.failed(HOST)
    assert hosts.dead_for_s(HOST) == FIRST_S
