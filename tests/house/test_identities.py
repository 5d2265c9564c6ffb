"""Identities of other houses' domains over sockets: who sends as them, which way it leaves, where reports come."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.mail.acceptance import Destination
from posthouse.mail.address import parse_address
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import Queued
from posthouse.mail.spool import SpoolRow
from posthouse.net.dns import MxHost
from posthouse.world import World
from tests.fake_world import FakeResolver
from tests.house.test_addresses import emptied
from tests.house.test_forwarding import until_served
from tests.house.wire import Wire
from tests.running_house import PASSWORD, RunningHouse

ADA, BOB = "ada@here.test", "bob@here.test"
OWN, VIA = "Ada@provider.test", "mail.provider.test:587"
PLAIN = "ada@work.test"
LETTER = b"Subject: hi\r\n\r\nhello\r\n"
RESOLVER = FakeResolver({"null.test": (MxHost(0, ""),), "far.test": (MxHost(1, "mx.far.test"),)})


@pytest.fixture
def house(tmp_path: Path) -> Iterator[RunningHouse]:
    forwarding = {"routes": {"routed.test": "127.0.0.1:1", "intranet": "127.0.0.1:1"}, "retry": ["4h"]}
    house = RunningHouse(tmp_path, (ADA, BOB), world=World(resolver=RESOLVER), forwarding=forwarding)
    with house:
        for address, via in ((OWN, VIA), (PLAIN, "")):
            add(house, address, via)
        house.ask(lambda s: s.administration.add_alias(parse_address("away@here.test"), [parse_address("x@far.test")]))
        yield house


def add(house: RunningHouse, address: str, via: str = "", login: str = ADA) -> None:
    house.ask(lambda storage: storage.administration.add_identity(parse_address(address), login, via))


def logged_in(house: RunningHouse, person: str = ADA) -> Wire:
    wire = Wire(house.ports["submission"]).greet()
    secret = base64.b64encode(f"\0{person}\0{PASSWORD}".encode()).decode()
    assert wire.say(f"AUTH PLAIN {secret}").startswith(b"235 ")
    return wire


def waiting(house: RunningHouse, queue_id: str) -> dict[str, SpoolRow]:
    rows = house.ask(lambda storage: storage.spool.list(queue_id=QueueId(queue_id)))
    return {str(row.forward_path): row for row in rows}


def test_mail_of_an_identity_leaves_by_its_own_way(house: RunningHouse) -> None:
    with logged_in(house) as wire:
        content = f"From: Ada <{OWN}>\r\nSender: {OWN}\r\n\r\nx\r\n".encode()
        # Nobody but the provider knows whether it can take them: not our name servers, and not our routes.
        paths = ("x@far.test", "y@nowhere.test", "z@routed.test", BOB)
        queue_id = wire.deliver(content, *paths, sender=OWN)
        # A name that only our routes know is none behind another server.
        assert wire.say(f"MAIL FROM:<{OWN}>").startswith(b"250 ")
        assert wire.say("RCPT TO:<x@intranet>").startswith(b"554 5.1.2 ")
    rows = waiting(house, queue_id)
    assert {path: (row.destination, row.identity, str(row.reverse_path)) for path, row in rows.items()} == {
        path: (Destination(VIA, path.partition("@")[2]), OWN, OWN) for path in paths[:3]
    }
    (message,) = emptied(house, BOB)
    assert message.startswith(f"Return-Path: <{OWN}>\r\n".encode())
    assert message.endswith(content)
    events = house.ask(lambda storage: storage.journey.read(QueueId(queue_id)))
    assert {event.via for event in events if isinstance(event, Queued)} == {VIA}


def test_mail_of_an_alias_of_ours_leaves_by_it_too(house: RunningHouse) -> None:
    with logged_in(house) as wire:
        queue_id = wire.deliver(LETTER, "away@here.test", sender="ADA@provider.test")
    row = waiting(house, queue_id)["x@far.test"]
    assert (row.destination, row.identity) == (Destination(VIA, "far.test"), OWN)


@pytest.mark.parametrize("sender", [ADA, PLAIN, ""])
def test_other_mail_leaves_as_it_did(house: RunningHouse, sender: str) -> None:
    with logged_in(house) as wire:
        queue_id = wire.deliver(LETTER, "x@far.test", sender=sender)
        assert wire.say(f"MAIL FROM:<{sender}>").startswith(b"250 ")
        assert wire.say("RCPT TO:<x@null.test>").startswith(b"556 5.1.10 ")
        assert wire.say("RCPT TO:<x@short>").startswith(b"554 5.1.2 ")
    row = waiting(house, queue_id)["x@far.test"]
    assert (row.destination, row.identity) == (Destination("", "far.test"), None)


@pytest.mark.conformance("C115", "S11")
def test_an_identity_is_its_accounts_only(house: RunningHouse) -> None:
    with logged_in(house, BOB) as wire:
        for sender in (OWN, PLAIN, "ada+x@provider.test", "bob@provider.test"):
            assert wire.say(f"MAIL FROM:<{sender}>").startswith(b"550 5.7.1 ")
        wire.envelope(BOB, sender=BOB)
        assert wire.content(f"From: {OWN}\r\n\r\nx\r\n".encode()).startswith(b"550 5.7.1 ")


@pytest.mark.conformance("S11")
def test_a_strangers_mail_never_leaves_with_somebodys_login(house: RunningHouse) -> None:
    """Anybody can write Ada's address into MAIL, and an alias of ours sends on what comes."""
    with Wire(house.ports["smtp"]).greet() as wire:
        queue_id = wire.deliver(LETTER, "away@here.test", sender=OWN)
    row = waiting(house, queue_id)["x@far.test"]
    assert (row.destination, row.identity) == (Destination("", "far.test"), None)


