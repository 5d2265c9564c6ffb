"""Text of strangers stays text: from paths, names and logins it reaches no shell, query, file, log line or field."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

import pytest

from posthouse.mail.story import tell
from posthouse.storage.interfaces import Storage
from tests.house.wire import Wire
from tests.running_house import PASSWORD, RunningHouse

ADA, BOB = "ada@here.test", "bob@here.test"
CANARY = "canary"
LETTER = b"From: ada@here.test\r\nSubject: hi\r\n\r\nhello\r\n"
_TOUCH = "touch${IFS}canary"
PAYLOADS = (
    *(
        "|touch canary",
        ";touch canary",
        "`touch canary`",
        "$(touch canary)",
        "&&touch canary",
        f";{_TOUCH};",
        "\ntouch canary",
    ),
    *(
        "> canary",
        "-oQcanary",
        "-Xcanary",
        "--canary",
        "-",
        "--",
        "${run{touch canary}}",
        "${env:HOME}",
        "$HOME",
        "~root",
    ),
    *(
        "../../canary",
        "..%2f..%2fcanary",
        "/etc/passwd",
        "/dev/stdin",
        ".",
        "..",
        "canary/..",
        "\\\\x\\canary",
        "con",
        "a/b",
    ),
    *(
        "' OR '1'='1",
        "' OR 1=1--",
        "'; DROP TABLE account;--",
        '" OR ""="',
        "1; ATTACH 'canary' AS x",
        "%' --",
        "_",
        "%",
    ),
    *("*)(uid=*", "*", "admin*", ")(|(cn=*", "{0.__class__}", "{{7*7}}", "%s%s%n", "%(canary)s", "%{canary}", "%n%n"),
    *(
        "\x1b[2Jcanary",
        "\x1b]0;canary\x07",
        "a\x00canary",
        "\x7f",
        "__proto__",
        "__class__",
        "null",
        "undefined",
        "NaN",
    ),
    *(
        "a\r\nX-Canary: 1",
        "a\rX-Canary: 1",
        "%0d%0aX-Canary: 1",
        "+0D+0AX-Canary: 1",
        "=0D=0A",
        "a,b@here.test",
        "<x>",
        "a b",
    ),
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    folder = tmp_path_factory.mktemp("house")
    limits = {"sessions_per_address": 500, "errors": 100_000}
    with RunningHouse(folder, reception=limits) as running:
        yield running


def tree(house: RunningHouse) -> list[str]:
    """What stands in the folder of the house, and beside it."""
    top = house.config.data_dir
    return sorted(str(path.relative_to(top.parent)) for path in [*top.parent.iterdir(), *top.rglob("*")])


def directory(house: RunningHouse) -> list[object]:
    async def ask(storage: Storage) -> list[object]:
        return [await storage.directory.account(person) for person in (ADA, BOB)]

    return house.ask(ask)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def lines_of(text: str) -> list[str]:
    """A CR or LF in a payload makes several commands of it; that is the client's own affair, and no injection."""
    return [line for line in re.split(r"[\r\n]+", text) if line]


