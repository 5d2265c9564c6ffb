"""The map names what is there, once; the changelog says nothing twice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "posthouse"
MAP = (ROOT / "docs" / "ARCHITECTURE.md").read_text()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:[\w]+/)*\w+\.py)`", MAP))))
def test_a_file_that_the_map_names_is_there(name: str) -> None:
    assert (PACKAGE / name).exists() or (ROOT / name).exists() or list(PACKAGE.rglob(name))


def test_every_folder_stands_in_the_map_once() -> None:
    rows = [row for row in MAP.splitlines() if re.match(r"\| \d \|", row)]
    folders = [name for row in rows for name in re.findall(r"`(\w+)/`", row.split("|")[2])]
    there = [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
    assert sorted(folders) == sorted(there)


@pytest.mark.parametrize("name", ["CHANGELOG.md", "README.md", "docs/ARCHITECTURE.md", "docs/guarantees.md"])
def test_no_line_stands_twice(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text().splitlines() if len(line) > 40]
    assert len(lines) == len(set(lines))


def test_keys_stand_once_in_the_configuration() -> None:
    keys = re.findall(r"^\| `([\w.]+)` \|", (ROOT / "docs" / "configuration.md").read_text(), re.MULTILINE)
    assert len(keys) > 50
    assert len(keys) == len(set(keys))
