"""Whom an address reaches: spellings, roles, catch-alls, the house's own address, names that look like a command."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.mail.address import Address, parse_address
from posthouse.mail.content import ContentScanner
from tests.house.wire import Wire
from tests.running_house import PASSWORD, RunningHouse

ADA, BOB = "ada@here.test", "bob@here.test"
LETTER = b"Subject: hi\r\n\r\nhello\r\n"
PEOPLE = (ADA, BOB, "j\u00fcrgen@here.test", "ada@other.test", "dan@b\u00fccher.test")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHouse]:
    house = RunningHouse(
        tmp_path_factory.mktemp("house"),
        PEOPLE,
        reception={
            "sessions_per_address": 500,
            "errors": 1000,
            "unknown_recipients": 1000,
            "roles": ["abuse", "hostmaster", "webmaster", "security"],
        },
        forwarding={"routes": {"*": "127.0.0.1:1"}, "retry": ["4h"]},
    )
    with house:
        for alias, target in ((Address("", "other.test"), BOB), (parse_address("loop@here.test"), "loop+x@here.test")):
            house.ask(lambda storage, a=alias, t=target: storage.administration.add_alias(a, [parse_address(t)]))
        yield house


def emptied(house: RunningHouse, person: str) -> list[bytes]:
    """All messages of a maildrop, which is empty after."""
    with Wire(house.ports["pop3"]) as reader:
        assert reader.line().startswith(b"+OK")
        assert reader.pop3(f"USER {person}").startswith(b"+OK")
        assert reader.pop3(f"PASS {PASSWORD}").startswith(b"+OK")
        found = [reader.retrieve(number) for number in range(1, len(reader.uidls()) + 1)]
        for number in range(1, len(found) + 1):
            assert reader.pop3(f"DELE {number}").startswith(b"+OK")
        assert reader.pop3("QUIT").startswith(b"+OK")
    return found


def reaches(house: RunningHouse, path: str, person: str) -> None:
    with Wire(house.ports["smtp"]).greet() as wire:
        queue_id = wire.deliver(LETTER, path, sender="")
    (message,) = emptied(house, person)
    assert queue_id.encode() in message


@pytest.mark.conformance("C24", "C26", "C27", "C28", "C233")
@pytest.mark.parametrize(
    ("path", "person"),
    [
        # Spellings of one local part.
        ("bob@here.test", BOB),
        ('"bob"@here.test', BOB),
        ('"b\\ob"@here.test', BOB),
        ('"\\b\\o\\b"@here.test', BOB),
        ("BOB@HERE.TEST", BOB),
        ("bob+detail@here.test", BOB),
        ('"bob+de tail"@here.test', BOB),
        ("bob++@here.test", BOB),
        # Source routes, which mean nothing.
        ("@far.test:bob@here.test", BOB),
        ("@far.test,@[192.0.2.1],@x.test:bob@here.test", BOB),
        # The house's own address.
        ("bob@[127.0.0.1]", BOB),
        ("bob+x@[127.0.0.1]", BOB),
        ('"bob"@[IPv6:::ffff:127.0.0.1]', BOB),
        # Roles, in each domain, in any case.
        ("PoStMaStEr", ADA),
        ("postmaster@here.test", ADA),
        ("Postmaster@mx.here.test", ADA),
        ("postmaster@xn--bcher-kva.test", ADA),
        ("postmaster@[127.0.0.1]", ADA),
        ("AbUsE@here.test", ADA),
        ("abuse@xn--bcher-kva.test", ADA),
        ("HostMaster@here.test", ADA),
        ("webmaster@xn--bcher-kva.test", ADA),
        ("security@here.test", ADA),
        # A catch-all has what nobody else has.
        ("anybody@other.test", BOB),
        ('"any body"@other.test', BOB),
        ('""@other.test', BOB),
        ("abuse@other.test", BOB),
        ("ada@other.test", "ada@other.test"),
        ("ada+x@other.test", "ada@other.test"),
    ],
)
def test_whom_an_address_reaches(house: RunningHouse, path: str, person: str) -> None:
    reaches(house, path, person)


@pytest.mark.conformance("C28", "C282", "S16")
@pytest.mark.parametrize(
    "path", ["u@[192.0.2.77]", "u@[IPv6:2001:db8::77]", "u@[Tag:x]", "postmaster@[192.0.2.77]", "u@[127.0.0.2]"]
)
def test_the_addresses_of_others_are_theirs(house: RunningHouse, path: str) -> None:
    with Wire(house.ports["smtp"]).greet() as wire:
        assert wire.say("MAIL FROM:<>").startswith(b"250 ")
        assert wire.say(f"RCPT TO:<{path}>").startswith(b"550 5.7.1 ")


@pytest.mark.conformance("C282", "S16")
def test_nobody_is_trusted_for_what_he_says(tmp_path: Path) -> None:
    """Only the socket's own address is in a trusted network, or is not."""
    with RunningHouse(tmp_path, reception={"trusted_networks": ["10.0.0.0/8"]}) as house:
        for line in (
            "XCLIENT ADDR=10.0.0.1 NAME=localhost",
            "XFORWARD ADDR=10.0.0.1",
            "PROXY TCP4 10.0.0.1 10.0.0.2 40000 25",
            "X-Forwarded-For: 10.0.0.1",
            "EHLO [10.0.0.1]",
        ):
            with Wire(house.ports["smtp"]).greet("[10.0.0.1]") as wire:
                assert wire.say(line)[:1] in (b"2", b"5")
                assert wire.say("MAIL FROM:<postmaster@here.test>").startswith(b"250 ")
                assert wire.say("RCPT TO:<u@far.test>").startswith(b"550 5.7.1 ")


