"""A directory, Argon2 and chance that tests can look into, and an authenticator over them."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from argon2.exceptions import VerifyMismatchError

from posthouse.identity.authenticator import Authenticator
from posthouse.identity.hashes import app_verifier
from posthouse.log import make_log
from posthouse.mail.account import APP_PASSWORD, PASSWORD, Account, Credential, ScramKeys
from posthouse.mail.ids import AccountId, CredentialId
from tests.fake_world import FakeClock

HERE, ELSEWHERE, FAR = "192.0.2.1", "198.51.100.1", "2001:db8::1"


class CountingRandom:
    """Different octets each time, and the same in each test."""

    def __init__(self) -> None:
        self._calls = 0

    def octets(self, count: int) -> bytes:
        self._calls += 1
        return bytes((self._calls * 31 + place) % 256 for place in range(count))

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
            raise VerifyMismatchError
        return True

    def check_needs_rehash(self, verifier: str) -> bool:
        return not verifier.startswith("hash:")


class Directory:
    """Accounts by key; raises what it is told to."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.asked: list[str] = []
        self.error: Exception | None = None
        self._credentials = 0

    async def account(self, login: str) -> Account | None:
        self.asked.append(login)
        if self.error is not None:
            raise self.error
        return self.accounts.get(login)

    async def logins_without_scram(self, limit: int) -> tuple[str, ...]:
        if self.error is not None:
            raise self.error
        without = [
            login
            for login, account in self.accounts.items()
            if not account.suspended and any(credential.scram is None for credential in account.credentials)
        ]
        return tuple(without[:limit])

    def add(self, login: str, *verifiers: str, suspended: bool = False, kind: str = PASSWORD) -> None:
        self.accounts[login] = Account(
            account=AccountId(len(self.accounts) + 1),
            login=login,
            quota_octets=None,
            suspended=suspended,
            credentials=tuple(self._credential(kind, verifier) for verifier in verifiers),
            scram_salt=login.encode().ljust(16, b"\0")[:16],
        )

    def suspend(self, login: str) -> None:
        self.accounts[login] = replace(self.accounts[login], suspended=True)

    def add_app_password(self, login: str, password: str, scram: ScramKeys | None = None) -> CredentialId:
        """One more way to log in; its number."""
        credential = self._credential(APP_PASSWORD, app_verifier(password), scram)
        account = self.accounts[login]
        self.accounts[login] = replace(account, credentials=(*account.credentials, credential))
        return credential.credential

    def _credential(self, kind: str, verifier: str, scram: ScramKeys | None = None) -> Credential:
        self._credentials += 1
        return Credential(kind=kind, verifier=verifier, credential=CredentialId(self._credentials), scram=scram)


class Credentials:
    """Writes into the directory, and tells what was written."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.used: dict[CredentialId, float] = {}
        self.replaced: list[tuple[str, str, ScramKeys | None]] = []
        self.error: Exception | None = None
        self.secrets: dict[str, bytes] = {}

    async def replace(self, credential: CredentialId, old: str, new: str, scram: ScramKeys | None) -> None:
        if self.error is not None:
            raise self.error
        self.replaced.append((old, new, scram))
        for login, account in self._directory.accounts.items():
            credentials = tuple(
                replace(c, verifier=new, scram=scram) if (c.credential, c.verifier) == (credential, old) else c
                for c in account.credentials
            )
            self._directory.accounts[login] = replace(account, credentials=credentials)

    async def note_used(self, used: Mapping[CredentialId, float]) -> None:
        if self.error is not None:
            raise self.error
        self.used.update(used)

    async def secret(self, name: str) -> bytes:
        return self.secrets.setdefault(name, f"secret {name}".encode())


@dataclass
class House:
    """What a test of the authenticator has in hand. Time passes where the authenticator waits."""

    directory: Directory
    credentials: Credentials
    hasher: Hasher
    clock: FakeClock
    log: io.StringIO
    waits: list[float] = field(default_factory=list)
    authenticator: Authenticator = field(init=False)

    def __post_init__(self) -> None:
        self.authenticator = self.another()

    def another(self, **options: object) -> Authenticator:
        """One more authenticator over the same directory, as another process has."""
        return Authenticator(
            self.directory,
            self.credentials,
            self.clock,
            CountingRandom(),
            make_log(self.log, json=True),
            sleep=self.wait,
            **options,  # type: ignore[arg-type]
        )

    async def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.advance(seconds)

    async def login(self, login: str, password: str, peer_address: str = HERE) -> bool:
        account = await self.authenticator.authenticate(login, password, peer_address=peer_address, protocol="test")
        return account is not None
