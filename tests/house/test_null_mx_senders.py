"""Senders whose domain takes no mail are refused at MAIL, where DNS says so for certain (RFC 7505 §4.2)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.mail.address import parse_address
from posthouse.net import sender_domains
from posthouse.net.dns import MxHost
from posthouse.world import World
from tests.fake_world import FakeResolver
from tests.house.wire import Wire
from tests.running_house import PASSWORD, RunningHouse, house_config

ADA = "ada@here.test"
NULL = (MxHost(0, ""),)
OFFICE = "127.0.0.9"
LETTER = b"Subject: hi\r\n\r\nhello\r\n"


class Names(FakeResolver):
    """`silent` domains are never answered for."""

    def __init__(self) -> None:
        # (Even of our own domains and of routed ones DNS says so: it must not be asked.)
        zones = ("null.test", "here.test", "mx.here.test", "routed.test", "broken.test", "silent.test")
        super().__init__(dict.fromkeys(zones, NULL), broken=frozenset({"broken.test"}))

    async def mail_exchangers(self, domain: str) -> tuple[MxHost, ...]:
        if domain == "silent.test":
            self.asked.append(domain)
            await asyncio.Event().wait()
        return await super().mail_exchangers(domain)


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def house(tmp_path: Path, names: Names) -> Iterator[RunningHouse]:
    with RunningHouse(
        tmp_path,
        world=World(resolver=names),
        reception={"refuse_null_mx_senders": True, "trusted_networks": [OFFICE + "/32"]},
        forwarding={"routes": {"routed.test": "127.0.0.1:1"}},
    ) as house:
        yield house


def mail(wire: Wire, sender: str) -> bytes:
    answer = wire.say(f"MAIL FROM:<{sender}>")
    wire.say("RSET")
    return answer


@pytest.mark.conformance("C208")
def test_mail_from_other_houses(house: RunningHouse, names: Names) -> None:
    refusal = b"550 5.7.27 The domain of the sender's address says that it takes no mail"
    with Wire(house.ports["smtp"]).greet() as wire:
        for sender in ("x@null.test", "X@NULL.test", "y@null.test"):
            assert mail(wire, sender) == refusal
        for sender in ("", "x@far.test", "x@broken.test", "x@[192.0.2.1]", "x@here.test", "x@routed.test"):
            assert mail(wire, sender).startswith(b"250 "), sender
        assert mail(wire, "x@mx.here.test").startswith(b"250 ")
        wire.deliver(LETTER, ADA, sender="x@far.test")
    assert names.asked == ["null.test", "far.test", "broken.test"]


@pytest.mark.conformance("C208")
def test_mail_of_users(house: RunningHouse, names: Names) -> None:
    for sender in ("ada@null.test", "ada@far.test"):
        house.ask(lambda storage, a=sender: storage.administration.add_identity(parse_address(a), ADA))
    with Wire(house.ports["submission"]).greet() as wire:
        secret = base64.b64encode(f"\0{ADA}\0{PASSWORD}".encode()).decode()
        assert wire.say(f"AUTH PLAIN {secret}").startswith(b"235 ")
        assert mail(wire, ADA).startswith(b"250 ")
        assert mail(wire, "bob@null.test").startswith(b"550 5.7.1 ")
        assert names.asked == []
        assert mail(wire, "ada@null.test").startswith(b"550 5.7.27 ")
        assert mail(wire, "ada@far.test").startswith(b"250 ")


@pytest.mark.conformance("C208")
def test_trusted_hosts_and_houses_that_do_not_look(house: RunningHouse, names: Names) -> None:
    with Wire(house.ports["smtp"], source=OFFICE).greet() as wire:
        assert mail(wire, "x@null.test").startswith(b"250 ")

    async def reload(_storage: object) -> bool:
        return house.house.reload(lambda: house_config(house.config.data_dir))

    assert house.ask(reload)
    with Wire(house.ports["smtp"]).greet() as wire:
        assert mail(wire, "x@null.test").startswith(b"250 ")
    assert names.asked == []


@pytest.mark.conformance("C208")
def test_silence_refuses_nobody(house: RunningHouse, names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_domains, "WAIT_S", 0.001)
    with Wire(house.ports["smtp"]).greet() as wire:
        for _ in range(3):
            wire.deliver(LETTER, ADA, sender="x@silent.test")
    assert names.asked == ["silent.test"]


def test_a_domain_that_becomes_ours_is_refused_no_longer(house: RunningHouse) -> None:
    with Wire(house.ports["smtp"]).greet() as wire:
        assert mail(wire, "x@null.test").startswith(b"550 5.7.27 ")
        house.ask(lambda storage: storage.administration.add_domain("null.test"))
        assert mail(wire, "x@null.test").startswith(b"250 ")
