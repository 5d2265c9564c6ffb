"""An identity's mail through its provider: a second house that takes it at its submission door, with a login."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.mail.address import parse_address
from tests.house.test_addresses import emptied
from tests.house.test_forwarding import until_served
from tests.house.wire import Wire
from tests.running_house import PASSWORD, RunningHouse

pytest.importorskip("posthouse.config_forwarding", reason="logins at next hops are not there yet")

ADA, OWN, CY = "ada@here.test", "ada@provider.test", "cy@provider.test"
LETTER = b"From: ada@provider.test\r\nSubject: hi\r\n\r\nhello\r\n"


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[RunningHouse]:
    (tmp_path / "provider").mkdir()
    people = (OWN, CY)
    with RunningHouse(tmp_path / "provider", people, hostname="mx.provider.test", postmaster=OWN) as house:
        yield house


@pytest.fixture
def here(tmp_path: Path, provider: RunningHouse) -> Iterator[RunningHouse]:
    (tmp_path / "here").mkdir()
    via = f"127.0.0.1:{provider.ports['submission']}"
    password = tmp_path / "here" / "provider.password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    # Whatever does not go by the identity's way is lost on a closed port.
    forwarding = {
        "routes": {"*": "127.0.0.1:1"},
        "retry": ["4h"],
        "login": {via: {"user": OWN, "password_file": "provider.password", "tls": "never"}},
    }
    with RunningHouse(tmp_path / "here", forwarding=forwarding) as house:
        house.ask(lambda storage: storage.administration.add_identity(parse_address(OWN), ADA, via))
        cy, away = parse_address(CY), parse_address("away@here.test")
        house.ask(lambda storage: storage.administration.add_alias(away, [cy]))
        yield house


def logged_in(house: RunningHouse) -> Wire:
    wire = Wire(house.ports["submission"]).greet()
    secret = base64.b64encode(f"\0{ADA}\0{PASSWORD}".encode()).decode()
    assert wire.say(f"AUTH PLAIN {secret}").startswith(b"235 ")
    return wire


@pytest.mark.parametrize("recipient", [CY, "away@here.test"])
def test_it_arrives_through_the_provider_with_its_login(
    here: RunningHouse, provider: RunningHouse, recipient: str
) -> None:
    with logged_in(here) as wire:
        wire.deliver(LETTER, recipient, sender=OWN)
    until_served(here)
    (message,) = emptied(provider, CY)
    assert message.startswith(f"Return-Path: <{OWN}>\r\n".encode())
    assert b" with ESMTPA id " in message
    assert message.endswith(LETTER)


def test_what_the_provider_refuses_is_reported_in_the_accounts_maildrop(
    here: RunningHouse, provider: RunningHouse
) -> None:
    with logged_in(here) as wire:
        wire.deliver(LETTER, "nobody@provider.test", sender=OWN)
    until_served(here)
    (report,) = emptied(here, ADA)
    assert report.startswith(f"Return-Path: <>\r\nDelivered-To: {OWN}\r\n".encode())
    assert b"nobody@provider.test" in report
    assert emptied(provider, OWN) == []
