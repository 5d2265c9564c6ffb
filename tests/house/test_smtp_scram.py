"""AUTH SCRAM-SHA-256 at the submission door, over a socket."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from posthouse.identity.hashes import app_verifier, make_app_password
from posthouse.protocol.sasl import SaslError
from posthouse.protocol.sasl_scram import ScramClient, derive_keys
from posthouse.storage.errors import StorageBusy
from posthouse.storage.interfaces import Storage
from tests.house.faults import faulty_house
from tests.house.wire import Wire, stored
from tests.running_house import RunningHouse

ADA = "ada@here.test"
APP_PASSWORD = make_app_password(b"0123456789abcdef")
CLIENT_NONCE = "rOprNGfwEbeRWgbNEkqO"


async def _give_app_password(storage: Storage) -> None:
    account = await storage.directory.account(ADA)
    assert account is not None
    keys = derive_keys(APP_PASSWORD, account.scram_salt, account.scram_iterations)
    await storage.credentials.add_app_password(ADA, "phone", verifier=app_verifier(APP_PASSWORD), scram=keys, now=0.0)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[RunningHouse]:
    with RunningHouse(tmp_path) as house:
        house.ask(_give_app_password)
        yield house


def exchange(wire: Wire, client: ScramClient) -> bytes:
    """The whole of it, with an initial response; the last reply."""
    answer = wire.say(b"AUTH SCRAM-SHA-256 " + base64.b64encode(client.first()))
    if not answer.startswith(b"334 "):
        return answer
    answer = wire.say(base64.b64encode(client.final(base64.b64decode(answer[4:]))))
    if not answer.startswith(b"334 "):
        return answer
    client.verify(base64.b64decode(answer[4:]))
    return wire.say("")


def test_a_login_by_scram_sends(house: RunningHouse) -> None:
    with Wire(house.ports["submission"]).greet() as wire:
        assert exchange(wire, ScramClient(ADA, APP_PASSWORD, CLIENT_NONCE)).startswith(b"235 2.7.0 ")
        assert wire.say("MAIL FROM:<bob@here.test>").startswith(b"550 5.7.1 ")
        stored(wire.envelope(ADA, sender=ADA).content(b"Subject: hi\r\n\r\nhello\r\n"))


@pytest.mark.conformance("C123")
@pytest.mark.parametrize(
    ("login", "password", "acts_as"),
    [(ADA, "wrong", ""), ("nobody@here.test", APP_PASSWORD, ""), (ADA, APP_PASSWORD, "bob@here.test")],
)
def test_a_login_by_scram_that_fails_says_what_any_other_says(
    house: RunningHouse, login: str, password: str, acts_as: str
) -> None:
    with Wire(house.ports["submission"]).greet() as wire:
        client = ScramClient(login, password, CLIENT_NONCE, acts_as)
        assert exchange(wire, client) == b"535 5.7.8 The login or the password is wrong"
        assert wire.say("MAIL FROM:<ada@here.test>").startswith(b"530 ")
        assert exchange(wire, ScramClient(ADA, APP_PASSWORD, CLIENT_NONCE)).startswith(b"235 ")


@pytest.mark.conformance("C123")
def test_scram_without_a_directory_is_no_wrong_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house, faults = faulty_house(tmp_path, monkeypatch)
    with house, Wire(house.ports["submission"]).greet() as wire:
        faults["directory.account"] = StorageBusy()
        assert exchange(wire, ScramClient(ADA, APP_PASSWORD, CLIENT_NONCE)).startswith(b"454 4.7.0 ")
        faults.clear()
        assert exchange(wire, ScramClient(ADA, "wrong", CLIENT_NONCE)).startswith(b"535 ")


def test_the_servers_nonce_is_another_each_time(house: RunningHouse) -> None:
    with Wire(house.ports["submission"]).greet() as wire:
        challenges = set()
        for _ in range(2):
            first = base64.b64encode(ScramClient(ADA, "x", CLIENT_NONCE).first())
            challenges.add(wire.say(b"AUTH SCRAM-SHA-256 " + first))
            assert wire.say("*").startswith(b"501 ")
    assert len(challenges) == 2


def test_a_client_sees_a_server_that_does_not_know_the_password() -> None:
    client = ScramClient(ADA, APP_PASSWORD, CLIENT_NONCE)
    with pytest.raises(SaslError):
        client.verify(b"v=AAAA")