def test_it_takes_effect_in_an_open_session(house: RunningHouse) -> None:
    with logged_in(house, BOB) as wire:
        assert wire.say("MAIL FROM:<bob@far.test>").startswith(b"550 5.7.1 ")
        add(house, "bob@far.test", "mail.far.test:465", BOB)
        queue_id = wire.deliver(LETTER, "x@far.test", sender="bob@far.test")
        assert waiting(house, queue_id)["x@far.test"].destination == Destination("mail.far.test:465", "far.test")
        house.ask(lambda storage: storage.administration.remove_identity(parse_address("BOB@far.test")))
        assert wire.say("MAIL FROM:<bob@far.test>").startswith(b"550 5.7.1 ")


def test_a_report_of_success_comes_to_the_account(house: RunningHouse) -> None:
    with logged_in(house) as wire:
        assert wire.say(f"MAIL FROM:<{OWN}>").startswith(b"250 ")
        assert wire.say(f"RCPT TO:<{BOB}> NOTIFY=SUCCESS").startswith(b"250 ")
        assert wire.content(LETTER).startswith(b"250 ")
    (report,) = emptied(house, ADA)
    assert report.startswith(f"Return-Path: <>\r\nDelivered-To: {OWN}\r\n".encode())
    assert b"Action: delivered\r\n" in report
    assert house.ask(lambda storage: storage.spool.count()) == 0


def test_a_report_of_failure_comes_to_the_account(tmp_path: Path) -> None:
    """It is not sent to the provider, which would get it from a stranger and from the null path."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    there = RunningHouse(tmp_path / "there", ("ada@work.test",), hostname="mx.work.test", postmaster="ada@work.test")
    with there:
        routes = {"routes": {"*": f"127.0.0.1:{there.ports['smtp']}"}}
        with RunningHouse(tmp_path / "here", forwarding=routes) as here:
            add(here, PLAIN)
            with logged_in(here) as wire:
                wire.deliver(LETTER, "nobody@work.test", sender=PLAIN)
            until_served(here)
            (report,) = emptied(here, ADA)
            assert report.startswith(f"Return-Path: <>\r\nDelivered-To: {PLAIN}\r\n".encode())
            assert b"Final-Recipient: rfc822;nobody@work.test\r\n" in report.replace(b"rfc822; ", b"rfc822;")
        assert emptied(there, "ada@work.test") == []


def test_without_its_account_it_is_nobodys(house: RunningHouse) -> None:
    with logged_in(house) as wire:
        house.ask(lambda storage: storage.administration.remove_account(ADA, keep_mail=False, now=1.0))
        assert wire.say(f"MAIL FROM:<{OWN}>")[:4] in (b"421 ", b"550 ")
    assert house.ask(lambda storage: storage.directory.identity(parse_address(OWN))) is None
