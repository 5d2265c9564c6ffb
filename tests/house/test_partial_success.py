"""Several recipients at one host, each with an answer of its own: who has the message is never sent it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.house.far_hosts import PIPELINING, PLAIN, FarHost, FarHosts, Fault
from tests.house.test_failure_matrix import attempts, errors, house, reported, send, until_tried, waiting
from tests.running_house import RunningHouse

STYLES = {"pipelined": PIPELINING, "one by one": PLAIN}
LATER = "451 4.7.1 Greylisted"
NEVER = "550 5.1.1 No such user"
FULL = "552 5.5.3 Too many recipients"
CLOSING = "421 4.3.2 Closing"


@dataclass(frozen=True, slots=True)
class Story:
    """What a host answers the first time, and what must have become of each recipient then.

    `answers`: to the RCPT of r0, r1 …; None is consent. `end` replaces the answer at DATA or at the final dot.
    """

    answers: tuple[str | Fault | None, ...]
    delivered: str
    waits: str
    returned: str
    end: dict[str, str | Fault]
    doubled: str = ""
    recipients_limit: int | None = None

    def script(self, line: str, number: int) -> str | Fault | None:
        """The host has learned better by the second connection that has anything to say."""
        if line.startswith("RCPT TO:<r"):
            answer = self.answers[int(line[len("RCPT TO:<r") : line.index("@")])]
            return answer if number == 1 or answer == NEVER else None
        return self.end.get(line) if number == 1 else None


STORIES = {
    "some of each": Story((None, LATER, NEVER, FULL, None), "04", "13", "2", {}),
    "nobody at all": Story((NEVER, NEVER), "", "", "01", {}),
    "nobody now": Story((LATER, NEVER, LATER), "", "02", "1", {}),
    "421 in the middle": Story((None, NEVER, CLOSING, None), "", "023", "1", {}),
    "dropped in the middle": Story((None, LATER, Fault.DROP, None), "", "0123", "", {}),
    "DATA refused for now": Story((None, NEVER, LATER), "", "02", "1", {"DATA": "451 4.3.0 Not now"}),
    "DATA refused": Story((None, LATER, None), "", "1", "02", {"DATA": "554 5.7.1 Never"}),
    "content refused for now": Story((None, NEVER, LATER, None), "", "023", "1", {".": "452 4.3.1 No room"}),
    "content refused": Story((None, LATER, None), "", "1", "02", {".": "554 5.6.0 Unwanted"}),
    "552 from the eleventh on": Story((None,) * 15, "0123456789abcde", "", "", {}, recipients_limit=10),
    "lost after the dot": Story((None, LATER, None), "", "012", "", {".": Fault.DROP}, doubled="02"),
}


@pytest.fixture
def far() -> Iterator[FarHosts]:
    with FarHosts() as hosts:
        yield hosts


def people(digits: str, domain: str) -> set[str]:
    return {f"r{int(digit, 16)}@{domain}" for digit in digits}


@pytest.mark.conformance("C99", "C100", "C101", "C102", "C103")
@pytest.mark.parametrize("style", STYLES)
def test_partial_success_is_not_repeated(tmp_path: Path, far: FarHosts, style: str) -> None:
    """All stories at once; then, after a restart an hour later, whoever waits is served and nobody else."""
    hosts = {name: _host(far, f"s{number}.test", each, STYLES[style]) for number, (name, each) in _numbered()}
    with house(tmp_path, 0, far) as first:
        for number, (_name, each) in _numbered():
            send(first, b"Subject: x\r\n\r\n", *(f"r{at}@s{number}.test" for at in range(len(each.answers))))
        until_tried(first, 1)
        _check_first(first, hosts)
        returned = reported(first)
        assert errors(first) == []
    _check_leave(hosts)
    with house(tmp_path, 2, far) as second:
        until_tried(second, 2)
        assert waiting(second) == set()
        assert reported(second) == returned
        assert errors(second) == []
    for number, (name, each) in _numbered():
        domain, host = f"s{number}.test", hosts[name]
        copies = Counter({path: host.copies(path) for path in people("0123456789abcde", domain)})
        wanted = Counter(people(each.delivered + each.waits, domain)) + Counter(people(each.doubled, domain))
        assert +copies == wanted, name
        asked = {line[len("RCPT TO:<") : line.index(">")] for line in _lines(host.sessions[1:], "RCPT")}
        assert asked == people(each.waits, domain), f"{name}: who waited is asked for again, and nobody else"
        assert len(_lines(host.sessions[1:], "MAIL")) == bool(each.waits), f"{name}: one transaction for all of them"


def _numbered() -> list[tuple[int, tuple[str, Story]]]:
    return list(enumerate(STORIES.items()))


def _host(far: FarHosts, domain: str, story: Story, offers: tuple[str, ...]) -> FarHost:
    host = far.add(f"mx.{domain}", script=story.script, offers=offers)
    host.recipients_limit = story.recipients_limit
    far.mail_for(domain, host.name)
    return host


def _lines(sessions: list[list[str]], verb: str) -> list[str]:
    return [line for session in sessions for line in session if line.startswith(verb)]


def _check_first(first: RunningHouse, hosts: dict[str, FarHost]) -> None:
    waits, returned = waiting(first), reported(first)
    for number, (name, each) in _numbered():
        domain, host = f"s{number}.test", hosts[name]
        everybody = {f"r{at}@{domain}" for at in range(len(each.answers))}
        assert waits & everybody == people(each.waits, domain), name
        assert all(returned[path] == (path in people(each.returned, domain)) for path in everybody), name
        answered = {path for taken in host.taken if taken.answered for path in taken.forward_paths}
        assert answered == people(each.delivered, domain), name
        told = {path: attempts(first, path)[-1].outcome for path in everybody}
        assert {path for path, outcome in told.items() if outcome == "delivered"} == answered, name
        assert len(host.sessions) == 1, f"{name}: once is enough"


def _check_leave(hosts: dict[str, FarHost]) -> None:
    """Whoever did not throw us out was told good-bye."""
    for name, each in STORIES.items():
        (session,) = hosts[name].sessions
        if not {Fault.DROP, CLOSING} & {*each.answers, *each.end.values()}:
            assert session[-1] == "QUIT", f"{name}: {session}"
