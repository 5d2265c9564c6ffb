"""What of a fuzzer's inputs is worth a line in the repository: the shortest that together reach every branch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.targets import CORPUS, TARGETS, corpus, encoded

MOST_OCTETS = 400
"""Of one input. What needs more is written by hand."""
MOST_FILE_OCTETS = 6400
WATCHED = ("posthouse", "/dns/")

Step = tuple[str, int, int]


def keep(name: str, found: Path) -> None:
    """Write the corpus of a target anew, of what it had and what a fuzzer found."""
    candidates = {*corpus(name), *(path.read_bytes() for path in found.iterdir())}
    run = TARGETS[name].run
    kept: list[bytes] = []
    seen: set[Step] = set()
    size = 0
    for octets in sorted(candidates, key=lambda octets: (len(encoded(octets)), octets)):
        steps = steps_of(run, octets) - seen if len(octets) <= MOST_OCTETS else set()
        if not steps or size + len(encoded(octets)) > MOST_FILE_OCTETS:
            continue
        kept.append(octets)
        seen |= steps
        size += len(encoded(octets)) + 1
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{name}.txt").write_text("".join(f"{encoded(octets)}\n" for octets in sorted(kept)), "ascii")
    print(f"{name}: {len(kept)} inputs kept, {size} octets")


def steps_of(run: Callable[[bytes], None], octets: bytes) -> set[Step]:
    """From which line to which line the input goes, in the product's files; nothing for one that is a finding."""
    steps: set[Step] = set()
    last: dict[FrameType, int] = {}

    def trace(frame: FrameType, what: str, _argument: object) -> Callable[..., Any] | None:
        path = frame.f_code.co_filename
        if not any(part in path for part in WATCHED) or "/tests/" in path:
            return None
        if what == "line":
            steps.add((path, last.get(frame, 0), frame.f_lineno))
            last[frame] = frame.f_lineno
        elif what == "return":
            last.pop(frame, None)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run(octets)
    except Exception:
        return set()
    finally:
        sys.settrace(before)
    return steps
