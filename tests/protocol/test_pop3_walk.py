"""Random steps over POP3, well and badly formed, cut anywhere and pipelined, against a small model."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from posthouse.protocol import pop3_maildrop, pop3_server
from posthouse.protocol.pop3_top import TopCutter
from tests.protocol.pop3_house import CLEAR_OPTIONS, OPTIONS, House
from tests.protocol.pop3_model import GO_ON, PLAIN, SILENCE, Model

CONTENTS = (
    b"Subject: one\r\n\r\nfirst\r\n.dots\r\n..\r\n",
    b"Subject: two\r\n\r\nno end",
    b"Subject: no body\r\n",
    b"\r\nno header\r\n.\r\n\r\n",
    b"A: 1\r\n\r\n" + b"x\r\n" * 50,
    b"",
    b".",
    b"\r\n",
)
VERBS = (
    *("USER", "PASS", "AUTH", "STLS", "UTF8", "LANG", "CAPA", "STAT", "LIST", "UIDL", "RETR", "TOP", "DELE", "RSET"),
    *("NOOP", "QUIT", "APOP", "XYZZY", "", "RETRX", "R\u00c9TR"),
)
ARGUMENTS = (
    *(b"", b" ", b"  ", b"1 1", b"1 0", b"2 9", b"3  1", b"1 1 1", b"0", b"-1", b"+1", b" 1", b"01", b"1 ", b"9"),
    *(b"1a", b"1_0", b"\xd9\xa1", b"9" * 30, b"4294967297", b"alice", b"bob", b"secret", b"secret ", b"PLAIN", b"*"),
    *(b"plain " + PLAIN, b"PLAIN =", b"PLAIN AAAA", b"CRAM-MD5", b"en", b"EN", b"de", b"all", b"\0", b"\xff", b"a\tb"),
)
LOGIN = (b"USER alice", b"PASS secret")
JUNK = (
    b"",
    b".",
    b"\r",
    b"NOOP\rQUIT",
    b"DELE 1\nQUIT",
    b"\xff\xfe",
    b"x" * 511,
    b"NOOP" + b" " * 506,
    b"QUIT" + b"x" * 900,
)


def command(chance: random.Random) -> bytes:
    """One line without its CRLF."""
    match chance.choices(("good", "any", "junk", "sasl", "random", "quit"), (50, 30, 5, 5, 5, 1))[0]:
        case "good":
            verb = chance.choice(
                (b"LIST", b"UIDL", b"RETR", b"DELE", b"TOP", b"STAT", b"RSET", b"NOOP", b"LIST", b"DELE")
            )
            number = b" %d" % chance.randint(0, 9)
            more = b" %d" % chance.randint(0, 5) if verb == b"TOP" else b""
            line = verb + (number + more if verb in (b"RETR", b"DELE", b"TOP") or chance.random() < 0.3 else b"")
        case "any":
            verb = chance.choice(VERBS).encode()
            line = verb + chance.choice((b"", b" " + chance.choice(ARGUMENTS)))
            if verb == b"QUIT" and chance.random() < 0.7:
                line += b" later"
        case "junk":
            line = chance.choice(JUNK)
        case "sasl":
            line = chance.choice((b"AUTH PLAIN", PLAIN, b"*", b"AUTH PLAIN " + PLAIN))
        case "random":
            line = chance.randbytes(chance.randint(0, 12)).replace(b"\r\n", b"")
        case _:
            line = b"QUIT"
    if chance.random() < 0.1:
        line = (
            bytes(octet ^ 0x20 if bytes([octet]).isalpha() and chance.random() < 0.5 else octet for octet in line[:4])
            + line[4:]
        )
    return line.removesuffix(b"\r") if line.endswith(b"\r") and chance.random() < 0.5 else line


def pieces(octets: bytes, chance: random.Random) -> Iterator[bytes]:
    """Cut at random places: nowhere, anywhere, everywhere."""
    most = chance.choice((1, 3, 20, len(octets)))
    at = 0
    while at < len(octets):
        size = chance.randint(1, max(1, most))
        yield octets[at : at + size]
        at += size


class Walk:
    """One session after the other; each reply is compared, and so is what each session deleted."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.steps = 0
        self.said: list[bytes] = []
        self.seen: set[tuple[str, bytes, bool]] = set()

    def session(self, most_steps: int) -> None:
        """From the greeting to QUIT, a cut connection, or after `most_steps`."""
        contents = self.chance.choices(CONTENTS, k=self.chance.randint(0, 8))
        clear = self.chance.random() < 0.3
        self.house = House(contents, CLEAR_OPTIONS if clear else OPTIONS, chunk_octets=self.chance.choice((1, 7, 1000)))
        self.model = Model(contents, "clear" if clear else "tls")
        self.said = []
        self.heard = self.house.received()
        assert self._line().startswith(b"+OK")
        if self.chance.random() < 0.8:
            self._say([b"STLS"] if clear else [])
            self._say(list(LOGIN))
        ends = self.steps + self.chance.randint(1, most_steps)
        while self.model.state != "closed" and self.steps < ends:
            self._say([command(self.chance) for _ in range(self.chance.choice((1, 1, 2, 5, 20)))])
        if self.chance.random() < 0.5:
            self._say([b"QUIT"])
        else:
            self.house.send(b"DELE 1" if self.chance.random() < 0.5 else b"QUIT")
            self.house.send(b"")
            self.heard += self.house.received()
        assert not self.heard, f"too much was said: {self.heard!r} after {self.said}"
        assert self.house.updates == self.model.updates, self.said

    def _say(self, lines: list[bytes]) -> None:
        """A pipelined batch. What stands behind STLS must be in the same piece as its end, so that it is sent so."""
        while lines:
            batch = lines[
                : next((n for n, line in enumerate(lines, 1) if line.upper().startswith(b"STLS")), len(lines))
            ]
            del lines[: len(batch)]
            behind = self.chance.choice((b"", b"CAPA\r\n", b"x")) if batch[-1].upper().startswith(b"STLS") else b""
            octets = b"".join(line + b"\r\n" for line in batch)
            cut = [octets + behind] if behind else pieces(octets, self.chance)
            self.said += batch
            self.steps += len(batch)
            for piece in cut:
                self.house.send(piece)
            self.heard += self.house.received()
            for line in batch:
                self._compare(line, bool(behind) and line is batch[-1])
            if behind == b"x":
                self.house.send(b"\r\n")
                self.heard += self.house.received()
            if behind:
                self._compare(behind.removesuffix(b"\r\n"), False)

    def _compare(self, line: bytes, behind: bool) -> None:
        before = self.model.state
        begins, lines = self.model.answer(line, behind)
        place = f"{line!r} in {before}, after {self.said[-30:]}"
        self.seen.add((before, begins[:2], lines is not None))
        if begins == SILENCE:
            return
        said = self._line()
        assert (said + b"\r").startswith(begins), f"{said!r} to {place}"
        assert len(said) <= 510, place
        if begins != GO_ON and lines is not None:
            got = []
            while (next_line := self._line()) != b".":
                got.append(next_line.removeprefix(b"."))
            assert got == lines, place

    def _line(self) -> bytes:
        line, end, self.heard = self.heard.partition(b"\r\n")
        assert end, f"too little was said: {line!r} after {self.said[-30:]}"
        return line