def test_an_alias_that_only_leads_to_itself(house: RunningHouse) -> None:
    with Wire(house.ports["smtp"]).greet() as wire:
        assert wire.say("MAIL FROM:<>").startswith(b"250 ")
        assert wire.say("RCPT TO:<loop@here.test>").startswith(b"550 5.4.6 ")


@pytest.mark.conformance("C200")
def test_one_mailbox_in_nfc_and_in_both_labels(house: RunningHouse) -> None:
    """The look-up, whatever the envelope may spell: SMTPUTF8 only says who may spell it so."""
    directory = house.house.admission
    found = set()
    for spelling in ("j\u00fcrgen@here.test", "ju\u0308rgen@here.test", "J\u00fcrgen+x@here.test"):
        found |= set(house.ask(lambda _, s=spelling: directory.route(parse_address(s))).mailboxes)
    assert len(found) == 1
    domains = set()
    for spelling in ("dan@b\u00fccher.test", "dan@bu\u0308cher.test", "DAN@XN--BCHER-KVA.test", "dan@B\u00dcCHER.TEST"):
        domains |= set(house.ask(lambda _, s=spelling: directory.route(parse_address(s))).mailboxes)
    assert len(domains) == 1


# Names that elsewhere would be a path, a command, a query or a format.

NASTY = [
    "../../x", "/etc/passwd", "|cmd", ";id", "$(id)", "`id`", "%s%n", "%{login}", "{0.__class__}", "-f", "--help",
    "' OR 1=1--", "'; DROP TABLE accounts; --", "*)(uid=*", "a\\\\b", "~root", ">x", "<x", "&& reboot", "${run{x}}",
    "a b", "x\\\"y", "*", "?", "[a]", "x@far.test", "..", ".", "CON", "a,b", "a;b", "a:b", "(x)", "#", "!", "\\\\0",
]  # fmt: skip


# Few, since whoever guesses is slowed.
LOGINS = ("../../x", "' OR 1=1--", "*)(uid=*")


@pytest.mark.conformance("C284", "S9", "S10")
@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_only_a_name(house: RunningHouse, name: str) -> None:
    emptied(house, BOB)
    before = _tree(house)
    with Wire(house.ports["smtp"]).greet() as wire:
        assert wire.say(f'MAIL FROM:<"{name}"@far.test>').startswith(b"250 ")
        assert wire.say(f'RCPT TO:<"{name}"@here.test>').startswith(b"550 5.1.1 ")
        assert wire.say(f'RCPT TO:<"{name}"@other.test>').startswith(b"250 ")
        assert wire.content(LETTER).startswith(b"250 ")
        assert wire.say(f"EHLO {name.replace(' ', '')}")[:1] in (b"2", b"5")
        assert wire.say(f"VRFY {name}").startswith(b"252 ")
    if name in LOGINS:
        _is_no_login(house, name)
    (message,) = emptied(house, BOB)
    shown = message.split(b"\r\n", 2)
    assert shown[0].startswith(b"Return-Path: <")
    assert shown[1].startswith(b"Delivered-To: ")
    assert _tree(house) == before


