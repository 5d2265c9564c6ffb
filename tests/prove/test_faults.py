"""The faults of a round follow from the seed."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from posthouse.cli import program
from posthouse.prove import faults
from posthouse.prove.faults import Family, Fault, plan, possible

EVERY = frozenset(Family)


def test_the_same_seed_plans_the_same_rounds_and_another_one_others() -> None:
    assert [plan(7, number, EVERY) for number in range(20)] == [plan(7, number, EVERY) for number in range(20)]
    assert plan(7, 1, EVERY).steps != plan(8, 1, EVERY).steps
    assert plan(7, 1, EVERY).steps != plan(7, 2, EVERY).steps


def test_every_fault_comes_and_each_where_it_fits() -> None:
    rounds = [plan(1, number, EVERY) for number in range(200)]
    assert {step.fault for each in rounds for step in each.steps} == set(Fault)
    for each in rounds:
        kinds = {step.fault for step in each.steps}
        assert (each.workers > 1) or not kinds & {Fault.KILL_WORKER, Fault.KILL_PARENT}
        assert (each.workers == 1) or Fault.FULL_DISK not in kinds
        assert all(0 < step.at_s < each.load_s for step in each.steps)


@pytest.mark.parametrize("family", Family)
def test_only_what_was_chosen_comes(family: Family) -> None:
    rounds = [plan(1, number, {family}) for number in range(30)]
    kinds = {step.fault for each in rounds for step in each.steps}
    assert kinds
    assert kinds <= set(faults._OF_FAMILY[family])
    assert any(each.ends_in_kill for each in rounds) == (family is Family.KILL)
    assert any(sum(each.shares) for each in rounds) == (family is Family.NETWORK)


def test_what_a_system_cannot_do_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    chosen, left_out = possible(EVERY)
    assert set(left_out) == {Family.WORKER, Family.DISK} == EVERY - chosen
    monkeypatch.setattr("sys.platform", "linux")
    assert possible({Family.KILL, Family.DISK}) == ({Family.KILL, Family.DISK}, {})


def test_the_help_names_what_there_is_to_choose_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(program(("prove",)), ["prove", "--help"]).stdout
    assert ",".join(Family) in shown