@pytest.mark.long
@pytest.mark.conformance("C284", "S9", "S10")
def test_nothing_in_a_name_is_ever_done(house: RunningHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where a command of a stranger would leave its file
    before, accounts = tree(house), directory(house)
    texts = [line for payload in PAYLOADS for line in lines_of(payload)]
    for text in texts:
        _smtp_with(house, text)
    # Who fails to log in is slowed: each comes from elsewhere, and all of them wait at the same time.
    with ThreadPoolExecutor(len(texts)) as strangers:
        list(strangers.map(_logins_with, repeat(house), texts, (f"127.{n + 1}.3.3" for n in range(len(texts)))))
    assert list(tmp_path.iterdir()) == []
    assert [name for name in tree(house) if CANARY in name] == []
    assert set(tree(house)) - set(before) == set()
    assert directory(house) == accounts
    assert house.ask(lambda storage: storage.spool.count()) == 0
    with Wire(house.ports["pop3"]) as wire:
        assert wire.login(ADA).startswith(b"+OK")
        assert wire.pop3("STAT") == b"+OK 0 0"
        assert wire.pop3("QUIT").startswith(b"+OK")


def _smtp_with(house: RunningHouse, text: str) -> None:
    with Wire(house.ports["smtp"]) as wire:
        assert wire.reply().startswith(b"220 ")
        wire.say(f"EHLO {text}")
        wire.say(f"VRFY {text}")
        wire.say(f"ETRN {text}")
        assert wire.say("EHLO client.test").startswith(b"250 ")
        for path in (text, f"{text}@here.test", f"{quoted(text)}@here.test", f"a@{text}"):
            if wire.say(f"MAIL FROM:<{path}>").startswith(b"250 "):
                assert wire.say("RSET").startswith(b"250 ")
        assert wire.say("MAIL FROM:<>").startswith(b"250 ")
        for path in (text, f"{text}@here.test", f"{quoted(text)}@here.test", f"a@{text}", f"{quoted(text)}@far.test"):
            assert wire.say(f"RCPT TO:<{path}>")[:1] in (b"4", b"5"), path
        assert wire.say("DATA")[:1] == b"5"


def _logins_with(house: RunningHouse, text: str, source: str) -> None:
    token = base64.b64encode(f"\0{text}\0{text}".encode()).decode()
    with Wire(house.ports["submission"], source=source).greet() as wire:
        assert wire.say(f"AUTH PLAIN {token}")[:1] in (b"4", b"5")
    with Wire(house.ports["pop3"], source=source) as wire:
        assert wire.line().startswith(b"+OK")
        wire.pop3(f"USER {text}")
        assert wire.pop3(f"PASS {text}").startswith(b"-ERR")


# What we write ourselves: header fields, journeys, logs.

HOSTILE = (
    "EHLO client.test\x0bX-Canary: 1",
    "EHLO client.test\x1b[31m",
    'MAIL FROM:<"a\\\x0bX-Canary: 1"@far.test>',
    "MAIL FROM:<a@far.test> AUTH=a+0D+0AX-Canary:+201",
    "MAIL FROM:<a@far.test> AUTH=a+00b",
    "MAIL FROM:<a@far.test> ENVID=x+0D+0AX-Canary:+201",
    "MAIL FROM:<a@far.test> ENVID=x+00",
    "MAIL FROM:<a@far.test> BODY=8BITMIME%0d%0aX-Canary:",
    "MAIL FROM:<a@far.test> RET=HDRS+0D+0A",
    "MAIL FROM:<a@far.test> SIZE=1+0A",
    "RCPT TO:<bob@here.test> ORCPT=rfc822;x+0D+0AX-Canary:+201",
    "RCPT TO:<bob@here.test> ORCPT=rfc822;x+00",
    "RCPT TO:<bob@here.test> ORCPT=rfc822+0A;x",
    "RCPT TO:<bob@here.test> NOTIFY=NEVER+0D+0A",
    'RCPT TO:<"bob\\\x0aX-Canary: 1"@here.test>',
    "RCPT TO:<bob%0d%0aX-Canary: 1@here.test>",
)


@pytest.mark.conformance("C283", "S8", "S18")
def test_no_parameter_becomes_a_line_of_ours(house: RunningHouse) -> None:
    """Each is refused, or is one octet string among others; no field and no event line begins with it."""
    with Wire(house.ports["smtp"]) as wire:
        assert wire.reply().startswith(b"220 ")
        for hello in ("client.test", "[IPv6:::1]", "x" * 60 + ".test"):
            assert wire.say(f"EHLO {hello}").startswith(b"250 ")
            for line in HOSTILE:
                wire.say("RSET")
                if line.startswith("RCPT"):
                    assert wire.say("MAIL FROM:<a@far.test>").startswith(b"250 ")
                wire.say(line.encode())
            wire.say("RSET")
            wire.deliver(LETTER, BOB, sender='"a b\\"c"@far.test')
    with Wire(house.ports["pop3"]) as wire:
        assert wire.login(BOB).startswith(b"+OK")
        messages = [wire.retrieve(number + 1) for number in range(len(wire.uidls()))]
        assert wire.pop3("QUIT").startswith(b"+OK")
    assert len(messages) >= 3
    for message in messages:
        assert not re.search(rb"(?mi)^X-Canary", message)
        assert message.count(b"\r\n") == message.count(b"\n") == message.count(b"\r")


@pytest.mark.conformance("C299", "S28")
def test_the_log_holds_one_event_in_each_line_and_no_secret(house: RunningHouse) -> None:
    start = len(house.log.getvalue())
    password = "sesame-canary-9"
    tokens = [base64.b64encode(f"\0{person}\0{password}".encode()).decode() for person in (ADA, "nobody@here.test")]
    with Wire(house.ports["submission"]) as wire:
        assert wire.reply().startswith(b"220 ")
        for line in HOSTILE:
            wire.say(line.encode())
        wire.say("EHLO client.test")
        assert wire.say(f"AUTH PLAIN {tokens[0]} extra")[:1] == b"5"
        assert wire.say("AUTH PLAIN").startswith(b"334 ")
        assert wire.say(tokens[0])[:1] in (b"4", b"5")
        wire.say(f"PASS {password}")
        wire.say(b"MAIL FROM:<" + b"n" * 60 + b"\x1b[31m\x07\xff\0\x0b\x85@far.test>")
        assert wire.say(f"AUTH PLAIN {tokens[1]}")[:1] in (b"4", b"5")
    with Wire(house.ports["pop3"]) as wire:
        assert wire.login(ADA, password).startswith(b"-ERR")
        wire.pop3(f"USER {ADA}\x1b[31m")
        wire.pop3(b"USER \xff\x00\x0b\x85" + password.encode())
    with Wire(house.ports["smtp"]) as wire:
        wire.greet().deliver(b"Subject: canary-in-content\x1b[31m\r\n\r\nsecret-canary-content\r\n", BOB)
    house.ask(_nothing)
    log = house.log.getvalue()[start:]
    for line in log.splitlines():
        assert line.isprintable(), line
        assert "event" in json.loads(line)
    for secret in (password, *tokens, PASSWORD, "canary-content", "canary-in-content"):
        assert secret not in log, secret


async def _nothing(storage: Storage) -> None:
    """Whatever the house logged before has been written when this was done."""


@pytest.mark.conformance("C283", "C299")
def test_a_journey_tells_one_thing_in_each_line(house: RunningHouse) -> None:
    with Wire(house.ports["smtp"]) as wire:
        queue_id = wire.greet("x" * 200 + ".test").deliver(LETTER, BOB, sender='"\\a \\\\ \\""@far.test')

    async def ask(storage: Storage) -> list[str]:
        ids = [found for found in await storage.journey.find(forward_path=BOB) if str(found) == queue_id]
        return [line.text for found in ids for line in tell(await storage.journey.read(found))]

    told = house.ask(ask)
    assert told
    assert all(line.isprintable() for line in told)


def test_there_are_sixty_payloads() -> None:
    assert len(set(PAYLOADS)) >= 60
    assert os.sep in "".join(PAYLOADS)
