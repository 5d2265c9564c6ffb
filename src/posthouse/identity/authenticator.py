"""Who is it: the one authenticator of all protocols, for passwords, app passwords and SCRAM.

A login that is wrong, a password that is wrong and an account that is suspended are refused after the same work: one
hash of the same kind, or a SCRAM challenge that looks like all others and cannot be met.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from posthouse.identity import hashes
from posthouse.identity.limiter import LimiterRules, LoginLimiter
from posthouse.log import Log
from posthouse.mail.account import (
    APP_PASSWORD,
    PASSWORD,
    SCRAM_ITERATIONS,
    Account,
    Credential,
    ScramKeys,
)
from posthouse.mail.address import AddressError, parse_address
from posthouse.mail.ids import CredentialId
from posthouse.mail.world import Clock, Random
from posthouse.metrics import Metrics
from posthouse.protocol.sasl import MAX_PASSWORD_OCTETS, SaslError, ScramVerifier
from posthouse.protocol.sasl_scram import derive_keys
from posthouse.storage.errors import StorageError

HASHING_THREADS = 2
WAITING_LIMIT = 200
SLOWED_LIMIT = 500
"""Attempts that may wait for the limiter at once; each is a session that is open and does nothing."""
CACHE_ENTRIES = 10_000
CACHE_KEEP_S = 900.0
SECRET = "scram"
_SALT_OCTETS = 16
_NONCE_OCTETS = 18

T = TypeVar("T")


class Directory(Protocol):
    """What the authenticator asks of storage."""

    async def account(self, login: str) -> Account | None: ...

    async def logins_without_scram(self, limit: int) -> tuple[str, ...]: ...


class Credentials(Protocol):
    """What the authenticator writes."""

    async def replace(self, credential: CredentialId, old: str, new: str, scram: ScramKeys | None) -> None: ...

    async def note_used(self, used: Mapping[CredentialId, float]) -> None: ...

    async def secret(self, name: str) -> bytes: ...


class TooManyLogins(Exception):
    """More logins wait to be checked than may: answer with a temporary failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRules:
    """What the configuration says of logins."""

    limiter: LimiterRules = field(default_factory=LimiterRules)
    scram: bool = True
    """Whether SCRAM may be used, with passwords whose keys are kept; offered only where that is each of them."""
    scram_for_passwords: bool = False
    """Whether keys are kept of chosen passwords too, from the next login on."""


def login_key(login: str) -> str | None:
    """The one spelling of a login, or None when it is not an address."""
    try:
        return parse_address(login).key
    except AddressError:
        return None


