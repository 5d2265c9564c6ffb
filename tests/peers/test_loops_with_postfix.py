"""Two houses and a Postfix that send mail in circles: every circle ends, and the sender hears of it once."""

from __future__ import annotations

import email
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.house.wire import Wire
from tests.peers import maildrop
from tests.peers.postfix import PostfixServer
from tests.peers.programs import wait_until
from tests.running_house import RunningHouse

from posthouse.mail.address import parse_address
from posthouse.storage.interfaces import Storage

pytestmark = [pytest.mark.peers, pytest.mark.conformance("C295", "S25")]

ADA = "ada@a.test"
MOST_HOPS = 100
"""RFC 5321 §6.3."""
CIRCLES = {
    "aliases of both houses, Postfix between them": "x@a.test",
    "a domain that the house and Postfix send to each other": "who@two.test",
    "a domain that goes round through all three": "who@three.test",
    "aliases with detail": "d+0@a.test",
    "a catch-all and an alias": "anything@catch.b.test",
}


RETURNED = ("message/rfc822", "text/rfc822-headers", "message/global")


@dataclass(frozen=True, slots=True)
class Three:
    """Postfix sends a.test and two.test to A, b.test to B; A sends three.test to B, both send the rest to Postfix."""

    a: RunningHouse
    b: RunningHouse
    postfix: PostfixServer

    def wait_until_quiet(self) -> None:
        def quiet() -> bool:
            return not (maildrop.queue_length(self.a) or maildrop.queue_length(self.b) or self.postfix.queue())

        # Mail may have been between two looks.
        for _ in range(5):
            wait_until(quiet, "mail is still going round", timeout_s=90.0)


@pytest.fixture
def three(postfix: PostfixServer, tmp_path: Path) -> Iterator[Three]:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with _house(tmp_path / "b", "b", {"*": postfix.port}) as b:
        with _house(tmp_path / "a", "a", {"*": postfix.port, "three.test": b.ports["smtp"]}) as a:
            postfix.relay("b.test", b.ports["smtp"])
            postfix.relay("catch.b.test", b.ports["smtp"])
            for domain in ("a.test", "two.test", "three.test"):
                postfix.relay(domain, a.ports["smtp"])
            # So that it is we who end them.
            postfix.set("hopcount_limit", "300")
            postfix.start()
            _aliases(a, {"x@a.test": "x@b.test", "d@a.test": "d+1@b.test", "back@a.test": "c@catch.b.test"})
            _aliases(b, {"x@b.test": "x@a.test", "d@b.test": "d+2@a.test"})
            b.ask(lambda storage: storage.administration.add_domain("catch.b.test"))
            _aliases(b, {"@catch.b.test": "back@a.test"})
            yield Three(a, b, postfix)


def _house(folder: Path, name: str, routes: dict[str, int]) -> RunningHouse:
    return RunningHouse(
        folder,
        (f"ada@{name}.test",),
        hostname=f"mx.{name}.test",
        postmaster=f"ada@{name}.test",
        reception={"trusted_networks": ["127.0.0.0/8"]},
        forwarding={"routes": {key: f"127.0.0.1:{port}" for key, port in routes.items()}, "retry": ["200ms"]},
    )


def _aliases(house: RunningHouse, aliases: dict[str, str]) -> None:
    async def add(storage: Storage) -> None:
        for address, target in aliases.items():
            local_part, _, domain = address.partition("@")
            parsed = parse_address(f"x@{domain}")
            address_ = parse_address(address) if local_part else type(parsed)("", domain)
            await storage.administration.add_alias(address_, [parse_address(target)])

    house.ask(add)


def reports(house: RunningHouse, login: str) -> list[tuple[str, int]]:
    """What somebody got reports of: each message's subject, and how many Received fields it had in the end."""
    found = []
    for octets in maildrop.entries(house, login):
        message = email.message_from_bytes(octets)
        assert message.get_content_type() == "multipart/report", octets
        (returned,) = (part for part in message.walk() if part.get_content_type() in RETURNED)
        payload = returned.get_payload()
        headers = email.message_from_string(payload) if isinstance(payload, str) else payload[0]
        found.append((headers["Subject"], len(headers.get_all("Received", []))))
    return found


def test_every_circle_ends_with_one_report(three: Three) -> None:
    with Wire(three.a.ports["smtp"]) as wire:
        wire.greet()
        for circle, address in CIRCLES.items():
            wire.deliver(b"Subject: %s\r\n\r\n" % circle.encode(), address, sender=ADA)
    wait_until(lambda: maildrop.count(three.a, ADA) >= len(CIRCLES), "a circle has no end", timeout_s=90.0)
    three.wait_until_quiet()
    found = reports(three.a, ADA)
    assert Counter(subject for subject, _hops in found) == Counter(CIRCLES.keys())
    assert reports(three.b, "ada@b.test") == []
    hops = dict(found)
    assert max(hops.values()) <= MOST_HOPS
    # Nothing but their number ends these.
    assert min(hops[circle] for circle in CIRCLES if "domain" in circle) > MOST_HOPS - 3


def test_no_report_goes_round(three: Three) -> None:
    """Of the null path nothing comes back; what cannot be returned to a sender who is not there is dropped."""
    with Wire(three.a.ports["smtp"]) as wire:
        wire.greet()
        for sender in ("", "nobody@b.test", "x@b.test", "who@two.test"):
            for address in ("nobody@b.test", "x@a.test", "who@three.test"):
                wire.deliver(b"Subject: of %s\r\n\r\n" % sender.encode(), address, sender=sender)
    three.wait_until_quiet()
    assert reports(three.a, ADA) == reports(three.b, "ada@b.test") == []
