"""Every planted bug is seen by the tests that hold the promise which it breaks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants.every import EVERY
from tests.mutants.mutant import PACKAGE, ROOT, Mutant, Outdated, planted, source_with
from tests.mutants.nursery import Nursery

by_name = pytest.mark.parametrize("mutant", EVERY, ids=lambda mutant: mutant.name)
PROMISES = (ROOT / "docs" / "guarantees.md").read_text().partition("## Which test holds it")[2]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.mark.long
@by_name
def test_it_is_caught(nursery: Nursery, mutant: Mutant) -> None:
    finding = nursery.look_for(mutant)
    assert not finding.problem, f"{finding.problem}\n{finding.log}"


@pytest.mark.long
def test_where_nothing_is_planted_every_test_passes(nursery: Nursery) -> None:
    finding = nursery.look_without(test for mutant in EVERY for test in mutant.tests)
    assert not finding.problem, f"{finding.problem}\n{finding.log}"


@by_name
def test_its_text_stands_once_in_its_file(mutant: Mutant) -> None:
    assert planted(mutant) != (PACKAGE / mutant.file).read_text()


def test_names_are_there_once() -> None:
    names = [mutant.name for mutant in EVERY]
    assert len(names) == len(set(names))


def test_the_table_of_promises_names_every_mutant_and_no_other() -> None:
    rows = [row.split(" | ")[-1] for row in PROMISES.splitlines() if row.startswith("| ")]
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert sorted(named) == sorted(mutant.name for mutant in EVERY)


def test_tests_that_the_table_names_are_there() -> None:
    for row in PROMISES.splitlines():
        for file, name in re.findall(r"`([\w/]+\.py)::(\w+)`", row):
            assert f"def {name}(" in (ROOT / "tests" / file).read_text(), f"{file}::{name}"


@pytest.mark.parametrize("old", ["this stands nowhere", "import"])
def test_a_mutant_whose_text_is_not_there_once_is_to_be_renewed(old: str) -> None:
    with pytest.raises(Outdated, match="renew"):
        planted(replace(EVERY[0], old=old))


def test_all_but_the_one_file_is_the_package_itself() -> None:
    mutant = EVERY[0]
    with source_with(mutant) as source:
        changed = [
            path
            for path in Path(source).rglob("*.py")
            if path.read_text() != (PACKAGE / path.relative_to(source / "posthouse")).read_text()
        ]
        assert [str(path.relative_to(source / "posthouse")) for path in changed] == [mutant.file]
        assert (source / "posthouse" / "__init__.py").samefile(PACKAGE / "__init__.py")


@pytest.mark.long
def test_what_no_test_sees_is_told(nursery: Nursery) -> None:
    harmless = replace(EVERY[0], new=EVERY[0].old + " ")
    assert "did not see it" in nursery.look_for(harmless).problem
    gone = replace(EVERY[0], tests=("test_style.py::test_that_is_not_there",))
    assert "renew the mutant" in nursery.look_for(gone).problem
    other = replace(EVERY[0], failures=frozenset({"KeyError"}))
    assert "did not object" in nursery.look_for(other).problem
