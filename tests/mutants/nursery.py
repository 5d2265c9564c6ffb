"""Plants mutants, one at a time, and says which tests saw them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.mutants.mutant import ROOT, Mutant, Outdated, source_with

_DID_NOT_END = 124
_NOTHING_COLLECTED = (4, 5)


@dataclass(frozen=True, slots=True)
class Finding:
    """`problem` is "" where every test that was named saw the mutant, and nothing else happened."""

    problem: str
    seconds: float
    log: str = ""


class Nursery:
    """Has one process that forks for each mutant. Start it with `with`."""

    def __enter__(self) -> Nursery:
        command = [sys.executable, "-m", "tests.mutants.zygote"]
        self._zygote = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.close()
        self._zygote.wait(30)
        self._zygote.stdout.close()

    def look_for(self, mutant: Mutant) -> Finding:
        """Plant it and run the tests that must see it."""
        started = time.monotonic()
        try:
            with source_with(mutant) as source:
                found = self._run(source, mutant.tests)
        except Outdated as outdated:
            return Finding(str(outdated), time.monotonic() - started)
        problems = [*_did_not_run(found, mutant.tests), *_unseen(mutant, found["outcomes"])]
        return Finding("; ".join(problems), time.monotonic() - started, found["log"])

    def look_without(self, tests: Iterable[str]) -> Finding:
        """Run tests in the same way with nothing planted: each must pass."""
        started, named = time.monotonic(), tuple(sorted(set(tests)))
        with source_with(None) as source:
            found = self._run(source, named)
        failed = [f"{test}: {was}" for test, was in found["outcomes"].items() if was != "passed"]
        return Finding("; ".join([*_did_not_run(found, named), *failed]), time.monotonic() - started, found["log"])

    def _run(self, source: Path, tests: Iterable[str]) -> dict[str, Any]:
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        asked = {"source": str(source), "tests": [f"tests/{test}" for test in tests]}
        self._zygote.stdin.write(json.dumps(asked) + "\n")
        self._zygote.stdin.flush()
        answer: dict[str, Any] = json.loads(self._zygote.stdout.readline())
        answer["outcomes"] = {name.removeprefix("tests/"): was for name, was in answer["outcomes"].items()}
        return answer


def _environment() -> dict[str, str]:
    """Nothing of the test run that we may be part of."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


def _did_not_run(found: dict[str, Any], tests: tuple[str, ...]) -> list[str]:
    if found["status"] == _DID_NOT_END:
        return ["the tests did not end"]
    if found["status"] in _NOTHING_COLLECTED:
        return [f"one of the tests is not there any more; renew the mutant: {' '.join(tests)}"]
    if found["status"] not in (0, 1):
        return [f"pytest ended with status {found['status']}"]
    return [f"{test} did not run" for test in tests if test not in found["outcomes"]]


def _unseen(mutant: Mutant, outcomes: dict[str, str]) -> list[str]:
    problems = []
    for test in mutant.tests:
        when, _, kinds = outcomes.get(test, "").partition(" ")
        if when == "passed":
            problems.append(f"{test} did not see it")
        elif when and (when != "call" or not mutant.failures.intersection(kinds.split())):
            problems.append(f"{test} did not object, but ended with {kinds or when} ({when})")
    return problems
