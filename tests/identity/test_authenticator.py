"""Who is it: the same work for everybody who does not know the password. Argon2 is replaced, and counted."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json

import pytest

from posthouse.identity import authenticator
from posthouse.identity.authenticator import CACHE_KEEP_S, WAITING_LIMIT, TooManyLogins
from posthouse.identity.hashes import hash_password, matches
from posthouse.protocol.sasl import MAX_PASSWORD_OCTETS
from posthouse.storage.errors import StorageBusy
from tests.identity.people import ELSEWHERE, HERE, House


async def test_right_and_wrong(house: House) -> None:
    account = await house.authenticator.authenticate("alice@x.test", "right")
    assert account is house.directory.accounts["alice@x.test"]
    assert not await house.login("alice@x.test", "wrong")
    assert not await house.login("alice@x.test", "")


@pytest.mark.parametrize(
    ("login", "password"),
    [
        ("alice@x.test", "wrong"),
        ("stranger@x.test", "wrong"),
        ("no address", "wrong"),
        ("", ""),
        ("nobody@x.test", "wrong"),
        ("gone@x.test", "wrong"),
        ("gone@x.test", "right"),
        ("alice@x.test", "w" * 1_000_000),
        ("stranger@x.test", "w" * 1_000_000),
        ("alice@x.test", "\udc80"),
    ],
)
@pytest.mark.conformance("C123", "C241", "C291", "C317", "S23")
async def test_each_refusal_costs_one_hash_each_time(house: House, login: str, password: str) -> None:
    """Known or not, suspended or not: the same call of the same hash, each time, and nothing else to tell them by."""
    for again in range(2):
        assert not await house.login(login, password)
        assert len(house.hasher.verified) == again + 1
    assert all(len(octets) <= MAX_PASSWORD_OCTETS for _verifier, octets in house.hasher.verified)


async def test_nobodys_verifier_opens_nothing(house: House) -> None:
    """Even who guesses the password that stands behind unknown logins."""
    assert not await house.login("stranger@x.test", "x")
    secret = house.hasher.verified[0][0].removeprefix("hash:")
    for login in ("stranger@x.test", "nobody@x.test"):
        assert not await house.login(login, secret)
        assert house.hasher.verified[-1] == (f"hash:{secret}", secret.encode())


@pytest.mark.parametrize("login", ["ALICE@x.test", "alice@X.TEST", '"alice"@x.test', '"Al\\ice"@x.test'])
async def test_other_spellings_are_the_same_login(house: House, login: str) -> None:
    assert await house.login(login, "right")
    assert house.directory.asked == ["alice@x.test"]
    assert await house.login("alice@x.test", "right")
    assert len(house.hasher.verified) == 1


async def test_a_verified_login_is_remembered_for_a_while(house: House) -> None:
    for _again in range(3):
        assert await house.login("alice@x.test", "right")
    assert len(house.hasher.verified) == 1
    house.clock.advance(CACHE_KEEP_S)
    assert await house.login("alice@x.test", "right")
    assert len(house.hasher.verified) == 2


async def test_a_program_that_comes_often_stays_remembered(house: House) -> None:
    for _again in range(5):
        assert await house.login("alice@x.test", "right")
        house.clock.advance(0.9 * CACHE_KEEP_S)
    assert len(house.hasher.verified) == 1


async def test_a_changed_password_is_forgotten_at_once(house: House) -> None:
    assert await house.login("alice@x.test", "right")
    house.directory.add("alice@x.test", "hash:new")
    assert not await house.login("alice@x.test", "right")
    assert await house.login("alice@x.test", "new")
    house.directory.add("alice@x.test", "hash:right")
    assert await house.login("alice@x.test", "right")
    assert len(house.hasher.verified) == 4


async def test_a_suspended_account_is_not_let_in_by_memory(house: House) -> None:
    assert await house.login("alice@x.test", "right")
    house.directory.suspend("alice@x.test")
    assert not await house.login("alice@x.test", "right")
    assert len(house.hasher.verified) == 2


async def test_memory_is_bounded_and_holds_no_password(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authenticator, "CACHE_ENTRIES", 3)
    for number in range(5):
        house.directory.add(f"u{number}@x.test", "hash:right")
        assert await house.login(f"u{number}@x.test", "right")
        assert not await house.login(f"u{number}@x.test", "wrong")
    assert len(house.authenticator._verified) == len(house.authenticator._refused) == 3
    assert all(b"right" not in digest for digest in house.authenticator._verified)


@pytest.mark.conformance("C123")
async def test_storage_that_fails_is_not_a_wrong_password(house: House) -> None:
    house.directory.error = StorageBusy("locked")
    with pytest.raises(StorageBusy, match="locked"):
        await house.login("alice@x.test", "right")
    assert house.hasher.verified == []


async def test_too_many_wait(house: House) -> None:
    house.hasher.go_on.clear()
    async with asyncio.TaskGroup() as group:
        waiting = [
            group.create_task(house.login(f"u{number}@x.test", "x", f"198.51.100.{number}"))
            for number in range(WAITING_LIMIT)
        ]
        await asyncio.sleep(0)
        with pytest.raises(TooManyLogins):
            await house.login("alice@x.test", "right")
        house.hasher.go_on.set()
    assert not any(task.result() for task in waiting)
    assert await house.login("alice@x.test", "right")


async def test_cancelled_logins_no_longer_wait(house: House) -> None:
    house.hasher.go_on.clear()

    async def give_up() -> None:
        async with asyncio.timeout(0.01), asyncio.TaskGroup() as group:
            for number in range(WAITING_LIMIT):
                group.create_task(house.login(f"u{number}@x.test", "x"))

    with pytest.raises(TimeoutError):
        await give_up()
    assert house.authenticator._waiting == 0
    house.hasher.go_on.set()
    assert await house.login("alice@x.test", "right")
    # Those that a thread had not begun are never hashed.
    assert len(house.hasher.verified) <= authenticator.HASHING_THREADS + 1


@pytest.mark.conformance("C293", "S13", "S24")
async def test_who_was_slowed_gives_back_the_place(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else some hundred guesses would keep everybody out who has to wait, until the next start."""
    monkeypatch.setattr(authenticator, "SLOWED_LIMIT", 1)
    for number in range(20):
        assert not await house.login("alice@x.test", f"wrong {number}", f"10.{number}.0.1")
    assert len([wait_s for wait_s in house.waits if wait_s]) > 10
    assert await house.login("alice@x.test", "right", "10.20.0.1")