class Authenticator:
    """Verifies logins for every protocol. `close` ends it; `flush` writes when credentials were last used.

    A verified pair of login and password is remembered for a while under a keyed hash, since mail programs log in
    every few minutes; the memory is dropped when the account's credentials change.
    """

    def __init__(
        self,
        directory: Directory,
        credentials: Credentials,
        clock: Clock,
        random: Random,
        log: Log,
        *,
        rules: IdentityRules | None = None,
        metrics: Metrics | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._directory = directory
        self._credentials = credentials
        self._clock = clock
        self._random = random
        self._log = log
        self._rules = rules or IdentityRules()
        self._limiter = LoginLimiter(self._rules.limiter, clock)
        self._sleep = sleep
        self._metrics = metrics or Metrics()
        self._pool = ThreadPoolExecutor(HASHING_THREADS, thread_name_prefix="argon2")
        self._waiting = 0
        self._slowed = 0
        self._cache_key = random.octets(32)
        self._verified: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        self._used: dict[CredentialId, float] = {}
        self._nobody = hashes.rehash_password(random.octets(16).hex())
        self._secret: bytes | None = None

    async def authenticate(
        self,
        login: str,
        password: str,
        *,
        peer_address: str = "",
        protocol: str = "",
        session: str = "",
        authorization_id: str = "",
    ) -> Account | None:
        """The account, or None for a wrong login, a wrong password or a suspended account.

        `authorization_id`: whom the login wants to act as; anybody but itself or "" is refused like a wrong password.
        Waits while whoever guesses is being slowed. Raises TooManyLogins, or what storage raises: neither may become
        "wrong password".
        """
        key = login_key(login)
        if len(password.encode("utf-8", "surrogatepass")) > MAX_PASSWORD_OCTETS:
            key, password = None, ""
        allowed = not authorization_id or (key is not None and login_key(authorization_id) == key)
        account = await self._account(key)
        if account is not None and key is not None and allowed and self._is_easily_known(account, key, password):
            self._limiter.succeeded(key, peer_address)
            return account
        if await self._slow_down(key, peer_address):
            account = await self._account(key)
        credential = await self._chosen_password(account, password)
        if account is None or credential is None or account.suspended or not allowed or key is None:
            failures = self._count_failure(key, peer_address, password)
            self._tell_failure(login, peer_address, protocol, session, failures)
            return None
        self._limiter.succeeded(key, peer_address)
        self._remember(key, password, await self._improved(account, credential, password))
        return account

    async def offers_scram(self) -> bool:
        """Whether SCRAM is offered: it would work for everybody.

        A program that takes it by itself does not fall back to PLAIN, and who is there is known only after the offer.
        """
        try:
            return self._rules.scram and not await self._directory.logins_without_scram(1)
        except StorageError:
            return False

    async def scram_verifier(self, login: str, *, peer_address: str = "") -> tuple[ScramVerifier, str]:
        """What a SCRAM exchange needs for this login, and our part of its nonce. Slows, and raises, as authenticate().

        A login that does not exist, is suspended or has no such password gets keys that nobody can prove; an unknown
        one with a salt that is the same each time, after each restart, in each process.
        """
        key = login_key(login)
        await self._slow_down(key, peer_address)
        account = await self._account(key)
        nonce = base64.b64encode(self._random.octets(_NONCE_OCTETS)).decode()
        spelled = key or login.casefold()
        salt, iterations = (await self._derived("salt", spelled))[:_SALT_OCTETS], SCRAM_ITERATIONS
        if account is not None:
            salt, iterations = account.scram_salt, account.scram_iterations
        decoy = ScramKeys(await self._derived("stored key", spelled), await self._derived("server key", spelled))
        first, *others = self._scram_keys(account) or [decoy]
        return ScramVerifier(salt, iterations, first.stored_key, first.server_key, tuple(others)), nonce

    async def log_in(
        self,
        login: str,
        password: str,
        *,
        proven: bool | None,
        stored_key: bytes,
        peer_address: str,
        protocol: str,
        session: str,
        authorization_id: str,
    ) -> Account | None:
        """What a protocol's login came to: by password where `proven` is None, else by SCRAM. As `authenticate`."""
        result = "put_off"
        try:
            if proven is None:
                account = await self.authenticate(
                    login,
                    password,
                    peer_address=peer_address,
                    protocol=protocol,
                    session=session,
                    authorization_id=authorization_id,
                )
            else:
                account = await self.scram_finished(
                    login,
                    proven,
                    stored_key=stored_key,
                    peer_address=peer_address,
                    protocol=protocol,
                    session=session,
                    authorization_id=authorization_id,
                )
            result = "accepted" if account is not None else "refused"
            return account
        finally:
            self._metrics.logged_in(protocol, result)

    async def scram_finished(
        self,
        login: str,
        proven: bool,
        *,
        stored_key: bytes = b"",
        peer_address: str = "",
        protocol: str = "",
        session: str = "",
        authorization_id: str = "",
    ) -> Account | None:
        """How an exchange ended: the account, or None as authenticate(). `stored_key`: which password was proven."""
        key = login_key(login)
        account = await self._account(key)
        allowed = not authorization_id or (key is not None and login_key(authorization_id) == key)
        # Asked again: meanwhile it may have been suspended, or the password revoked.
        candidates = [] if account is None or account.suspended else self._scram_credentials(account)
        found = [c for c in candidates if c.scram and hmac.compare_digest(c.scram.stored_key, stored_key)]
        if not proven or not allowed or key is None or not (found if stored_key else candidates):
            failures = self._count_failure(key, peer_address, None)
            self._tell_failure(login, peer_address, protocol, session, failures)
            return None
        self._limiter.succeeded(key, peer_address)
        for credential in found[:1]:
            self._note_used(credential)
        return account

    async def is_welcome(self, account: Account) -> bool:
        """Whether who was let in as this account still may be: it is there, and was not suspended meanwhile."""
        now = await self._directory.account(account.login)
        return now is not None and now.account == account.account and not now.suspended

    def reconfigure(self, rules: IdentityRules) -> None:
        """Go by other rules from now on; what was counted and remembered stays."""
        self._rules = rules
        self._limiter.reconfigure(rules.limiter)

    async def flush(self) -> None:
        """Write when credentials were last used; kept off the way of a login. Raises what storage raises."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._credentials.note_used(used)
        except StorageError:
            self._used = {**used, **self._used}
            raise

    def close(self) -> None:
        """End the hashing threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _account(self, key: str | None) -> Account | None:
        return await self._directory.account(key) if key is not None else None

    async def _slow_down(self, key: str | None, peer_address: str) -> bool:
        """Wait as the limiter says; whether it did. No thread and no lock is held meanwhile, only the session."""
        wait_s = self._limiter.wait_s(key or "", peer_address)
        if wait_s is None or (wait_s and self._slowed >= SLOWED_LIMIT):
            raise TooManyLogins
        if not wait_s:
            return False
        self._slowed += 1
        try:
            await self._sleep(wait_s)
        finally:
            self._slowed -= 1
        return True

    def _is_easily_known(self, account: Account, key: str, password: str) -> bool:
        """Whether it is an app password of the account, or was verified a while ago: neither can be guessed.

        So neither waits for the limiter, whatever strangers do.
        """
        if account.suspended:
            return False
        if not hashes.is_app_password(password):
            return self._is_remembered(account, key, password)
        verifier, found = hashes.app_verifier(password), None
        for credential in account.credentials:
            if credential.kind == APP_PASSWORD and hmac.compare_digest(credential.verifier, verifier):
                found = credential
        if found is not None:
            self._note_used(found)
        return found is not None

    async def _chosen_password(self, account: Account | None, password: str) -> Credential | None:
        """The credential whose password this is. The same hashes whether there is an account or not."""
        if hashes.is_app_password(password):
            # It cannot have been chosen; it is wrong, or we would not be here.
            return None
        credentials = account.credentials if account is not None else ()
        chosen = [credential for credential in credentials if credential.kind == PASSWORD]
        if not chosen:
            await self._hashing(hashes.matches, self._nobody, password)
        for credential in chosen:
            if await self._hashing(hashes.matches, credential.verifier, password):
                return credential
        return None

    async def _improved(self, account: Account, credential: Credential, password: str) -> str:
        """Its verifier, hashed anew where the hash is of another system or SCRAM keys are wanted and missing."""
        outdated = hashes.is_outdated(credential.verifier)
        keyless = self._rules.scram_for_passwords and credential.scram is None
        if not outdated and not keyless:
            return credential.verifier
        verifier, scram = credential.verifier, credential.scram
        try:
            if outdated:
                verifier = await self._hashing(hashes.rehash_password, password)
            if keyless:
                scram = await self._hashing(_scram_keys, password, account)
            if (verifier, scram) == (credential.verifier, credential.scram):
                return verifier
            await self._credentials.replace(credential.credential, credential.verifier, verifier, scram)
        except (TooManyLogins, StorageError):
            # The login is good all the same; the next one tries again.
            return credential.verifier
        return verifier

    async def _hashing(self, work: Callable[..., T], *arguments: object) -> T:
        """Run it on one of the few threads for it."""
        if self._waiting >= WAITING_LIMIT:
            raise TooManyLogins
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        finally:
            self._waiting -= 1

    def _scram_credentials(self, account: Account) -> list[Credential]:
        """What may be proven by SCRAM: whatever has keys."""
        return [c for c in account.credentials if c.scram is not None] if self._rules.scram else []

    def _scram_keys(self, account: Account | None) -> list[ScramKeys]:
        if account is None or account.suspended:
            return []
        return [c.scram for c in self._scram_credentials(account) if c.scram is not None]

    async def _derived(self, purpose: str, spelled: str) -> bytes:
        """Octets that look random, and are the same for the same login."""
        if self._secret is None:
            self._secret = await self._credentials.secret(SECRET)
        return hmac.digest(self._secret, f"{purpose}\0{spelled}".encode("utf-8", "surrogatepass"), "sha256")

    def _count_failure(self, key: str | None, peer_address: str, password: str | None) -> int:
        repeated = False
        if password is not None:
            digest = self._digest(key or "", password)
            self._verified.pop(digest, None)
            repeated = self._is_repeated(digest)
        return self._limiter.failed(key or "", peer_address, repeated=repeated)

    def _tell_failure(self, login: str, peer_address: str, protocol: str, session: str, failures: int) -> None:
        """`failures`: of this address of late."""
        self._log.warning(
            "login failed", session=session, peer=peer_address, login=login, protocol=protocol, failures=failures
        )

    def _is_repeated(self, digest: bytes) -> bool:
        """Whether just this was refused before; from now on it was."""
        repeated = digest in self._refused
        self._refused[digest] = None
        self._refused.move_to_end(digest)
        if len(self._refused) > CACHE_ENTRIES:
            self._refused.popitem(last=False)
        return repeated

    def _note_used(self, credential: Credential) -> None:
        if credential.kind == APP_PASSWORD:
            self._used[credential.credential] = self._clock.now()

    def _is_remembered(self, account: Account, key: str, password: str) -> bool:
        digest, now = self._digest(key, password), self._clock.monotonic()
        until, verifier = self._verified.get(digest, (0.0, ""))
        known = now < until and any(c.kind == PASSWORD and c.verifier == verifier for c in account.credentials)
        if known:
            # A program that comes every few minutes stays known, and never waits behind others at its address.
            self._verified[digest] = (now + CACHE_KEEP_S, verifier)
            self._verified.move_to_end(digest)
        return known

    def _remember(self, key: str, password: str, verifier: str) -> None:
        digest = self._digest(key, password)
        self._refused.pop(digest, None)
        self._verified[digest] = (self._clock.monotonic() + CACHE_KEEP_S, verifier)
        self._verified.move_to_end(digest)
        if len(self._verified) > CACHE_ENTRIES:
            self._verified.popitem(last=False)

    def _digest(self, key: str, password: str) -> bytes:
        # The login cannot hold a NUL, so the two cannot be moved into each other.
        return hmac.digest(self._cache_key, f"{key}\0{password}".encode("utf-8", "surrogatepass"), hashlib.sha256)


def _scram_keys(password: str, account: Account) -> ScramKeys | None:
    """The keys of a chosen password, or None where SASLprep forbids it: then there is no SCRAM for it."""
    try:
        return derive_keys(password, account.scram_salt, account.scram_iterations)
    except SaslError:
        return None
