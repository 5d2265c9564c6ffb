"""SMTP dialogues from a seed: right, nearly right, in the wrong order, with odd parameters, in groups."""

from __future__ import annotations

import random
from itertools import pairwise

from tests.differences.talk import Dialogue

HELLOS = (b"EHLO client.test", b"EHLO client.test", b"HELO client.test", b"EHLO [127.0.0.1]", b"EHLO", b"HELO a b")
SENDERS = (
    *(b"<ann@client.test>", b"<ann@client.test>", b"<ann@client.test>", b"<>", b"<ann+tag@client.test>"),
    *(b'<"a n"@client.test>', b"<ann@[192.0.2.1]>", b"<@a.test:ann@client.test>", b"ann@client.test", b"<ann>"),
    *(b" <ann@client.test>", b"<ann@client..test>", b"<ann@@client.test>", b"<ann@client.test", b"<a nn@client.test>"),
    *(b"<@client.test>", b"<ann@-x.test>", b"<.ann@client.test>", b"<%s@client.test>" % (b"a" * 65)),
)
RECIPIENTS = (
    *(b"<ada@here.test>", b"<ada@here.test>", b"<ada@here.test>", b"<bob@here.test>", b"<ADA@HERE.TEST>"),
    *(b"<nobody@here.test>", b"<ada@there.test>", b"<postmaster>", b"<>", b"ada@here.test", b"<ada>"),
    *(b'<"ada"@here.test>', b"<@a.test:ada@here.test>", b"<ada@here.test", b" <ada@here.test>", b"<ada@@here.test>"),
    *(b"<ada@here.test.>", b"<ada%there.test@here.test>", b"<ada here@here.test>", b'<"a d a"@here.test>'),
)
MAIL_PARAMETERS = (
    *(b"SIZE=100", b"SIZE=0", b"SIZE=99999999999", b"SIZE=x", b"SIZE", b"BODY=8BITMIME", b"BODY=7BIT", b"body=7bit"),
    *(b"BODY=BINARYMIME", b"BODY=x", b"SMTPUTF8", b"SMTPUTF8=1", b"RET=HDRS", b"RET=FULL", b"RET=x", b"ENVID=x+2By"),
    *(b"ENVID=x+zz", b"ENVID=", b"AUTH=<>", b"FOO=bar", b"FOO", b"SIZE=1 SIZE=2", b"RET=HDRS ENVID=q"),
)
RECIPIENT_PARAMETERS = (
    *(b"NOTIFY=NEVER", b"NOTIFY=FAILURE,DELAY", b"NOTIFY=NEVER,FAILURE", b"NOTIFY=x", b"NOTIFY=", b"notify=success"),
    *(b"ORCPT=rfc822;ada@here.test", b"ORCPT=rfc822;a+2Bb@x.test", b"ORCPT=ada", b"ORCPT=rfc822;a+zz", b"FOO=bar"),
)
OTHERS = (
    *(b"NOOP", b"NOOP x", b"noop", b"RSET", b"RSET x", b"RSET ", b"QUIT x", b"VRFY ada", b"VRFY", b"HELP", b"EXPN x"),
    *(b"FOO", b"", b" NOOP", b"\tNOOP", b"NOOP\t", b"STARTTLS", b"AUTH PLAIN", b"ETRN x", b"DATA x", b"MAIL", b"RCPT"),
    *(b"MAIL FROM", b"RCPT TO", b"MAIL TO:<a@b.test>", b"SEND FROM:<a@b.test>", b"TURN", b"XCLIENT NAME=x", b"BDAT"),
    *(b"BDAT x", b"BDAT 5 FIRST\r\nabcde", b"NOOP " + b"x" * 400, b"NOOP " + b"x" * 600, b"FOO\xff", b"NOOP \xff"),
    *(b"DATA", b"RCPT TO:<ada@here.test>", b"MAIL FROM:<ann@client.test>", b"EHLO again.test", b"HELO again.test"),
)
LINES = (
    *(b"Subject: odd", b"", b"text", b".", b"..", b"...", b".x", b" folded", b"\xc3\xa9\xff", b"x" * 900, b"\t"),
    *(b"From: ann@client.test", b"Received: from x by y; Mon, 1 Jan 2024 00:00:00 +0000", b"To:", b"no colon here"),
    *(b"trailing \t ", b"-- ", b"From ann", b">From ann", b"QUIT", b"DATA", b"\x01\x7f", b"MIME-Version: 1.0"),
)