def walk(seed: int, steps: int) -> Walk:
    walk = Walk(seed)
    while walk.steps < steps:
        walk.session(200)
    return walk


@pytest.mark.conformance("C237", "C239", "C242", "C243", "C245", "C246", "C247", "C249", "C250", "C259", "S37")
def test_a_short_walk() -> None:
    walked = walk(seed=1939, steps=4000)
    # It has been everywhere: each kind of answer in each state.
    kinds = {(b"+O", False), (b"+O", True), (b"-E", False)}
    assert {(begins, many) for state, begins, many in walked.seen if state == "transaction"} == kinds
    assert {(begins, many) for state, begins, many in walked.seen if state == "authorization"} == {
        *kinds,
        (b"+ ", False),
    }


@pytest.mark.long
@pytest.mark.conformance("C237", "C245", "C246", "C247", "C249", "C259", "S37")
@pytest.mark.parametrize("seed", range(20))
def test_two_hundred_thousand_steps(seed: int) -> None:
    assert walk(seed, 10_000).steps >= 10_000


# The walk can fail: each of these cores is broken in one place.

BROKEN: dict[str, Callable[[pytest.MonkeyPatch], None]] = {}


def broken(name: str, owner: Any, attribute: str, value: Any) -> None:
    BROKEN[name] = lambda patch: patch.setattr(owner, attribute, value)


def _marks_twice(self: Any, number: int) -> None:
    self._marked.add(number)
    self.octets -= self.size_octets(number) * (2 if number == 3 else 1)


def _shifted(self: Any) -> Iterator[int]:
    return iter(range(1, len(self) + 1))


def _lenient(octets: bytes) -> int | None:
    try:
        return int(octets)
    except ValueError:
        return None


def _two_answers(self: Any, argument: bytes | None) -> None:
    self._ok("")
    self._ok("")


Maildrop = pop3_maildrop.MarkedMaildrop
NOOP_TWICE = replace(pop3_server._RULES[b"NOOP"], act=_two_answers)
broken("RSET keeps the marks", Maildrop, "reset", lambda self: setattr(self, "octets", sum(self._listing.sizes_octets)))
broken("numbers shift after DELE", Maildrop, "numbers", _shifted)
broken("DELE does not mark", Maildrop, "mark", lambda self, number: None)
broken("STAT counts wrongly", Maildrop, "mark", _marks_twice)
broken("QUIT forgets a mark", Maildrop, "marked", property(lambda self: tuple(sorted(self._marked))[1:]))
broken("int() reads the numbers", pop3_maildrop, "parse_number", _lenient)
broken("NOOP is answered twice", pop3_server, "_RULES", {**pop3_server._RULES, b"NOOP": NOOP_TWICE})
broken(
    "TOP counts header lines", TopCutter, "_skip_header", lambda self, octets: setattr(self, "_in_header", False) or 0
)
broken("STLS takes what is behind it", pop3_server.LineBuffer, "__len__", lambda self: 0)
broken("LF ends a line", pop3_server, "BadLine", type("Never", (), {}))


@pytest.mark.parametrize("name", BROKEN)
def test_the_walk_finds_what_is_broken(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    BROKEN[name](monkeypatch)
    with pytest.raises((AssertionError, AttributeError, TypeError)):
        walk(seed=2449, steps=4000)
    # And it is the change that it found.
    monkeypatch.undo()
    walk(seed=2449, steps=500)
