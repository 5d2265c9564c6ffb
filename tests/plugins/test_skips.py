"""Tests of the rule that a skip is a failure where nothing may be lacking."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PASSES_AND_SKIPS = """
import pytest

def test_passes():
    pass

@pytest.mark.skip(reason="no such program")
def test_skipped():
    pass
"""


def run_pytest(folder: Path, content: str, *arguments: str, ci: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "test_sample.py").write_text(content)
    command = [sys.executable, "-m", "pytest", "-p", "tests.plugins.skips", "-p", "no:cacheprovider", "--rootdir", "."]
    environment = os.environ | {"CI": ci, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.long
class TestNoSkips:
    def test_skip_is_fine_by_default(self, tmp_path: Path) -> None:
        assert run_pytest(tmp_path, PASSES_AND_SKIPS).returncode == 0

    def test_skip_fails_and_is_named_when_asked(self, tmp_path: Path) -> None:
        run = run_pytest(tmp_path, PASSES_AND_SKIPS, "--no-skips")
        assert run.returncode == 1
        assert "test_sample.py::test_skipped: Skipped: no such program" in run.stdout

    def test_ci_implies_it(self, tmp_path: Path) -> None:
        assert run_pytest(tmp_path, PASSES_AND_SKIPS, ci="true").returncode == 1

    def test_worker_processes_tell_the_same(self, tmp_path: Path) -> None:
        assert run_pytest(tmp_path, PASSES_AND_SKIPS, "--no-skips", "-n", "1").returncode == 1

    def test_a_whole_module_counts_too(self, tmp_path: Path) -> None:
        module = "import pytest\npytest.importorskip('no_such_module_at_all')\n"
        assert run_pytest(tmp_path, PASSES_AND_SKIPS + module, "--no-skips").returncode != 0

    def test_without_skips_it_passes(self, tmp_path: Path) -> None:
        assert run_pytest(tmp_path, "def test_passes(): pass", "--no-skips").returncode == 0
