"""Which test proves which line of the requirements: reads the marks of all tests, and writes docs/conformance.md.

`--conformance write` (`scripts/test --conformance`) collects the tests, runs none, and writes the table; `--conformance
check` (`scripts/check`) fails if it is out of date, if a mark names no line, if there are too many reasons, or, where
`every_line_is_settled` says so, if a line is open.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "tests" / "conformance" / "requirements.toml"
TABLE = ROOT / "docs" / "conformance.md"
MOST_REASONS = 15

_HEAD = """# Conformance

What the protocols, and the bugs of other mail servers, ask of Posthouse, and the tests that prove it. Written by
`scripts/test --conformance` from the marks of the tests and `tests/conformance/requirements.toml`; not by hand.
Tests are named from `tests/` on. S: server at port 25, MSA: submission, C: client of SMTP, Q: queue, POP: server of
POP3, MUA: mail program, V: verifier. POL: our own policy, DEF: de facto.
"""


@dataclass(frozen=True, slots=True)
class Requirement:
    number: str
    section: str
    text: str
    source: str = ""
    level: str = ""
    who: str = ""
    later: bool = False


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a line is not met: the sentence of the design, and what follows from it."""

    design: str
    why: str


@dataclass(frozen=True, slots=True)
class Requirements:
    lines: Mapping[str, Requirement]
    reasons: Mapping[str, Reason]
    every_line_is_settled: bool


Proofs = dict[str, set[str]]
"""Number of a line → tests (`file::name`) marked with it."""


def read(octets: bytes) -> Requirements:
    data = tomllib.loads(octets.decode())
    lines = {
        number: Requirement(number, section, **fields)
        for section, rows in data["requirements"].items()
        for number, fields in rows.items()
    }
    reasons = {number: Reason(**fields) for number, fields in data.get("reasons", {}).items()}
    return Requirements(lines, reasons, data["every_line_is_settled"])


def proofs_in(items: Iterable[pytest.Item]) -> Proofs:
    """A test that is always skipped, or expected to fail, proves nothing."""
    proofs: Proofs = {}
    for item in items:
        if item.get_closest_marker("skip") or item.get_closest_marker("xfail"):
            continue
        for mark in item.iter_markers("conformance"):
            for number in mark.args:
                proofs.setdefault(number, set()).add(item.nodeid.partition("[")[0].removeprefix("tests/"))
    return proofs


def problems(requirements: Requirements, proofs: Proofs) -> Iterator[str]:
    known = requirements.lines
    for number in sorted(proofs.keys() - known.keys()):
        yield f"{number} is no requirement, but {', '.join(sorted(proofs[number]))} is marked with it"
    for number in sorted(requirements.reasons.keys() - known.keys()):
        yield f"{number} is no requirement, but has a reason"
    for number in sorted(requirements.reasons.keys() & proofs.keys()):
        yield f"{number} has a reason why it is not met, and a test that proves it"
    if len(requirements.reasons) > MOST_REASONS:
        yield f"there are {len(requirements.reasons)} reasons; {MOST_REASONS} are the most"
    if requirements.every_line_is_settled and (left := open_lines(requirements, proofs)):
        yield f"neither proven nor reasoned: {' '.join(left)}"


def open_lines(requirements: Requirements, proofs: Proofs) -> list[str]:
    settled = proofs.keys() | requirements.reasons.keys()
    return [line.number for line in requirements.lines.values() if not line.later and line.number not in settled]


def table(requirements: Requirements, proofs: Proofs) -> str:
    due = [line for line in requirements.lines.values() if not line.later]
    left = open_lines(requirements, proofs)
    reasoned = sum(line.number in requirements.reasons for line in due)
    proven = len(due) - len(left) - reasoned
    parts = [
        _HEAD,
        f"Of {len(due)} lines that are due, {proven} are proven, {reasoned} are decided otherwise by the design, and "
        f"{len(left)} are open{': ' + ' '.join(left) if left else ''}.\n",
    ]
    section = ""
    for line in requirements.lines.values():
        if line.section != section:
            section = line.section
            parts.append(f"\n## {section}\n\n| | requirement | proven by |\n|---|---|---|\n")
        proof = _proof(line, requirements.reasons.get(line.number), proofs.get(line.number, set()))
        parts.append(f"| {line.number} | {_cell(_requirement(line))} | {proof} |\n")
    return "".join(parts)


def _requirement(line: Requirement) -> str:
    source = " · ".join(filter(None, (line.source, line.level, line.who)))
    return f"{source}: {line.text}" if source else line.text


def _proof(line: Requirement, reason: Reason | None, tests: set[str]) -> str:
    if tests:
        return "<br>".join(f"`{test}`" for test in sorted(tests))
    if reason is not None:
        return _cell(f"Design: “{reason.design}” {reason.why}")
    return "later" if line.later else "**OPEN**"


def _cell(text: str) -> str:
    """Text in a cell: a `|` would end it, and a `<` outside of code begin a tag."""
    pieces = text.replace("|", "\\|").split("`")
    return "`".join(piece if at % 2 else piece.replace("<", "&lt;") for at, piece in enumerate(pieces))


# The hooks.


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--conformance", choices=["write", "check"], help="write or check docs/conformance.md; run no test"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.option.conformance:
        config.option.collectonly = True
        config.pluginmanager.register(_Collector(config.option.conformance), "conformance-collector")


class _Collector:
    """Sees all tests, those that a `-m` would leave out included."""

    def __init__(self, task: str) -> None:
        self._task = task
        self._problems: list[str] = []
        self._left: list[str] | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        if session.testsfailed:
            return  # some file could not be read, and its marks are missing
        requirements = read(REQUIREMENTS.read_bytes())
        proofs = proofs_in(items)
        self._problems = list(problems(requirements, proofs))
        new = table(requirements, proofs)
        if self._task == "write":
            TABLE.write_text(new)
        elif not TABLE.exists() or TABLE.read_text() != new:
            self._problems.append("docs/conformance.md is out of date: run scripts/test --conformance")
        self._left = open_lines(requirements, proofs)
        items.clear()  # else all of them are listed

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and self._left is not None:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED if self._problems else pytest.ExitCode.OK

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._left is not None:
            terminalreporter.line(f"conformance: {len(self._left)} lines are open")
        for problem in self._problems:
            terminalreporter.line(f"conformance: {problem}", red=True)