def _is_no_login(house: RunningHouse, name: str) -> None:
    with Wire(house.ports["submission"]).greet() as wire:
        secret = base64.b64encode(f"\0{name}\0{PASSWORD}".encode()).decode()
        assert wire.say(f"AUTH PLAIN {secret}").startswith(b"535 ")
    with Wire(house.ports["pop3"]) as reader:
        assert reader.login(name).startswith(b"-ERR")


def _tree(house: RunningHouse) -> list[str]:
    """Files of the house, and its domains, people and aliases."""
    folder = house.config.data_dir
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    people = house.ask(lambda storage: storage.administration.accounts())
    aliases = house.ask(lambda storage: storage.administration.aliases())
    domains = house.ask(lambda storage: storage.administration.domains())
    return [*files, *(person.login for person in people), *map(str, aliases), *domains]


@pytest.mark.conformance("C283", "C299", "S28")
def test_no_line_of_theirs_in_our_fields_journeys_and_logs(house: RunningHouse) -> None:
    """Line ends, controls and escapes, raw and encoded, in each place where a peer may say something."""
    # Spellings of a line end: what the wire really carries (CRLF would be another command) and what only looks so.
    for end in (b"\r", b"\n", b"\0", b"\x1b[2J", b"\\r\\n", b"%0d%0a", b"+0D+0A", "\u2028".encode(), b"\x85"):
        canary = end + b"Canary: yes"
        with Wire(house.ports["smtp"]).greet() as wire:
            for line in (
                b"EHLO x" + canary,
                b"VRFY x" + canary,
                b'MAIL FROM:<"x' + canary + b'"@far.test>',
                b"MAIL FROM:<x@far.test> BODY=" + canary,
                b"MAIL FROM:<x@far.test> SIZE=1" + canary,
                b"MAIL FROM:<x@far.test> AUTH=" + canary,
                b"MAIL FROM:<x@far.test> ENVID=" + canary,
                b"MAIL FROM:<x@far.test>",
                b'RCPT TO:<"x' + canary + b'"@here.test>',
                b"RCPT TO:<bob@here.test> ORCPT=rfc822;x" + canary,
                b"RCPT TO:<bob@here.test> NOTIFY=" + canary,
                b"RCPT TO:<bob@other.test>",
            ):
                assert wire.say(line)[3:4] == b" "
            assert wire.content(LETTER).startswith(b"250 ")
    for message in emptied(house, BOB):
        scanner = ContentScanner()
        scanner.feed(message)
        assert b"\nCanary" not in message
        assert b"\x1b" not in message
        assert scanner.header.isascii()
    log = house.log.getvalue()
    assert "Canary" in log, "nothing was tried"
    assert all(line.startswith("{") for line in log.splitlines())
    assert "\x1b" not in log
    assert PASSWORD not in log


def test_mail_to_a_postmaster_whom_nobody_is_is_kept(tmp_path: Path) -> None:
    with RunningHouse(tmp_path, (BOB,), postmaster="gone@here.test") as house:
        assert house.ask(lambda storage: storage.directory.account("postmaster@mx.here.test")) is None
        with Wire(house.ports["smtp"]).greet() as wire:
            for path in ("Postmaster", "postmaster@here.test", "abuse@here.test", "postmaster@[127.0.0.1]"):
                wire.deliver(LETTER, path, sender="")
            wire.deliver(LETTER, "Postmaster", "abuse@here.test", BOB)
            assert wire.say("MAIL FROM:<>").startswith(b"250 ")
            assert wire.say("RCPT TO:<postmaster@far.test>").startswith(b"550 5.7.1 ")
        account = house.ask(lambda storage: storage.directory.account("postmaster@mx.here.test"))
        assert account is not None
        assert len(house.ask(lambda storage: storage.maildrops.list(account.account))) == 5
        assert [a.login for a in house.ask(lambda storage: storage.administration.accounts())].count(
            "postmaster@mx.here.test"
        ) == 1
        with Wire(house.ports["pop3"]) as reader:
            assert reader.login("postmaster@mx.here.test", "").startswith(b"-ERR")
