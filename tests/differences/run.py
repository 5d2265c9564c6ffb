"""Compare: `scripts/differences [--dialogues N] [--seed S] [--protocol smtp|pop3]`."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections import Counter
from collections.abc import Callable

from tests.differences import compare
from tests.differences.compare import Compared
from tests.differences.intended import CONTENT, POP3, SMTP, Intended, Rewritten
from tests.differences.pop3_dialogues import pop3_dialogue
from tests.differences.servers import PEOPLE, pop3_pair, smtp_pair
from tests.differences.smtp_dialogues import smtp_dialogue
from tests.running_house import PASSWORD

LOGINS_AT_ONCE = 40
Progress = Callable[[int, int], None]


class Result:
    """What many dialogues came to: how often each line of the table was needed, and what it does not explain."""

    def __init__(self) -> None:
        self.turns = 0
        self.used: Counter[Intended | Rewritten] = Counter()
        self.problems: list[str] = []

    def add(self, compared: Compared) -> None:
        self.turns += len(compared.dialogue.turns)
        self.used.update(compared.explained)
        self.problems += [f"{problem}\n{compared.dialogue}" for problem in compared.unexplained]


def smtp(seed: int, dialogues: int, progress: Progress | None = None) -> Result:
    """Dialogues of the seeds from `seed` on, with a house and a Postfix, and what both hold afterwards."""
    result, accepted = Result(), set[str]()
    spoken = {}
    with smtp_pair() as pair:
        for number in range(dialogues):
            dialogue = smtp_dialogue(seed + number, f"t{seed + number}")
            compared = compare.smtp(dialogue, pair.house.ports["smtp"], pair.postfix.port)
            result.add(compared)
            accepted |= compared.accepted
            spoken[dialogue.token] = dialogue
            if progress is not None:
                progress(number + 1, dialogues)
        ours, theirs = pair.held()
    for token in sorted(accepted):
        for person in PEOPLE:
            mine, other = ours.get((person, token)), theirs.get((person, token))
            rewritten = next((each for each in CONTENT if mine is not None and each.as_theirs(mine) == other), None)
            if mine != other and rewritten is not None:
                result.used[rewritten] += 1
            elif mine != other:
                pieces = (mine, other, spoken[token.partition(".")[0]])
                result.problems.append("{} of {}: ours {!r}\ntheirs {!r}\n{}".format(token, person, *pieces))
    return result


def pop3(seed: int, dialogues: int, progress: Progress | None = None) -> Result:
    """Dialogues with a house and a Dovecot, each with a maildrop of its own."""
    result = Result()
    for begin in range(0, dialogues, LOGINS_AT_ONCE):
        seeds = range(seed + begin, seed + min(begin + LOGINS_AT_ONCE, dialogues))
        logins = [f"u{each}@here.test" for each in seeds]
        with pop3_pair(logins) as pair:
            for number, (each, login) in enumerate(zip(seeds, logins, strict=True), start=begin + 1):
                dialogue = pop3_dialogue(each, login, PASSWORD)
                compared = compare.pop3(dialogue, pair.house.ports["pop3"], pair.dovecot.port)
                result.add(compared)
                ours, theirs = pair.held(login)
                # Where they parted, the rest of a group is still under way.
                if compared.whole and ours != theirs:
                    result.problems.append(f"ours holds {len(ours)}, theirs {len(theirs)}\n{dialogue}")
                if progress is not None:
                    progress(number, dialogues)
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/differences", description=__doc__)
    parser.add_argument("--dialogues", type=int, default=500, help="with each peer (500)")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--protocol", choices=("smtp", "pop3"), action="append")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else secrets.randbelow(2**31)
    problems = 0
    for protocol in options.protocol or ["smtp", "pop3"]:
        result = (smtp if protocol == "smtp" else pop3)(seed, options.dialogues, _show)
        print(f"\r{protocol}: {options.dialogues} dialogues from seed {seed}, {result.turns} answers compared\033[K")
        for intended, times in result.used.most_common():
            print(f"  {times:5} {intended.what}")
        table = (*SMTP, *CONTENT) if protocol == "smtp" else POP3
        for intended in table:
            if intended not in result.used:
                print(f"  never {intended.what}")
        for problem in result.problems:
            print(f"\nUNEXPLAINED: {problem}")
        problems += len(result.problems)
    return int(bool(problems))


def _show(done: int, of: int) -> None:
    if sys.stdout.isatty():
        print(f"\r{done} of {of} dialogues", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
