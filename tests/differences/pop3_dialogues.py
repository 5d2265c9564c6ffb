"""POP3 dialogues from a seed, about a maildrop of a few messages."""

from __future__ import annotations

import random

from tests.differences.talk import Dialogue

NUMBERS = (
    *(b"1", b"2", b"3", b"1", b"2", b"3", b"4", b"0", b"-1", b"+1", b"01", b"1x", b"x", b"", b"1 1", b"99999999999"),
    *(b"999999999999999999999999999999", b"1 ", b" 1", b"\t1", b"1\t", b"1.0"),
)
COMMANDS = (b"STAT", b"LIST", b"UIDL", b"NOOP", b"RSET", b"CAPA")
WITH_NUMBER = (b"LIST", b"UIDL", b"RETR", b"DELE", b"DELE", b"DELE")
TOPS = (
    b"1 0",
    b"1 1",
    b"2 5",
    b"3 100",
    b"1",
    b"",
    b"1 x",
    b"1 -1",
    b"4 0",
    b"0 0",
    b"1 0 0",
    b"x 0",
    b"1  1",
    b"1 01",
)
ODD = (
    *(b"", b" STAT", b"stat", b"Stat", b"STAT ", b"STAT x", b"NOOP x", b"RSET x", b"CAPA x", b"FOO", b"FOO bar"),
    *(b"APOP ada 0123456789abcdef0123456789abcdef", b"STLS", b"XTND XMIT", b"USER ada", b"PASS secret", b"AUTH PLAIN"),
    *(b"dele 1", b"retr 1", b"LAST", b"HELP", b"STAT\t", b"\xff\xfe", b"LIST\t1", b"UIDL\t1"),
)
BEFORE = (
    *(b"NOOP", b"STAT", b"CAPA", b"CAPA x", b"FOO", b"", b"PASS secret", b"USER", b"DELE 1", b"RSET", b"capa", b"LIST"),
)
CONTENTS = (
    b"Subject: one\r\n\r\nfirst\r\n.dot\r\n..\r\n.\r\nlast\r\n",
    b"Subject: two\r\nTo: x@y.test\r\n\r\n" + b"line\r\n" * 12,
    b"Subject: three\r\n",
)


def pop3_dialogue(seed: int, login: str, password: str) -> Dialogue:
    """One session of the owner of a maildrop, who nearly always logs in, and often takes leave."""
    chance = random.Random(seed)
    before = [chance.choice(BEFORE) for _ in range(chance.choice((0, 0, 0, 1, 2)))]
    entering = [b"USER " + login.encode(), b"PASS " + password.encode()]
    if chance.random() < 0.05:
        entering = [chance.choice((b"USER " + login.encode(), b"PASS " + password.encode()))]
    elif chance.random() < 0.1:
        entering = [b"USER " + login.encode(), b"PASS wrong", *entering]
    commands = [_command(chance) for _ in range(chance.randrange(1, 12))]
    leaving = [b"QUIT"] if chance.random() < 0.8 else []
    units = [line + b"\r\n" for line in (*commands, *leaving)]
    groups = [[line + b"\r\n"] for line in (*before, *entering)]
    pipelined = chance.random() < 0.4
    groups += [units] if pipelined else [[unit] for unit in units]
    return Dialogue(seed, login, groups)


def _command(chance: random.Random) -> bytes:
    kind = chance.random()
    if kind < 0.25:
        return chance.choice(COMMANDS)
    if kind < 0.7:
        return chance.choice(WITH_NUMBER) + b" " + chance.choice(NUMBERS if chance.random() < 0.4 else NUMBERS[:6])
    if kind < 0.82:
        return b"TOP " + chance.choice(TOPS)
    return chance.choice(ODD)
