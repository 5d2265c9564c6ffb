"""Random dialogues, well and badly formed, pipelined and cut anywhere, against the model of `smtp_model.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from posthouse.protocol.smtp_options import ServerOptions
from tests.protocol.smtp_model import MESSAGES, RECIPIENTS, SIZE, Model, Unit
from tests.protocol.smtp_reception import Reception

TLS = ServerOptions(
    hostname="mx.test",
    message_size_octets=SIZE,
    max_recipients=RECIPIENTS,
    max_messages=MESSAGES,
    auth_mechanisms=("LOGIN",),
)
CLEAR = replace(TLS, starttls=True)
LINES = [
    Unit("EHLO", b"EHLO c.test\r\n"),
    Unit("EHLO", b"ehlo [192.0.2.1] \r\n"),
    Unit("HELO", b"HELO c.test\r\n"),
    Unit("EHLO", b"EHLO\r\n", "syntax"),
    Unit("EHLO", b"EHLO refused.test\r\n", "policy"),
    Unit("MAIL", b"MAIL FROM:<a@b.test>\r\n"),
    Unit("MAIL", b"MAIL FROM:<> SIZE=60 BODY=8BITMIME RET=FULL\r\n", extended=True),
    Unit("MAIL", b"MAIL FROM:<a@b.test> SIZE=61\r\n", "syntax"),
    Unit("MAIL", b"MAIL FROM:<x@bad.test>\r\n", "policy"),
    Unit("MAIL", b"MAIL FROM:<a@b.test\r\n", "syntax"),
    Unit("RCPT", b"RCPT TO:<c@d.test>\r\n"),
    Unit("RCPT", b"rcpt to:<postmaster>\r\n"),
    Unit("RCPT", b"RCPT TO:<nobody@d.test>\r\n", "policy"),
    Unit("RCPT", b"RCPT TO:<later@d.test>\r\n", "policy"),
    Unit("RCPT", b"RCPT TO:<d\xc3\xa9@d.test>\r\n", "syntax"),
    Unit("DATA", b"DATA\r\n"),
    Unit("DATA", b"DATA now\r\n", "syntax"),
    Unit("RSET", b"RSET\r\n"),
    Unit("RSET", b"RSET x\r\n", "syntax"),
    Unit("NOOP", b"NOOP\r\n"),
    Unit("VRFY", b"VRFY \xce\xb4\xce\xbf\xce\xba\r\n"),
    Unit("HELP", b"HELP MAIL\r\n"),
    Unit("EXPN", b"EXPN staff\r\n", "syntax"),
    Unit("QUIT", b"QUIT now\r\n", "syntax"),
    Unit("AUTH", b"AUTH LOGIN\r\n"),
    Unit("AUTH", b"AUTH LOGIN YWxpY2U=\r\n"),
    Unit("AUTH", b"AUTH PLAIN AGFsaWNlAHJpZ2h0\r\n", "syntax"),
    Unit("STARTTLS", b"STARTTLS\r\n"),
    Unit("STARTTLS", b"STARTTLS x\r\n", "syntax"),
    Unit("", b"\r\n", "syntax"),
    Unit("", b".\r\n", "syntax"),
    Unit("", b"NOOP\nRSET\r\n", "syntax"),
    Unit("", b"RSET\r\r\n", "syntax"),
    Unit("", b"NOOP" + b" x" * 300 + b"\r\n", "syntax"),
    Unit("", b"A" * 20_000 + b"\r\n", "syntax"),
]
ENDINGS = [
    Unit("QUIT", b"QUIT\r\n"),
    Unit("", b"GET / HTTP/1.1\r\n", "ends"),
    Unit("BDAT", b"BDAT x\r\n", "ends"),
    Unit("BDAT", b"BDAT 99999999999\r\n", "ends"),
]
RESPONSES = [Unit("", line + b"\r\n") for line in (b"YWxpY2U=", b"cmlnaHQ=", b"d3Jvbmc=", b"*", b"!!", b"", b"/w==")]
TEXT = [
    b"a\n.\nQUIT",
    b"a\n.",
    b"\r.\r",
    b"a",
    b"",
    b".",
    b"..x",
    b"x" * 29,
    b"REFUSE",
    b"a\nb",
    b"\r",
    b"\xff\0",
    b"MAIL FROM:<a@b.test>",
    b"QUIT",
]


def line(random: Random) -> Unit:
    pick = random.random()
    if pick < 0.01:
        return random.choice(ENDINGS)
    if pick < 0.04:
        octets = random.randbytes(random.randrange(40)).replace(b"\r\n", b"")
        return Unit("", b"\x01" + octets + b"\r\n", "syntax")
    return random.choice(LINES)


def content(random: Random) -> Unit:
    lines = random.choices(TEXT, k=random.randrange(4))
    stuffed = b"".join((b"." if each.startswith(b".") else b"") + each + b"\r\n" for each in lines)
    return Unit("CONTENT", stuffed + b".\r\n", content=b"".join(each + b"\r\n" for each in lines))


def chunk(random: Random) -> Unit:
    octets = random.choice([b"\r\n", b"", b"\n"]).join(
        random.choices([*TEXT, b"x\r\n", b"\r\n.\r\n"], k=random.randrange(3))
    )
    wrong, last = random.random() < 0.1, random.random() < 0.4
    marker = b" FIRST" if wrong else b" LAST" if last else b""
    return Unit("BDAT", b"BDAT %d%b\r\n" % (len(octets), marker) + octets, "syntax" if wrong else "", octets, last)


def next_unit(random: Random, model: Model) -> Unit:
    if model.in_data:
        return content(random)
    if model.answers is not None:
        return random.choice([*RESPONSES * 5, *LINES])
    if model.recipients and random.random() < 0.5:
        return chunk(random)
    # Along the way that leads to a message, more often than chance would.
    hints = [(not model.hello, 0), (not model.mail, 5), (not model.recipients, 10)]
    wanted = next((number for lacks, number in hints if lacks), 15)
    if random.random() < 0.4:
        return LINES[wanted]
    return chunk(random) if random.random() < 0.1 else line(random)


def send(reception: Reception, octets: bytes, random: Random) -> list[int]:
    """In pieces; the codes of the replies."""
    cuts = sorted(random.choices(range(len(octets) + 1), k=random.choice([0, 0, 1, 3])))
    for begin, end in pairwise([0, *cuts, len(octets)]):
        if begin < end:
            reception.send(octets[begin:end])
    answered = reception.received()
    lines = answered.split(b"\r\n")
    assert lines.pop() == b""
    assert all(each[:3].isdigit() and each[3:4] in (b" ", b"-") for each in lines)
    return [int(each[:3]) for each in lines if each[3:4] == b" "]


def walk(steps: int, seed: int, reception_of: Callable[[], Reception] = lambda: Reception(CLEAR)) -> int:
    """Take so many steps; return how many messages were accepted."""
    random = Random(seed)
    accepted = 0
    while steps > 0:
        model, reception = Model(), reception_of()
        reception.received()
        while not model.closed and steps > 0:
            group, taken = [], []
            for _ in range(random.choice([1, 1, 2, 5, 20])):
                group.append(next_unit(random, model))
                taken.append(model.takes(group[-1]))
                upgrades = group[-1].verb == "STARTTLS" and taken[-1] and model.answers is None
                if upgrades or model.closed:
                    break
            steps -= len(group)
            dialogue = b"".join(unit.octets for unit in group)
            codes = send(reception, dialogue, random)
            assert [200 <= code < 400 for code in codes] == taken, f"seed {seed}: {dialogue!r} was answered {codes}"
            assert [(each.content, len(each.recipients)) for each in reception.deliveries] == model.deliveries
            assert reception.ended() == model.closed
            if upgrades:
                reception.server.tls_started(TLS)
                model.begin(tls=True)
            assert (reception.mail is not None) == (model.mail and not model.closed)
        accepted += len(model.deliveries)
    return accepted


@pytest.mark.conformance("C3", "C4", "C34", "C45", "C56", "C170", "C281", "S7")
@pytest.mark.parametrize("steps", [5_000, pytest.param(200_000, marks=pytest.mark.long)])
def test_no_content_without_envelope_and_one_reply_for_each_command(steps: int, seed: int) -> None:
    assert walk(steps, seed) > steps // 100
