"""An account that sends too much: what goes beyond is held, postmaster is told, and mail of others goes on."""

from __future__ import annotations

import smtplib
import time
from pathlib import Path

import pytest

from posthouse.mail.address import parse_address
from posthouse.mail.journey import Operated
from posthouse.mail.maildrop import Listing
from posthouse.mail.queue_filter import parse_filter
from posthouse.storage.interfaces import Storage
from tests.running_house import PASSWORD, RunningHouse

LIMIT = {"recipients_per_hour": 3}


def send(house: RunningHouse, *recipients: str, door: str = "submission") -> None:
    with smtplib.SMTP("127.0.0.1", house.ports[door], timeout=20) as client:
        if door == "submission":
            client.login("ada@here.test", PASSWORD)
        client.sendmail("ada@here.test", list(recipients), b"From: ada@here.test\r\nSubject: x\r\n\r\nHello.\r\n")


def held(house: RunningHouse) -> list[str]:
    wanted = parse_filter(["held:limit", "account:ada@here.test"])
    return [str(row.forward_path) for row in house.ask(lambda storage: storage.spool.list(wanted=wanted))]


async def drop_of(storage: Storage) -> tuple[Listing, bytes]:
    """The maildrop of bob, who is postmaster, and its last entry."""
    account = await storage.directory.account("bob@here.test")
    assert account is not None
    listing = await storage.maildrops.list(account.account)
    octets = b""
    if len(listing):
        octets = b"".join([chunk async for chunk in storage.maildrops.read(account.account, listing.uids[-1])])
    return listing, octets


def told(house: RunningHouse, count: int) -> bytes:
    deadline = time.monotonic() + 20
    while len((found := house.ask(drop_of))[0]) < count:
        assert time.monotonic() < deadline
    return found[1]


def test_postmaster_is_told_of_what_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posthouse.app.TELL_EVERY_S", 0.05)
    with RunningHouse(tmp_path, postmaster="bob@here.test", reception=LIMIT) as house:
        send(house, "bob@here.test", "one@far.test", "two@far.test")
        send(house, *(f"r{number}@far.test" for number in range(4)))
        assert held(house) == ["r1@far.test", "r2@far.test", "r3@far.test"]
        notice = told(house, 2).decode()
        for part in (
            "To: <postmaster@mx.here.test>",
            "Subject: Mail of ada@here.test is held: too many recipients in an hour",
            "than it may: 3 recipients an hour.",
            "3 recipients of 1 message are held now",
            "posthouse queue release held:limit account:ada@here.test",
            "posthouse account suspend ada@here.test",
        ):
            assert part in notice
        (row, *_) = house.ask(lambda storage: storage.spool.list(wanted=parse_filter(["held:limit"])))
        events = house.ask(lambda storage: storage.journey.read(row.message.queue_id))
        assert [event.action for event in events if isinstance(event, Operated)] == ["limit"]
        # Told once, however much more comes within the hour.
        send(house, "more@far.test")
        assert "more@far.test" in held(house)
        time_for_several_rounds(house)
        assert len(house.ask(drop_of)[0]) == 2
    with RunningHouse(tmp_path, postmaster="bob@here.test", reception=LIMIT) as again:
        send(again, "late@far.test")
        assert held(again)[-1] == "late@far.test"
        time_for_several_rounds(again)
        assert len(again.ask(drop_of)[0]) == 2


def time_for_several_rounds(house: RunningHouse) -> None:
    """Wait until the house has looked again whether postmaster is to be told."""
    for _ in range(3):
        assert house.ask(lambda storage: storage.spool.over_limit(house.world.clock.now())) == ()


def test_neither_recipients_here_nor_aliases_nor_trusted_networks_are_limited(tmp_path: Path) -> None:
    async def add_list(storage: Storage) -> None:
        targets = [parse_address(f"member{number}@far.test") for number in range(9)]
        await storage.administration.add_alias(parse_address("list@here.test"), targets)

    reception = {**LIMIT, "trusted_networks": ["127.0.0.1/32"]}
    with RunningHouse(tmp_path, reception=reception) as house:
        house.ask(add_list)
        send(house, "list@here.test", "bob@here.test", "ada@here.test")
        send(house, *(f"r{number}@far.test" for number in range(9)), door="smtp")
        send(house, "one@far.test", "two@far.test", "three@far.test")
        assert held(house) == []
        send(house, "four@far.test")
        assert held(house) == ["four@far.test"]
