"""How often one sender is told of failures."""

from __future__ import annotations

import pytest

from posthouse.forwarding import pace
from posthouse.forwarding.pace import ReportPace
from posthouse.mail.address import parse_address
from tests.fake_world import FakeClock

ADA, EVE = parse_address("ada@here.test"), parse_address("eve@far.test")


@pytest.mark.conformance("C191")
def test_so_many_at_once_then_in_a_line() -> None:
    clock = FakeClock()
    turns = ReportPace(clock, 6)
    assert [turns.wait_s(ADA) for _ in range(10)] == [0.0] * 6 + [10.0, 20.0, 30.0, 40.0]
    assert turns.wait_s(EVE) == 0.0, "one sender makes another one wait"


def test_whose_turn_has_come_is_told() -> None:
    clock = FakeClock()
    turns = ReportPace(clock, 6)
    waits = sorted(wait for wait in (turns.wait_s(ADA) for _ in range(20)) if wait)
    for until in waits:
        clock.steady_s = 1000.0 + until - 0.01
        assert turns.wait_s(ADA) == 0.0


def test_a_minute_of_quiet_forgets_all() -> None:
    clock = FakeClock()
    turns = ReportPace(clock, 6)
    assert [turns.wait_s(ADA) for _ in range(6)] == [0.0] * 6
    clock.advance(60.0)
    assert [turns.wait_s(ADA) for _ in range(7)] == [0.0] * 6 + [10.0]


def test_the_clock_on_the_wall_does_not_matter() -> None:
    clock = FakeClock()
    turns = ReportPace(clock, 1)
    assert turns.wait_s(ADA) == 0.0
    clock.jump(-1e6)
    assert turns.wait_s(ADA) == 60.0


def test_spellings_of_one_mailbox_are_one_sender() -> None:
    turns = ReportPace(FakeClock(), 1)
    assert turns.wait_s(ADA) == 0.0
    assert turns.wait_s(parse_address('"ADA"@Here.Test')) == 60.0


def test_few_senders_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SENDERS_LIMIT", 3)
    clock = FakeClock()
    turns = ReportPace(clock, 1)
    for name in "abcdefgh":
        assert turns.wait_s(parse_address(f"{name}@far.test")) == 0.0
    assert len(turns._senders) == 3
    assert turns.wait_s(parse_address("h@far.test")) == 60.0
    clock.advance(61.0)
    assert turns.wait_s(ADA) == 0.0
    assert len(turns._senders) == 1
