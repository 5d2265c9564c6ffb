"""Fuzz the parsers: `scripts/fuzz [TARGET ...] [--seconds N] [--keep]`.

Each target runs in a process of its own, forked from one that has everything loaded: instrumenting takes seconds.
A finding stands in FOLDER/TARGET, beside the log, as a file that libFuzzer wrote; its octets are shown.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.engine import fuzz, instrumented

POLL_S = 0.1
STATUS = re.compile(r"#(\d+)\s+\S+\s+cov: (\d+) ft: (\d+) corp: (\d+)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one target fared. `finding`: what was written to find it again, with the end of the log."""

    name: str
    runs: int
    coverage: int
    finding: str | None


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0 when nothing was found."""
    options = _options(arguments)
    with instrumented():
        from tests.fuzz.targets import TARGETS

        unknown = set(options.targets) - set(TARGETS)
        if unknown:
            print(f"there is no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}", file=sys.stderr)
            return 2
    folder = Path(options.folder or tempfile.mkdtemp(prefix="posthouse-fuzz-"))
    print(f"seed: {options.seed}; findings and logs: {folder}", flush=True)
    outcomes = [_fuzz(name, folder / name, options.seconds, options.seed) for name in options.targets or list(TARGETS)]
    if options.keep:
        from tests.fuzz.keeping import keep

        for outcome in outcomes:
            keep(outcome.name, folder / outcome.name / "corpus")
    found = [outcome for outcome in outcomes if outcome.finding is not None]
    for outcome in found:
        print(f"\n== {outcome.name}\n{outcome.finding}")
    print(f"{len(outcomes)} targets, {sum(outcome.runs for outcome in outcomes)} inputs, {len(found)} findings")
    return int(bool(found))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Fuzz the parsers that see foreign octets.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all of them where none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--seed", type=int, default=None, help="of the fuzzer's own chance")
    parser.add_argument("--keep", action="store_true", help="add what reaches new lines to tests/fuzz/corpus")
    parser.add_argument("--folder", help="where findings and logs go")
    options = parser.parse_args(arguments)
    options.seed = options.seed if options.seed is not None else 1 + secrets.randbelow(2**31 - 1)
    return options


def _fuzz(name: str, folder: Path, seconds: int, seed: int) -> Outcome:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    child = os.fork()
    if not child:
        fuzz(name, folder, log, seconds, seed)
    started = time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        _progress(name, log, time.monotonic() - started, seconds)
        time.sleep(POLL_S)
    text = log.read_text("utf-8", "replace")
    last = (STATUS.findall(text) or [("0", "0", "0", "0")])[-1]
    failed = os.waitstatus_to_exitcode(status) != 0
    print(f"\r{name}: {last[0]} inputs, {last[1]} branches{', FINDING' if failed else ''}\033[K", flush=True)
    return Outcome(name, int(last[0]), int(last[1]), _finding(folder, text) if failed else None)


def _progress(name: str, log: Path, spent_s: float, seconds: int) -> None:
    if not sys.stdout.isatty():
        return
    told = STATUS.findall(log.read_text("utf-8", "replace")[-4000:]) if log.exists() else []
    inputs, branches = told[-1][:2] if told else ("0", "0")
    print(f"\r{name}: {spent_s:.0f} of {seconds} s, {inputs} inputs, {branches} branches\033[K", end="", flush=True)


def _finding(folder: Path, log: str) -> str:
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in ("log.txt", "words.dict")]
    inputs = "\n".join(f"{path}\n    {path.read_bytes()[:2000]!r}" for path in files)
    return f"{inputs}\n{log[log.find('Traceback') :][:6000] if 'Traceback' in log else log[-3000:]}"


if __name__ == "__main__":
    sys.exit(main())
