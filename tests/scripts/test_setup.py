"""What `scripts/_setup` says on a machine that lacks something, and that it changes nothing there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "cat", "cksum", "cmp", "dirname", "env", "flock", "mkdir", "mv")

OLD_PYTHON = """#!/bin/sh
[ "$1" = -V ] && echo Python 3.9.2 && exit
exit 1
"""
PYTHON_WITHOUT_VENV = """#!/bin/sh
case "$*" in *ensurepip*) exit 1;; esac
exit 0
"""
# Makes an environment whose pip fails, as one without a network does.
PYTHON_WITH_FAILING_PIP = """#!/bin/sh
case "$*" in
    *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    *"-m pip"*) echo "ERROR: no matching distribution" >&2; exit 1 ;;
esac
"""


def machine(folder: Path, python: str | None) -> Path:
    """A folder with spaces in its name that holds the script, and a PATH of its own with that `python3`."""
    place = folder / "a clone"
    binaries = folder / "bin"
    (place / "scripts").mkdir(parents=True)
    binaries.mkdir()
    shutil.copy(ROOT / "scripts" / "_setup", place / "scripts")
    shutil.copy(ROOT / "pyproject.toml", place)
    shutil.copytree(ROOT / "requirements", place / "requirements")
    for tool in (*TOOLS, "cp"):
        if (path := shutil.which(tool)) is not None:
            (binaries / tool).symlink_to(path)
    if python is not None:
        (binaries / "python3").write_text(python)
        (binaries / "python3").chmod(0o755)
    return place


def set_up(place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [place / "scripts" / "_setup", "run"],
        env={"PATH": str(place.parent / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("python", "said"),
    [
        (None, "Posthouse needs Python 3.11 or newer.\n"),
        (OLD_PYTHON, "Posthouse needs Python 3.11 or newer; this machine has only Python 3.9.2.\n"),
        (
            PYTHON_WITHOUT_VENV,
            "Python's venv module is missing; on Debian and Ubuntu it is in the package python3-venv.\n",
        ),
    ],
)
def test_one_line_says_what_is_missing(tmp_path: Path, python: str | None, said: str) -> None:
    place = machine(tmp_path, python)
    run = set_up(place)
    assert (run.returncode, run.stdout, run.stderr) == (1, "", said)
    assert not (place / ".venv").exists()


def test_error_of_pip_is_shown_and_not_taken_for_done(tmp_path: Path) -> None:
    place = machine(tmp_path, PYTHON_WITH_FAILING_PIP)
    for _ in range(2):
        run = set_up(place)
        assert run.returncode == 1
        assert "ERROR: no matching distribution" in run.stderr


def test_second_start_finds_all_done(tmp_path: Path) -> None:
    works = PYTHON_WITH_FAILING_PIP.replace("exit 1", "exit 0")
    place = machine(tmp_path, works)
    assert set_up(place).stderr == "Setting up (once) …\n"
    again = set_up(place)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_changed_lock_is_installed(tmp_path: Path) -> None:
    place = machine(tmp_path, PYTHON_WITH_FAILING_PIP.replace("exit 1", "exit 0"))
    set_up(place)
    with (place / "requirements" / "run.txt").open("a") as lock:
        lock.write("# another version\n")
    assert set_up(place).stderr == "Setting up (once) …\n"