def smtp_dialogue(seed: int, token: str) -> Dialogue:
    """One dialogue. The unit after DATA is content; it is said only where DATA was answered with 354."""
    chance = random.Random(seed)
    groups: list[list[bytes]] = []
    if chance.random() < 0.95:
        groups.append([_line(chance.choice(HELLOS[:3] if chance.random() < 0.85 else HELLOS))])
    for number in range(chance.randrange(1, 4)):
        groups += _transaction(chance, f"{token}.{number}")
    if chance.random() < 0.7:
        groups.append([b"QUIT\r\n"])
    return Dialogue(seed, token, groups)


def _transaction(chance: random.Random, token: str) -> list[list[bytes]]:
    units = [_mail(chance)]
    units += [_recipient(chance) for _ in range(chance.choice((0, 1, 1, 1, 2, 3)))]
    for _ in range(chance.choice((0, 0, 0, 0, 1, 2))):
        units.insert(chance.randrange(len(units) + 1), _line(chance.choice(OTHERS)))
    if chance.random() < 0.1:
        units.pop(chance.randrange(len(units)))
    content = _content(chance, token)
    ending = chance.random()
    if ending < 0.55:
        units.append(b"DATA\r\n")
        return [*_grouped(chance, units), [_dotted(content)]]
    if ending < 0.8:
        return _grouped(chance, [*units, *_chunks(chance, content)])
    return _grouped(chance, units)


def _grouped(chance: random.Random, units: list[bytes]) -> list[list[bytes]]:
    """One by one, or in groups whose last unit may be any (RFC 2920 §3.1 lets only some stand in front)."""
    if chance.random() < 0.5:
        return [[unit] for unit in units]
    groups: list[list[bytes]] = [[]]
    for unit in units:
        groups[-1].append(unit)
        verb = unit[:4].upper()
        if verb not in (b"MAIL", b"RCPT", b"RSET", b"BDAT", b"SEND") or chance.random() < 0.2:
            groups.append([])
    return [group for group in groups if group]


def _line(command: bytes) -> bytes:
    return command if command.startswith(b"BDAT 5") else command + b"\r\n"


def _mail(chance: random.Random) -> bytes:
    verb = chance.choice((b"MAIL FROM:",) * 8 + (b"mail from:", b"Mail From:"))
    path = chance.choice(SENDERS[:3] if chance.random() < 0.7 else SENDERS)
    parameters = [chance.choice(MAIL_PARAMETERS) for _ in range(chance.choice((0, 0, 0, 0, 1, 1, 2)))]
    return b" ".join([verb + path, *parameters]) + chance.choice((b"",) * 12 + (b" ", b"\t")) + b"\r\n"


def _recipient(chance: random.Random) -> bytes:
    verb = chance.choice((b"RCPT TO:",) * 8 + (b"rcpt to:", b"Rcpt To:"))
    path = chance.choice(RECIPIENTS[:4] if chance.random() < 0.7 else RECIPIENTS)
    parameters = [chance.choice(RECIPIENT_PARAMETERS) for _ in range(chance.choice((0, 0, 0, 0, 0, 1)))]
    return b" ".join([verb + path, *parameters]) + b"\r\n"


def _content(chance: random.Random, token: str) -> bytes:
    """Lines; the first names the dialogue, so that the message is found again."""
    lines = [b"X-Token: %b" % token.encode()]
    if chance.random() < 0.7:
        lines += [b"Subject: usual", b""]
    lines += [chance.choice(LINES) for _ in range(chance.randrange(8))]
    return b"".join(line + b"\r\n" for line in lines)


def _dotted(content: bytes) -> bytes:
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


def _chunks(chance: random.Random, content: bytes) -> list[bytes]:
    """Chunks end at the end of a line: what others do with a line that is cut is not what is asked here."""
    lines = content.splitlines(keepends=True)
    at = sorted({0, len(lines), *(chance.randrange(len(lines) + 1) for _ in range(chance.randrange(3)))})
    chunks = [b"".join(lines[begin:end]) for begin, end in pairwise(at)]
    units = [b"BDAT %d\r\n%b" % (len(chunk), chunk) for chunk in chunks[:-1]]
    if chance.random() < 0.15:
        return [*units, b"BDAT %d\r\n%b" % (len(chunks[-1]), chunks[-1]), b"BDAT 0 LAST\r\n"]
    return [*units, b"BDAT %d LAST\r\n%b" % (len(chunks[-1]), chunks[-1])]
