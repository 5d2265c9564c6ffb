"""Two houses on loopback: mail goes from one to the other, and what cannot be delivered comes back."""

from __future__ import annotations

import email
import email.policy
import poplib
import smtplib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.mail.story import tell
from posthouse.net.dns import MxHost
from posthouse.storage.interfaces import Storage
from posthouse.world import World
from tests.fake_world import FakeResolver
from tests.running_house import PASSWORD, RunningHouse

THERE = ("bob@there.test",)


@pytest.fixture
def there(tmp_path: Path) -> Iterator[RunningHouse]:
    folder = tmp_path / "there"
    folder.mkdir()
    people = (*THERE, *(f"r@d{number}.test" for number in range(20)))
    with RunningHouse(folder, people, hostname="mx.there.test", postmaster="bob@there.test") as house:
        yield house


def here(tmp_path: Path, world: World | None = None, **forwarding: object) -> RunningHouse:
    folder = tmp_path / "here"
    folder.mkdir()
    return RunningHouse(folder, hostname="mx.here.test", world=world, forwarding=forwarding)


def send(house: RunningHouse, *forward_paths: str, count: int = 1) -> None:
    with smtplib.SMTP("127.0.0.1", house.ports["submission"]) as client:
        client.login("ada@here.test", PASSWORD)
        for number in range(count):
            text = f"From: ada@here.test\r\nSubject: letter {number}\r\n\r\n.Hello.\r\n"
            client.sendmail("ada@here.test", list(forward_paths), text.encode())


def until_served(house: RunningHouse) -> None:
    async def wait(storage: Storage) -> None:
        while await storage.spool.count():
            await storage.changes.wait(0.05)

    house.ask(wait)


def story(house: RunningHouse, forward_path: str) -> str:
    """What the journeys of this house say of mail to somebody."""

    async def ask(storage: Storage) -> str:
        found = await storage.journey.find(forward_path=forward_path)
        events = [event for queue_id in found for event in await storage.journey.read(queue_id)]
        return "\n".join(line.text for line in tell(events))

    return house.ask(ask)


def maildrop(house: RunningHouse, login: str, *, utf8: bool = False) -> list[tuple[str, int, bytes]]:
    """(UIDL, size in octets, content) of each entry; internationalised mail as it is only with `utf8` (RFC 6856)."""
    client = poplib.POP3("127.0.0.1", house.ports["pop3"])
    if utf8:
        client.utf8()
    client.user(login)
    client.pass_(PASSWORD)
    uidls = [line.split()[1].decode() for line in client.uidl()[1]]
    sizes = [int(line.split()[1]) for line in client.list()[1]]
    contents = [b"".join(line + b"\r\n" for line in client.retr(n + 1)[1]) for n in range(len(uidls))]
    client.quit()
    return list(zip(uidls, sizes, contents, strict=True))


def by_dns(there: RunningHouse) -> World:
    return World(
        resolver=FakeResolver({"there.test": (MxHost(10, "mx.there.test"),)}, {"mx.there.test": ("127.0.0.1",)})
    )


def test_by_route_a_letter_arrives_and_both_journeys_tell_it(tmp_path: Path, there: RunningHouse) -> None:
    with here(tmp_path, routes={"*": f"127.0.0.1:{there.ports['smtp']}"}) as house:
        send(house, "bob@there.test")
        until_served(house)
        ((uidl, size, content),) = maildrop(there, "bob@there.test")
        assert size == len(content)
        assert uidl
        letter = email.message_from_bytes(content, policy=email.policy.default)
        assert len(letter.get_all("Received", [])) == 2
        assert letter["Return-Path"] == "<ada@here.test>"
        assert content.endswith(b"\r\n\r\n.Hello.\r\n")
        assert "Accepted" in story(house, "bob@there.test")
        assert "250 2.0.0" in story(house, "bob@there.test") or "elivered" in story(house, "bob@there.test")
        assert "Put into the maildrop of bob@there.test" in story(there, "bob@there.test")


def test_by_mx_an_unknown_user_comes_back_as_a_report(tmp_path: Path, there: RunningHouse) -> None:
    options = {"port": there.ports["smtp"], "allow_private_next_hops": True}
    with here(tmp_path, by_dns(there), **options) as house:
        send(house, "nobdy@there.test", "bob@there.test")
        until_served(house)
        assert len(maildrop(there, "bob@there.test")) == 1
        ((uidl, size, content),) = maildrop(house, "ada@here.test")
        assert size == len(content)
        report = email.message_from_bytes(content, policy=email.policy.default)
        assert report.get_content_type() == "multipart/report"
        assert report["Return-Path"] == "<>"
        assert report.get_all("Received")
        status = list(report.iter_parts())[1].get_payload()
        assert status[1]["Final-Recipient"] == "rfc822; nobdy@there.test"
        assert status[1]["Action"] == "failed"
        assert "550" in status[1]["Diagnostic-Code"]
        told = story(house, "nobdy@there.test")
        assert "Failed for nobdy@there.test" in told
        assert f"in the report {uidl}" in told


def test_by_mx_private_next_hops_are_refused_where_not_allowed(tmp_path: Path, there: RunningHouse) -> None:
    with here(tmp_path, by_dns(there), port=there.ports["smtp"]) as house:
        send(house, "bob@there.test")
        until_served(house)
        assert maildrop(there, "bob@there.test") == []
        assert "private addresses" in story(house, "bob@there.test")


@pytest.mark.long
def test_two_hundred_messages_to_twenty_destinations_arrive_once(tmp_path: Path, there: RunningHouse) -> None:
    with here(tmp_path, routes={"*": f"127.0.0.1:{there.ports['smtp']}"}) as house:
        for number in range(20):
            send(house, f"r@d{number}.test", count=10)
        until_served(house)
        for number in range(20):
            letters = maildrop(there, f"r@d{number}.test")
            subjects = Counter(email.message_from_bytes(content)["Subject"] for _uidl, _size, content in letters)
            assert subjects == Counter({f"letter {each}": 1 for each in range(10)})
            assert len({uidl for uidl, _size, _content in letters}) == 10
