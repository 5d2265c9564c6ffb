"""`scripts/mutants [NAME ...]`: plant each mutant, or those whose name begins so, and tell which test caught it."""

from __future__ import annotations

import sys

from tests.mutants.every import EVERY
from tests.mutants.nursery import Nursery


def main(words: list[str]) -> int:
    chosen = [mutant for mutant in EVERY if not words or any(mutant.name.startswith(word) for word in words)]
    if not chosen:
        print(f"no mutant is called {' or '.join(words)}", file=sys.stderr)
        return 2
    width = max(len(mutant.name) for mutant in chosen)
    survivors = 0
    with Nursery() as nursery:
        control = nursery.look_without(test for mutant in chosen for test in mutant.tests)
        print(f"{'nothing':{width}}  {control.problem or 'every test passes'}  {control.seconds:.1f} s", flush=True)
        for mutant in chosen:
            finding = nursery.look_for(mutant)
            survivors += bool(finding.problem)
            told = f"NOT CAUGHT: {finding.problem}" if finding.problem else " ".join(mutant.tests)
            print(f"{mutant.name:{width}}  {told}  {finding.seconds:.1f} s", flush=True)
            if finding.problem and words:
                print(finding.log)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants are caught")
    return 1 if survivors or control.problem else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
