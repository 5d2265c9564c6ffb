"""What a report says, for people and for programs."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from posthouse.prove.faults import Family
from posthouse.prove.ledger import Finding, Wrong
from posthouse.prove.report import Report, percentile


def report() -> Report:
    counts = Counter({"acknowledged": 1234, "unanswered": 5, "repeated here": 2})
    return Report(7, 2, counts=counts, rounds=3, checks=4, took_s=31.0, faults=Counter({"kill -9: house": 6}))


def test_five_zeros_are_said_to_be_that() -> None:
    told = "\n".join(report().lines())
    assert told.endswith("Five zeros: nothing was lost, doubled, corrupted, resurrected, or stored though refused.")
    assert "3 rounds in 31 s, seed 7, 4 checks of everything" in told
    assert "nothing was killed" in told
    for wrong in Wrong:
        assert f"  {wrong:<44} {0:>8}" in told


@pytest.mark.parametrize("wrong", Wrong)
def test_one_that_is_no_zero_fails_and_says_how_to_repeat_it(wrong: Wrong) -> None:
    failed = report()
    failed.findings.append(Finding(wrong, "this one", "ID", "entry"))
    told = "\n".join(failed.lines())
    assert failed.failed
    assert f"  {wrong:<44} {1:>8}" in told
    assert "FAILED. Repeat it with: posthouse prove --seed 7 --rounds 3" in told
    table = json.loads(json.dumps(failed.as_json()))
    assert [table[each.name.lower()] for each in Wrong] == [int(each is wrong) for each in Wrong]
    assert table["findings"] == ["this one"]


def test_a_trouble_fails_a_run_of_five_zeros() -> None:
    troubled = report()
    troubled.troubles.append("house.test ended by itself")
    assert troubled.failed
    assert troubled.as_json()["failed"]
    assert "trouble: house.test ended by itself" in troubled.lines()


def test_what_was_left_out_and_how_long_recoveries_took_is_said() -> None:
    full = report()
    full.left_out = {Family.DISK: "there is no way"}
    full.recovered_s, full.processor_s = [0.4, 0.6, 1.5], [0.3, 0.3, 0.4]
    told = "\n".join(full.lines())
    assert "disk: left out here, since there is no way" in told
    assert "a kill: p50 600 ms, p99 1.5 s (3 starts)" in told
    assert "worked for it: p50 300 ms" in told


@pytest.mark.parametrize(
    ("values", "percent", "expected"), [((), 50, None), ((3.0,), 99, 3.0), ((4, 1, 3, 2), 50, 2), (range(101), 99, 99)]
)
def test_percentiles(values: tuple[float, ...], percent: int, expected: float | None) -> None:
    assert percentile(values, percent) == expected
