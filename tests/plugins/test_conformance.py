"""Tests of the table of conformance: what is proven, what is open, and what is wrong with marks and reasons."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.plugins import conformance

ROOT = Path(__file__).resolve().parents[2]

DATA = """
every_line_is_settled = false
[requirements."A. Lines"]
C1 = { source = "RFC 1 §2", level = "MUST", who = "S", text = "says `<x>` | <y>" }
C2 = { text = "two" }
C3 = { later = true, text = "three" }
[reasons]
C2 = { design = "Not two.", why = "So it is one." }
"""

MARKED = """
import pytest

@pytest.mark.conformance("C1", "C4")
class TestOne:
    @pytest.mark.parametrize("x", [1, 2])
    def test_a(self, x): pass

@pytest.mark.skip(reason="never")
@pytest.mark.conformance("C5")
def test_b(): pass
"""


def requirements(data: str = DATA) -> conformance.Requirements:
    return conformance.read(data.encode())


def test_a_line_is_proven_reasoned_open_or_later() -> None:
    rows = conformance.table(requirements(), {"C1": {"x/test_y.py::test_b", "x/test_y.py::test_a"}}).splitlines()
    assert (
        "| C1 | RFC 1 §2 · MUST · S: says `<x>` \\| &lt;y> | `x/test_y.py::test_a`<br>`x/test_y.py::test_b` |" in rows
    )
    assert "| C2 | two | Design: “Not two.” So it is one. |" in rows
    assert "| C3 | three | later |" in rows
    assert "| C1 | RFC 1 §2 · MUST · S: says `<x>` \\| &lt;y> | **OPEN** |" in conformance.table(requirements(), {})


def test_open_lines_are_those_that_are_due() -> None:
    assert conformance.open_lines(requirements(), {}) == ["C1"]
    assert conformance.open_lines(requirements(), {"C1": {"t"}}) == []


@pytest.mark.parametrize(
    ("data", "proofs", "problem"),
    [
        (DATA, {"C9": {"t"}}, "C9 is no requirement, but t is marked"),
        (DATA + 'C9 = { design = "", why = "" }', {}, "C9 is no requirement, but has a reason"),
        (DATA, {"C2": {"t"}}, "C2 has a reason why it is not met, and a test"),
        (DATA.replace("= false", "= true"), {}, "neither proven nor reasoned: C1"),
    ],
)
def test_what_is_wrong(data: str, proofs: conformance.Proofs, problem: str) -> None:
    (found,) = conformance.problems(requirements(data), proofs)
    assert found.startswith(problem)


def test_sixteen_reasons_are_too_many() -> None:
    lines = "".join(f'D{n} = {{ text = "x" }}\n' for n in range(16))
    reasons = "".join(f'D{n} = {{ design = "x", why = "y" }}\n' for n in range(16))
    data = f'every_line_is_settled = true\n[requirements."A"]\n{lines}[reasons]\n{reasons}'
    (found,) = conformance.problems(requirements(data), {})
    assert found == "there are 16 reasons; 15 are the most"


def test_an_open_line_alone_is_no_problem_yet() -> None:
    assert list(conformance.problems(requirements(), {})) == []


def test_the_requirements_can_be_read_and_every_number_stands_once() -> None:
    octets = conformance.REQUIREMENTS.read_bytes()
    found = conformance.read(octets)
    assert sum(not line.later for line in found.lines.values()) >= 309
    assert [number for number in found.lines if number.startswith("C")] == [f"C{n}" for n in range(1, 319)]


@pytest.mark.long
def test_marks_are_collected_from_classes_and_not_from_what_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text(MARKED)
    script = (
        "import pytest, sys\n"
        "from tests.plugins import conformance\n"
        "class P:\n"
        "    def pytest_collection_modifyitems(self, items):\n"
        "        print('found', sorted((k, sorted(v)) for k, v in conformance.proofs_in(items).items()))\n"
        "pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', '--rootdir', '.', 'tests'], plugins=[P()])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{script}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "found [('C1', ['test_x.py::TestOne::test_a']), ('C4', ['test_x.py::TestOne::test_a'])]" in run.stdout, run
