"""One POP3 session: drives the server half over a stream (RFC 1939).

The listing is a snapshot taken at login under the maildrop's lock; the core keeps numbers and deletion marks.
Nothing is deleted before QUIT, and `+OK` to QUIT leaves only when the deletion is durable.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import assert_never

from posthouse.identity.authenticator import Authenticator, TooManyLogins
from posthouse.log import Log
from posthouse.mail.account import Account
from posthouse.mail.ids import Uid
from posthouse.mail.journey import Deleted, JourneyEvent, Retrieved
from posthouse.mail.maildrop import InUse, Listing, MaildropLock
from posthouse.mail.world import Clock
from posthouse.net.arrival import begin_tls
from posthouse.net.stream import Interrupted, Stream
from posthouse.protocol.events import CLOSED, NEED_DATA
from posthouse.protocol.pop3 import AUTH, IN_USE, LOGIN_DELAY, SYS_PERM, SYS_TEMP
from posthouse.protocol.pop3_events import (
    Event,
    Login,
    OutgoingFull,
    QuitReceived,
    Rejected,
    Retrieve,
    ScramVerifierWanted,
    StartTls,
    Top,
    Update,
)
from posthouse.protocol.pop3_options import Pop3Options
from posthouse.protocol.pop3_server import Pop3Server
from posthouse.retrieval.login_delay import LoginDelay
from posthouse.retrieval.surrogate import Surrogates
from posthouse.storage.errors import StorageError
from posthouse.storage.interfaces import Storage

WRITE_ABOVE_OCTETS = 64 * 1024
IDS_A_LINE = 35
"""So many queue ids fit into one value of the log (VALUE_CHARACTERS)."""
_LOGIN_LATER = "Logins cannot be checked now; try again later"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pop3Limits:
    """Per-session limits. Times in seconds (RFC 1939 §3: an idle timer of at least ten minutes)."""

    idle_timeout_s: float
    write_timeout_s: float = 300.0
    """For a peer that takes nothing of what was written."""
    session_s: float = 12 * 3600.0
    """For the whole session: what it may still read must not have been swept (design: storage)."""
    errors: int = 50
    failed_logins: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pop3Door:
    """What all sessions of one door share."""

    options: Pop3Options
    tls: ssl.SSLContext | None
    """For STLS; None: not offered."""
    tls_options: Pop3Options
    """What is offered after STLS."""
    limits: Pop3Limits
    login_delay: LoginDelay | None
    """Shared by all doors."""
    storage: Storage
    surrogates: Surrogates
    authenticator: Authenticator
    clock: Clock
    log: Log


class Pop3Session:
    """Drives one connection from greeting to close."""

    def __init__(self, stream: Stream, door: Pop3Door, *, session: str) -> None:
        self.stream = stream
        self.door = door
        self.pop3 = Pop3Server(door.options)
        self._session = session
        self._log = door.log.bind(session=session, peer=stream.peer_address)
        self._account: Account | None = None
        self._lock: MaildropLock | None = None
        self._listing = Listing()
        self._surrogates = frozenset[Uid]()
        self._retrieved_told = False
        self._deleted = 0
        self._errors = 0
        self._failed_logins = 0
        self._lines_seen = -1
        self._idle_since = 0.0
        self._ends_at = door.clock.monotonic() + door.limits.session_s

    async def run(self) -> None:
        """The whole session. However it ends but by QUIT, nothing is deleted (RFC 1939 §6)."""
        outcome = "closed"
        try:
            self.pop3.greet()
            await self._converse()
        except TimeoutError:
            # RFC 1939 §3: closed without a response when the timer expires, and without UPDATE.
            outcome = "timed out"
        except ConnectionError:
            outcome = "connection lost"
        except Interrupted:
            outcome = "house closes"
            self.pop3.close("This house is closing; come back later")
        except Exception:  # noqa: BLE001
            outcome = "failed"
            self._log.exception("session failed")
            self.pop3.close("Something went wrong on our side; try again later")
        finally:
            # Free the maildrop first: the peer may come back before this connection has quite gone.
            await self._leave_maildrop()
            self.stream.write(self.pop3.outgoing())
            await self.stream.close()
        self._tell_retrieved()
        self._log.info(
            "session ended",
            how=outcome,
            login=self._account.login if self._account else None,
            retrieved=len(self.pop3.retrieved),
            deleted=self._deleted,
        )

    async def refuse_service(self) -> None:
        """Turn the peer away before it said anything: too many sessions are open."""
        self.pop3.close("Too many sessions are open; come back later")
        self.stream.write(self.pop3.outgoing())
        await self.stream.close()

    async def _converse(self) -> None:
        while (event := self.pop3.next_event()) is not CLOSED:
            if event is NEED_DATA:
                await self._write()
                self.pop3.receive(await self.stream.read(interruptible=True, timeout_s=self._idle_s()))
            else:
                await self._handle(event)
                if self._errors > self.door.limits.errors:
                    self.pop3.close("Too many errors")

    def _idle_s(self) -> float:
        """How long the next octets may take. Octets alone do not start the timer anew, only a whole command does."""
        if self.pop3.lines_taken != self._lines_seen:
            self._lines_seen = self.pop3.lines_taken
            self._idle_since = self.door.clock.monotonic()
        idle_s = self.door.clock.monotonic() - self._idle_since
        return self._patience_s(self.door.limits.idle_timeout_s - idle_s)

    def _patience_s(self, limit_s: float) -> float:
        """How long the peer may be waited for. Raises TimeoutError when the session has lasted long enough."""
        left_s = min(limit_s, self._ends_at - self.door.clock.monotonic())
        if left_s <= 0:
            raise TimeoutError
        return left_s

    async def _write(self) -> None:
        self.stream.write(self.pop3.outgoing())
        await self._drain()

    async def _drain(self) -> None:
        """Wait until the peer has taken enough. One that takes little is slow; one that takes nothing is closed."""
        waiting_octets = self.stream.waiting_octets
        while True:
            try:
                await self.stream.drain(self._patience_s(self.door.limits.write_timeout_s))
                break
            except TimeoutError:
                before_octets, waiting_octets = waiting_octets, self.stream.waiting_octets
                if waiting_octets >= before_octets:
                    raise
        if self.stream.is_lost:
            # Else all the messages that were asked for would be read for nobody, with the maildrop locked meanwhile.
            raise ConnectionResetError

    async def _handle(self, event: Event) -> None:
        match event:
            case Retrieve(number=number):
                if await self._is_welcome():
                    await self._send(number)
            case Top(number=number):
                if await self._is_welcome():
                    await self._send(number, whole=False)
            case Login():
                await self._login(event)
            case ScramVerifierWanted(login=login):
                await self._provide_scram(login)
            case StartTls():
                await self._start_tls()
            case Update(numbers=numbers):
                if not numbers or await self._is_welcome():
                    await self._update(numbers)
            case Rejected():
                self._errors += 1
            case OutgoingFull():
                await self._write()
                # The next commands are here already; a peer that reads fast enough would leave nobody else a turn.
                await asyncio.sleep(0)
            case QuitReceived():
                pass
            case _:
                assert_never(event)

    async def _start_tls(self) -> None:
        """STLS: all that was said before is forgotten, and nothing may be waiting (RFC 2595 §4)."""
        assert self.door.tls is not None
        self.pop3.begin_tls()
        await self._write()
        if not await begin_tls(self.stream, self.door.tls):
            self._log.info("TLS handshake failed")
            self.pop3.close()
            self.stream.abort()
            return
        self.pop3.tls_started(self.door.tls_options)

    async def _provide_scram(self, login: str) -> None:
        try:
            verifier, nonce = await self.door.authenticator.scram_verifier(login, peer_address=self.stream.peer_address)
        except (TooManyLogins, StorageError):
            self.pop3.refuse(SYS_TEMP, _LOGIN_LATER)
            return
        self.pop3.provide_scram(verifier, nonce)

    async def _authenticate(self, event: Login) -> Account | None:
        """Whose login it is, None where it is wrong. Raises TooManyLogins, StorageError."""
        return await self.door.authenticator.log_in(
            event.name,
            event.password,
            proven=event.proven,
            stored_key=event.stored_key,
            peer_address=self.stream.peer_address,
            protocol="pop3",
            session=self._session,
            authorization_id=event.authorization_id,
        )

    async def _login(self, event: Login) -> None:
        try:
            account = await self._authenticate(event)
        except (TooManyLogins, StorageError):
            self.pop3.refuse(SYS_TEMP, _LOGIN_LATER)
            return
        if account is None:
            self._refuse_login()
            return
        delay = self.door.login_delay
        if delay is not None and (wait_s := delay.left_s(account.account)) > 0:
            self.pop3.refuse(LOGIN_DELAY, f"You were here a moment ago; come back in {math.ceil(wait_s)} seconds")
            return
        await self._enter_maildrop(account)

    def _refuse_login(self) -> None:
        self._failed_logins += 1
        self.pop3.refuse(AUTH, "The login or the password is wrong")
        if self._failed_logins >= self.door.limits.failed_logins:
            self.pop3.close()

    async def _enter_maildrop(self, account: Account) -> None:
        try:
            lock = await self.door.storage.maildrops.lock(account.account)
            if isinstance(lock, InUse):
                self.pop3.refuse(IN_USE, "Another session has this maildrop open")
                return
            self._lock = lock
            self._listing = await self._list(account)
        except StorageError:
            await self._leave_maildrop()
            self.pop3.refuse(SYS_TEMP, "The maildrop cannot be opened now; try again later")
            return
        self._account = account
        if self.door.login_delay is not None:
            self.door.login_delay.note(account.account)
        self.pop3.open_maildrop(self._listing)

    async def _list(self, account: Account) -> Listing:
        """The listing, with the sizes of what RETR will send (RFC 6856 §2.1)."""
        listing = await self.door.storage.maildrops.list(account.account)
        if self.pop3.utf8 or not listing.internationalised:
            return listing
        self._surrogates = listing.internationalised
        return await self.door.surrogates.sizes(account.account, listing)

    async def _is_welcome(self) -> bool:
        """Whether what was asked for may be done. Else it was refused, and the session is over.

        Suspended or removed since: an open session must not go on reading for whoever stole the password.
        """
        assert self._account is not None
        try:
            if await self.door.authenticator.is_welcome(self._account):
                return True
        except StorageError:
            self.pop3.refuse(SYS_TEMP, "The mail cannot be reached now; try again later")
            return False
        self._log.warning("login ended", login=self._account.login)
        # Not [AUTH], which answers commands of authentication only (RFC 3206 §4, §5).
        self.pop3.refuse(SYS_PERM, "This login has ended")
        self.pop3.close()
        return False

    def _chunks(self, account: Account, uid: Uid) -> AsyncGenerator[bytes, None]:
        reader = self.door.surrogates if uid in self._surrogates else self.door.storage.maildrops
        return reader.read(account.account, uid)

    async def _send(self, number: int, *, whole: bool = True) -> None:
        """RETR and TOP: the message in chunks, no faster than the peer takes them.

        The next chunk is read while the last is on its way, so memory holds two of them and what the stream buffers.
        """
        assert self._account is not None
        index = number - 1
        begun = False
        chunks = self._chunks(self._account, self._listing.uids[index])
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    await self._drain()
                    if not begun:
                        self.pop3.begin_message(self._listing.sizes_octets[index] if whole else None)
                        begun = True
                    if not self.pop3.content(chunk):
                        break
                    if self.pop3.outgoing_octets >= WRITE_ABOVE_OCTETS:
                        self.stream.write(self.pop3.outgoing())
        except (KeyError, StorageError):
            if begun:
                # Half a message must not look whole: no terminator, the connection ends.
                self._log.error("message could not be read to its end", uidl=self._listing.uidls[index])
                self.stream.abort()
                raise
            self.pop3.refuse(SYS_TEMP, "The message cannot be read now")
            return
        if not begun:
            self.pop3.begin_message(0 if whole else None)
        self.pop3.end_message()

    async def _update(self, numbers: tuple[int, ...]) -> None:
        """QUIT: delete what is marked and write the journey, in one commit; then `+OK`."""
        assert self._lock is not None
        try:
            if numbers:
                uids = [self._listing.uids[number - 1] for number in numbers]
                if not await self.door.storage.maildrops.expunge(self._lock, uids, self._events(numbers)):
                    self.pop3.refuse(SYS_TEMP, "The maildrop's lock was lost; nothing was deleted")
                    return
                self._deleted = len(numbers)
                self._retrieved_told = True
            await self._leave_maildrop()
        except StorageError:
            self.pop3.refuse(SYS_TEMP, "Nothing could be deleted now; try again later")
            return
        self.pop3.updated()

    async def _leave_maildrop(self) -> None:
        """Write what was read and not yet told, and let the next session in."""
        lock, self._lock = self._lock, None
        try:
            events = self._events(())
            self._retrieved_told = True
            if events:
                await self.door.storage.journey.append(events)
        except StorageError:
            # The journey is a record; losing a line of it must not cost the peer its session.
            self._log.warning("journey not written")
        finally:
            if lock is not None:
                await self._unlock(lock)

    def _tell_retrieved(self) -> None:
        """Each message that was sent whole, by its queue id: many in a line, for a line costs as much as a message."""
        login = self._account.login if self._account else None
        indices = [number - 1 for number in sorted(self.pop3.retrieved)]
        for first in range(0, len(indices), IDS_A_LINE):
            part = indices[first : first + IDS_A_LINE]
            self._log.info(
                "messages retrieved",
                login=login,
                messages=len(part),
                size_octets=sum(self._listing.sizes_octets[index] for index in part),
                queue_ids=" ".join(self._listing.queue_ids[index] for index in part),
            )

    async def _unlock(self, lock: MaildropLock) -> None:
        try:
            await self.door.storage.maildrops.unlock(lock)
        except StorageError:
            # What was deleted is deleted, and QUIT must say so; the lock ends with this incarnation.
            self._log.warning("maildrop not unlocked", exc_info=True)

    def _events(self, deleted: tuple[int, ...]) -> list[JourneyEvent]:
        if self._account is None:
            return []
        now = self.door.clock.now()
        told = frozenset[int]() if self._retrieved_told else self.pop3.retrieved
        events: list[JourneyEvent] = []
        for kind, numbers in ((Retrieved, sorted(told)), (Deleted, deleted)):
            events += [
                kind(
                    queue_id=self._listing.queue_ids[number - 1],
                    at=now,
                    login=self._account.login,
                    uidl=self._listing.uidls[number - 1],
                    peer=self.stream.peer_address,
                    session=self._session,
                )
                for number in numbers
            ]
        return events
