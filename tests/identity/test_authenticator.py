"""Who is it: the same work for everybody who does not know the password. Argon2 is replaced, and counted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from posthouse.identity import authenticator as module
from posthouse.identity.authenticator import (
    CACHE_KEEP_S,
    MAX_PASSWORD_OCTETS,
    WAITING_LIMIT,
    Authenticator,
    TooManyLogins,
    hash_password,
)
from posthouse.mail.account import PASSWORD, Account, Credential
from posthouse.mail.ids import AccountId
from posthouse.storage.errors import StorageBusy


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


class Random:
    def octets(self, count: int) -> bytes:
        return bytes(range(count))

    def uniform(self, low: float, high: float) -> float:
        return low


@dataclass
class Hasher:
    """Stands for Argon2: a verifier is "hash:" and the password. Counts, and can be held up."""

    verified: list[tuple[str, bytes]] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)

    def hash(self, password: bytes) -> str:
        return "hash:" + password.decode("utf-8", "backslashreplace")

    def verify(self, verifier: str, password: bytes) -> bool:
        self.verified.append((verifier, password))
        assert self.go_on.wait(10)
        if verifier != self.hash(password):
            raise module.argon2.exceptions.VerifyMismatchError
        return True


class Directory:
    """Accounts by key; raises what it is told to."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.asked: list[str] = []
        self.error: Exception | None = None

    async def account(self, login: str) -> Account | None:
        self.asked.append(login)
        if self.error is not None:
            raise self.error
        return self.accounts.get(login)

    def add(self, login: str, *verifiers: str, suspended: bool = False, kind: str = PASSWORD) -> None:
        self.accounts[login] = Account(
            account=AccountId(len(self.accounts) + 1),
            login=login,
            quota_octets=None,
            suspended=suspended,
            credentials=tuple(Credential(kind=kind, verifier=verifier) for verifier in verifiers),
        )


@dataclass
class House:
    directory: Directory
    hasher: Hasher
    clock: Clock
    authenticator: Authenticator

    async def login(self, login: str, password: str) -> bool:
        return await self.authenticator.authenticate(login, password) is not None


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    hasher, directory, clock = Hasher(), Directory(), Clock()
    hasher.go_on.set()
    monkeypatch.setattr(module, "_HASHER", hasher)
    directory.add("alice@x.test", "hash:right")
    directory.add("gone@x.test", "hash:right", suspended=True)
    directory.add("nobody@x.test")
    directory.add("app@x.test", "hash:right", kind="app")
    made = Authenticator(directory, clock, Random())
    yield House(directory, hasher, clock, made)
    hasher.go_on.set()
    made.close()


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
        ("app@x.test", "right"),
        ("gone@x.test", "wrong"),
        ("gone@x.test", "right"),
        ("alice@x.test", "w" * 1_000_000),
        ("stranger@x.test", "w" * 1_000_000),
        ("alice@x.test", "\udc80"),
    ],
)
@pytest.mark.conformance("security-23")
async def test_each_refusal_costs_one_hash_each_time(house: House, login: str, password: str) -> None:
    for again in range(2):
        assert not await house.login(login, password)
        assert len(house.hasher.verified) == again + 1
    assert all(len(octets) <= MAX_PASSWORD_OCTETS for _verifier, octets in house.hasher.verified)


async def test_nobodys_verifier_opens_nothing(house: House) -> None:
    """Even who guesses the password that stands behind unknown logins."""
    secret = Random().octets(16).hex()
    for login in ("stranger@x.test", "nobody@x.test", "app@x.test"):
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
    house.clock.seconds += CACHE_KEEP_S
    assert await house.login("alice@x.test", "right")
    assert len(house.hasher.verified) == 2


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
    house.directory.accounts["alice@x.test"] = replace(house.directory.accounts["alice@x.test"], suspended=True)
    assert not await house.login("alice@x.test", "right")
    assert len(house.hasher.verified) == 2


async def test_memory_is_bounded_and_holds_no_password(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHE_ENTRIES", 3)
    for number in range(5):
        house.directory.add(f"u{number}@x.test", "hash:right")
        assert await house.login(f"u{number}@x.test", "right")
    assert len(house.authenticator._verified) == 3
    assert all(b"right" not in digest for digest in house.authenticator._verified)


async def test_storage_that_fails_is_not_a_wrong_password(house: House) -> None:
    house.directory.error = StorageBusy("locked")
    with pytest.raises(StorageBusy, match="locked"):
        await house.login("alice@x.test", "right")
    assert house.hasher.verified == []


async def test_too_many_wait(house: House) -> None:
    house.hasher.go_on.clear()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(house.login(f"u{number}@x.test", "x")) for number in range(WAITING_LIMIT)]
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
    assert len(house.hasher.verified) <= module.HASHING_THREADS + 1


def test_passwords_that_cannot_be_chosen() -> None:
    with pytest.raises(ValueError, match="1024"):
        hash_password("ä" * 513)


def test_argon2_in_earnest() -> None:
    verifier = hash_password("grüße")
    assert verifier.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert module._matches(verifier, "grüße".encode())
    assert not module._matches(verifier, b"other")
