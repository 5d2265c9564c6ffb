"""A planted bug: one edit of one file of the package, and the tests that must see it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "posthouse"

ASSERTIONS = frozenset({"AssertionError", "Failed"})
"""What a failing test raises when it is the test that objects; `Failed` is pytest's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """`old` stands exactly once in `file` (named from the package on) and is replaced by `new`."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    """Node ids, from `tests/` on. Each of them must fail."""
    also: tuple[tuple[str, str], ...] = ()
    """Further edits (old, new) of the same file, where two guards stand one behind the other."""
    failures: frozenset[str] = ASSERTIONS
    """Exceptions that count as a failing test; another says that it is not the bug it is meant to be."""


class Outdated(Exception):
    """The code or the tests have changed: the mutant needs to be renewed."""


def planted(mutant: Mutant) -> str:
    """The text of its file with the bug in it. Raises Outdated."""
    path = PACKAGE / mutant.file
    if not path.is_file():
        raise Outdated(f"{mutant.name}: there is no {mutant.file} any more; renew the mutant")
    text = path.read_text()
    for old, new in ((mutant.old, mutant.new), *mutant.also):
        if (count := text.count(old)) != 1:
            raise Outdated(f"{mutant.name}: its text stands {count} times in {mutant.file}, not once; renew the mutant")
        text = text.replace(old, new)
    compile(text, mutant.file, "exec")
    return text


@contextmanager
def source_with(mutant: Mutant | None) -> Iterator[Path]:
    """A folder to import `posthouse` from: links to the package as it is, but for the one file. Raises Outdated."""
    with TemporaryDirectory(prefix="posthouse-mutant-") as name:
        folder = Path(name)
        if mutant is None:
            (folder / PACKAGE.name).symlink_to(PACKAGE)
        else:
            text = planted(mutant)
            _link_around(PACKAGE, folder / PACKAGE.name, Path(mutant.file).parts)
            (folder / PACKAGE.name / mutant.file).write_text(text)
        yield folder


def _link_around(original: Path, copy: Path, parts: tuple[str, ...]) -> None:
    """Make `copy` of links to all that `original` holds, but real folders on the way to the file, and not the file."""
    copy.mkdir()
    for path in original.iterdir():
        if path.name == parts[0]:
            if len(parts) > 1:
                _link_around(path, copy / path.name, parts[1:])
        elif path.name == "__pycache__":
            # Compiled code is found beside the file that is named, so the rest of this folder keeps its own.
            (copy / path.name).mkdir()
            for compiled in path.glob("*.pyc"):
                if not compiled.name.startswith(Path(parts[0]).stem + "."):
                    shutil.copy(compiled, copy / path.name / compiled.name)
        else:
            (copy / path.name).symlink_to(path)
