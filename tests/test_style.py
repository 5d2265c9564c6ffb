"""The rules of style that no linter checks: sizes, what files may name, where tests stand."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "posthouse"
FILE_LINES = 500
FUNCTION_LINES = 60
# Folders of tests that mirror no folder of the package: they prove the whole, or serve the other tests.
OWN_FOLDERS = {
    "crash",
    "conformance",
    "documents",
    "faults",
    "house",
    "mutants",
    "end_to_end",
    "peers",
    "plugins",
    "scripts",
    "security",
    "simulation",
    "transcripts",
}
# Written in pieces, for this file is searched too.
REGISTRIES = re.compile(r"pypi" r"\.org|python" r"hosted|registry\.npm" r"js|deb\." r"debian|archive\." r"ubuntu")
MACHINE_PATHS = re.compile(r"(?<![\w.~$}/-])/(?:work|root|home)/\w")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def tracked_files() -> list[Path]:
    """The files that git knows or would take, or, outside a repository (a released archive), none."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if not (ROOT / ".git").exists():
        return []
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    return [path for name in listing.split(b"\0") if name and (path := ROOT / name.decode()).is_file()]


def functions(source: str) -> Iterator[Function]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Function):
            yield node


def lines_of(function: Function) -> int:
    """Lines from `def` to the end, without the docstring."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    docstring_lines = (first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring_lines


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_files_of_the_package_are_short() -> None:
    lines = {name_of(path): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: count for name, count in lines.items() if count > FILE_LINES} == {}


def test_functions_of_the_package_are_short() -> None:
    too_long = [
        f"{name_of(path)}:{function.lineno} {function.name}: {lines_of(function)} lines"
        for path in PACKAGE.rglob("*.py")
        for function in functions(path.read_text())
        if lines_of(function) > FUNCTION_LINES
    ]
    assert too_long == []


def test_docstring_lines_do_not_count() -> None:
    (function,) = functions('def f():\n    """One.\n\n    Two.\n    """\n    return 1\n')
    assert lines_of(function) == 2


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    found = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if REGISTRIES.search(line) or MACHINE_PATHS.search(line):
                found.append(f"{name_of(path)}:{number}: {line.strip()[:80]}")
    assert found == []


@pytest.mark.parametrize("pieces", [("https://pypi", ".org/simple"), ("'/wo", "rk/x'"), ("cp a /ro", "ot/b")])
def test_such_names_are_found(pieces: tuple[str, str]) -> None:
    text = "".join(pieces)
    assert REGISTRIES.search(text) or MACHINE_PATHS.search(text)


def test_tests_stand_where_the_package_has_a_folder() -> None:
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/**/test_*.py")}
    in_package = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert folders - in_package - OWN_FOLDERS == set()