@pytest.mark.conformance("C127", "S11")
@pytest.mark.parametrize(
    ("authorization_id", "login", "password", "allowed"),
    [
        ("", "alice@x.test", "right", True),
        ("alice@x.test", "alice@x.test", "right", True),
        ("ALICE@X.test", "alice@x.test", "right", True),
        ("bob@x.test", "alice@x.test", "right", False),
        ("alice@x.test", "bob@x.test", "right", False),
        ("alice@x.test", "stranger@x.test", "right", False),
        ("alice@x.test", "alice@x.test", "wrong", False),
        ("", "alice@x.test", "wrong", False),
        ("alice@x.test", "alice@x.test", "", False),
        ("stranger@x.test", "alice@x.test", "right", False),
        ("alice", "alice@x.test", "right", False),
        ("no address", "no address", "right", False),
    ],
)
async def test_a_login_acts_as_itself_only(
    house: House, authorization_id: str, login: str, password: str, allowed: bool
) -> None:
    """With the password remembered and without: who was verified is who one is."""
    house.directory.add("bob@x.test", "hash:bobs")
    for _again in range(2):
        account = await house.authenticator.authenticate(login, password, authorization_id=authorization_id)
        assert (account is not None) is allowed
        assert account is None or account.login == login
        assert await house.login("alice@x.test", "right")


@pytest.mark.conformance("C293", "S13")
async def test_one_peers_nonsense_disturbs_no_other_login(house: House) -> None:
    nonsense = ["\0", "\ud800", "x" * 100_000, "", "\u202e", "a@b@c", "[" * 5000, '"' * 300 + "@x.test"]
    for text in nonsense:
        for other in nonsense:
            with contextlib.suppress(TooManyLogins):
                assert not await house.login(text, other, ELSEWHERE)
        assert await house.login("alice@x.test", "right")
    house.directory.add("bob@x.test", "hash:bobs")
    assert await house.login("bob@x.test", "bobs")
    assert max(house.waits) <= 30


async def test_a_failed_login_is_told_without_its_password(house: House) -> None:
    assert not await house.login("alice@x.test", "hunter2")
    assert not await house.login("eve\r\n@x.test", "hunter2")
    lines = [json.loads(line) for line in house.log.getvalue().splitlines()]
    told = [(line["event"], line["login"], line["peer"], line["protocol"], line["failures"]) for line in lines]
    assert told == [
        ("login failed", "alice@x.test", HERE, "test", 1),
        ("login failed", "eve\r\n@x.test", HERE, "test", 2),
    ]
    assert "hunter2" not in house.log.getvalue()


async def test_a_password_is_the_same_however_it_is_composed(house: House) -> None:
    house.directory.add("j@x.test", "hash:gr\u00fc\u00dfe")
    assert await house.login("j@x.test", "gru\u0308\u00dfe")


@pytest.mark.conformance("C301")
async def test_a_hash_of_another_system_becomes_ours_at_login(house: House) -> None:
    verifier = "{SSHA512}" + base64.b64encode(hashlib.sha512(b"right" + b"salt").digest() + b"salt").decode()
    house.directory.add("old@x.test", verifier)
    assert not await house.login("old@x.test", "wrong")
    assert house.credentials.replaced == []
    house.credentials.error = StorageBusy("full")
    assert await house.login("old@x.test", "right")
    house.credentials.error = None
    house.clock.advance(CACHE_KEEP_S)
    assert await house.login("old@x.test", "right")
    assert house.credentials.replaced == [(verifier, "hash:right", None)]
    assert await house.login("old@x.test", "right")
    house.clock.advance(CACHE_KEEP_S)
    assert await house.login("old@x.test", "right")
    assert len(house.credentials.replaced) == 1
    assert len(house.hasher.verified) == 1


def test_argon2_in_earnest() -> None:
    verifier = hash_password("gr\u00fc\u00dfe")
    assert verifier.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert matches(verifier, "gr\u00fc\u00dfe")
    assert not matches(verifier, "other")


async def test_a_session_outlives_no_suspension(house: House) -> None:
    account = await house.authenticator.authenticate("alice@x.test", "right")
    assert account is not None
    assert await house.authenticator.is_welcome(account)
    house.directory.suspend("alice@x.test")
    assert not await house.authenticator.is_welcome(account)
    del house.directory.accounts["alice@x.test"]
    assert not await house.authenticator.is_welcome(account)
    house.directory.add("another@x.test", "hash:right")
    house.directory.add("alice@x.test", "hash:right")
    assert not await house.authenticator.is_welcome(account)
