"""The corpus through each target without the fuzzer; and, in the long run, the fuzzer itself for a while."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fuzz import engine, targets
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import CORPUS, TARGETS, Target, corpus, decoded, encoded

ROOT = Path(__file__).parents[2]
CORPUS_OCTETS = 300_000
SECONDS_EACH = 1
TARGETS_EACH_RUN = 15
"""libFuzzer counts whole seconds, so each takes up to two."""


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_holds(name: str) -> None:
    for octets in (b"", *seeds(name), *corpus(name)):
        try:
            TARGETS[name].run(octets)
        except Exception as exc:
            exc.add_note(f"{name}: {octets!r}")
            raise


def test_the_corpus_is_small_and_belongs_to_targets() -> None:
    files = list(CORPUS.iterdir())
    assert {path.stem for path in files} == set(TARGETS)
    assert sum(path.stat().st_size for path in files) < CORPUS_OCTETS


@pytest.mark.parametrize("octets", [b"", b"\r\n\0\\\xff", bytes(range(256))])
def test_inputs_are_lines_of_text(octets: bytes) -> None:
    assert decoded(encoded(octets)) == octets
    assert len(encoded(octets).splitlines()) == (1 if octets else 0)


def test_a_finding_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def parser(octets: bytes) -> None:
        assert b"EHLO" not in octets

    monkeypatch.setitem(targets.TARGETS, "smtp_server", Target(parser))
    with pytest.raises(AssertionError) as told:
        test_the_corpus_holds("smtp_server")
    assert "EHLO" in told.value.__notes__[0]


@pytest.mark.long
@pytest.mark.skipif(not engine.available(), reason="there is no fuzzer for this Python and this machine")
def test_fuzzing_finds_nothing(tmp_path: Path, seed: int) -> None:
    """A second for each of some targets, which the seed chooses; `scripts/fuzz` is for more."""
    chosen = random.Random(seed).sample(list(TARGETS), TARGETS_EACH_RUN)
    command = [sys.executable, "-m", "tests.fuzz.run", f"--seconds={SECONDS_EACH}", f"--folder={tmp_path}"]
    run = subprocess.run(
        [*command, f"--seed={1 + seed % (2**31 - 1)}", *chosen],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{TARGETS_EACH_RUN} targets" in run.stdout
