"""The interfaces of storage (design: storage). All are asynchronous; all values live in `mail/`.

Every method may raise the errors of `storage/errors.py`. Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from posthouse.mail.acceptance import Acceptance, Destination
from posthouse.mail.account import (
    Account,
    AccountSummary,
    AppPassword,
    Identity,
    ImportProblem,
    NewAccount,
    Resolution,
    ScramKeys,
)
from posthouse.mail.address import Address
from posthouse.mail.content import ContentFacts, SealedContent
from posthouse.mail.folders import INBOX, FolderSummary
from posthouse.mail.ids import AccountId, ContentId, CredentialId, QueueId, SourceId, Uid
from posthouse.mail.journey import JourneyEvent
from posthouse.mail.limit_notice import OverLimit
from posthouse.mail.maildrop import InUse, Listing, MaildropLock
from posthouse.mail.queue_filter import QueueFilter
from posthouse.mail.source import KnownMessage, Source, SourceSettings, SourceState
from posthouse.mail.spool import Action, Claim, DueDestination, QueueDepth, Settlement, SpoolRow, Tally
from posthouse.storage.observer import Observer
from posthouse.storage.reading import Reading
from posthouse.storage.upkeep import Flaw, Manifest, Order, Retention, Sizes, Tell, tell_nobody


class Draft(Protocol):
    """Content that is being written. Not durable and not visible until an `accept` that names it."""

    @property
    def size_octets(self) -> int: ...

    async def write(self, octets: bytes) -> None:
        """Add a chunk. Waits while too much content is waiting in memory."""
        ...

    async def seal(self, facts: ContentFacts) -> SealedContent:
        """No more chunks; what was written to a file is synced when this returns."""
        ...

    async def discard(self) -> None:
        """Forget it. Safe to call at any time and more than once; after `accept` took the content, does nothing."""
        ...


class Content(Protocol):
    """The octets of each message, once, immutable when sealed."""

    async def draft(self) -> Draft: ...

    def open(self, content_id: ContentId) -> AsyncGenerator[bytes, None]:
        """The octets in chunks of at most 64 KiB. No transaction stays open between two chunks."""
        ...


class Directory(Protocol):
    """Who is there. Point look-ups, cached, fresh at once after a change by another process."""

    async def resolve(self, forward_path: Address) -> Resolution: ...

    async def account(self, login: str) -> Account | None: ...

    async def identities(self, account: AccountId) -> tuple[Address, ...]:
        """Addresses that the account may send as, identities among them; an empty local part is a catch-all."""
        ...

    async def identity(self, address: Address) -> Identity | None:
        """Whose identity an address is that is not ours. Of our own addresses `resolve` knows."""
        ...

    async def logins_without_scram(self, limit: int) -> tuple[str, ...]:
        """Logins of up to `limit` accounts that may log in, and have a password of which no SCRAM keys are kept."""
        ...

    async def domains(self) -> tuple[str, ...]:
        """The local domains, in order of their names."""
        ...


class Administration(Protocol):
    """Changes to the directory. Raises DirectoryConflict with a sentence for the operator."""

    async def add_domain(self, domain: str) -> None:
        """Refused while identities are in it."""
        ...

    async def remove_domain(self, domain: str) -> None:
        """Refused while accounts or aliases have addresses in it."""
        ...

    async def domains(self) -> tuple[str, ...]: ...

    async def add_account(
        self, address: Address, *, verifier: str, quota_octets: int | None, now: float
    ) -> AccountId: ...

    async def import_accounts(
        self, accounts: Sequence[NewAccount], *, now: float, skip_errors: bool, dry_run: bool
    ) -> tuple[ImportProblem, ...]:
        """All of them or, unless `skip_errors`, none, in one transaction; `dry_run`: none, but all is looked at."""
        ...

    async def system_maildrop(self, login: Address, now: float) -> AccountId:
        """The account of that login, made if there is none: without an address, and without a way to log in.

        It keeps mail that must be taken and that nobody reads yet.
        """
        ...

    async def accounts(self) -> tuple[AccountSummary, ...]: ...

    async def set_password(self, login: str, verifier: str, now: float, scram: ScramKeys | None = None) -> None: ...

    async def set_suspended(self, login: str, suspended: bool) -> None: ...

    async def set_recipients_per_hour(self, login: str, limit: int | None) -> None:
        """To how many recipients elsewhere it may send in an hour. None: as the configuration says; 0: any number."""
        ...

    async def set_quota(self, login: str, quota_octets: int | None) -> None:
        """None: no limit. What is there already stays, even if it is more."""
        ...

    async def remove_account(self, login: str, *, keep_mail: bool, now: float) -> None: ...

    async def add_alias(self, address: Address, targets: Sequence[Address]) -> None:
        """An address with an empty local part is the catch-all of its domain."""
        ...

    async def aliases(self) -> tuple[tuple[Address, tuple[Address, ...]], ...]: ...

    async def remove_alias(self, address: Address) -> None: ...

    async def add_identity(self, address: Address, login: str, via: str = "") -> None:
        """Let an account send as an address of a domain that is not ours. `via`: see `Identity`."""
        ...

    async def identities(self) -> tuple[Identity, ...]: ...

    async def remove_identity(self, address: Address) -> None: ...


class Credentials(Protocol):
    """What accounts log in with beside their chosen password. Raises DirectoryConflict as Administration does."""

    async def add_app_password(
        self, login: str, name: str, *, verifier: str, scram: ScramKeys | None, now: float
    ) -> None: ...

    async def app_passwords(self, login: str) -> tuple[AppPassword, ...]: ...

    async def revoke_app_password(self, login: str, name: str) -> None: ...

    async def replace(self, credential: CredentialId, old: str, new: str, scram: ScramKeys | None) -> None:
        """Another verifier for the same password; nothing happens where it is not the old one any more."""
        ...

    async def note_used(self, used: Mapping[CredentialId, float]) -> None:
        """When each was used last. No cache is dropped for it."""
        ...

    async def secret(self, name: str) -> bytes:
        """32 random octets, the same for every process for ever; made when first asked for."""
        ...


class Maildrops(Protocol):
    """Entries of accounts' folders. Uids only grow within a folder; uidls are unique within an account for ever."""

    async def lock(self, account: AccountId) -> MaildropLock | InUse: ...

    async def unlock(self, lock: MaildropLock) -> None: ...

    async def list(self, account: AccountId, folder: str = INBOX) -> Listing: ...

    def read(self, account: AccountId, uid: Uid, folder: str = INBOX) -> AsyncGenerator[bytes, None]:
        """An entry whole: its own prefix, the message's prefix, the content. Raises KeyError when it is gone."""
        ...

    async def expunge(self, lock: MaildropLock, uids: Sequence[Uid], events: Sequence[JourneyEvent]) -> bool:
        """Remove entries from the Inbox, durably when this returns; one that is gone already is no error.

        False: the lock was lost, and nothing was removed.
        """
        ...

    async def used_octets(self, account: AccountId) -> int: ...


class Folders(Protocol):
    """What a maildrop's owner does with its entries. A POP3 session goes on reading what it listed."""

    async def all(self, account: AccountId) -> tuple[FolderSummary, ...]:
        """Those that are there, by name."""
        ...

    async def flag(
        self,
        account: AccountId,
        folder: str,
        uids: Sequence[Uid],
        *,
        add: Collection[str] = (),
        remove: Collection[str] = (),
    ) -> int:
        """Change flags of the entries that are still there; the number of entries that changed."""
        ...

    async def move(self, account: AccountId, folder: str, uids: Sequence[Uid], to: str) -> int:
        """Put entries into another folder, which is made if need be; their UIDLs stay. The number of entries moved.

        In bounded steps. Raises AccountGone.
        """
        ...

    async def remove(
        self, account: AccountId, folder: str, uids: Sequence[Uid], events: Sequence[JourneyEvent] = ()
    ) -> None:
        """Delete entries for good, in one transaction with these events; one that is gone already is no error."""
        ...


class Spool(Protocol):
    """Recipients still to be served elsewhere."""

    async def due(self, now: float, limit: int, after: Destination | None = None) -> tuple[DueDestination, ...]:
        """Destinations with due rows, the longest waiting first.

        Where there are more than `limit`: the first `limit` of them that come after `after` in their own order. Whoever
        goes on with the greatest destination of a full answer, and from the beginning after one that is not full, sees
        every destination in turn.
        """
        ...

    async def claim(self, destination: Destination, limit: int, now: float) -> Claim | None:
        """Claim up to `limit` due rows, durably, adding one to their attempts. None: nothing is due any more.

        A row with which two processes in a row died is claimed with rows of its own message only.
        """
        ...

    async def mark_sending(self, token: str, keys: Sequence[tuple[QueueId, int]], now: float) -> bool:
        """Note durably that the final dot of these rows (queue id, recipient number) may leave from now on.

        For rows that leave through their identity's own server. When such a claim ends without a settlement, its rows
        become held, with a reply that says so and an event in the journey. False: one of them is not claimed by
        `token` any more; nothing was noted, and no dot may leave.
        """
        ...

    async def free_idle(self, in_use: Callable[[], Collection[str]]) -> int:
        """Free claims of this process whose token is not `in_use`, which is asked last; the number of rows.

        A claim is in use from the moment `claim` returned it: whoever calls may not await before it is listed.
        """
        ...

    async def make_due(self, beyond: float, now: float) -> int:
        """Rows that wait until after `beyond` wait until `now`: the clock was wrong when they were put off."""
        ...

    async def next_due(self) -> float | None:
        """The earliest `not_before` of rows that are neither held nor claimed."""
        ...

    async def list(
        self, limit: int = 1000, queue_id: QueueId | None = None, wanted: QueueFilter = ()
    ) -> tuple[SpoolRow, ...]:
        """Rows in the order of their messages, the oldest first."""
        ...

    async def tally(self, wanted: QueueFilter = (), action: Action | None = None) -> Tally:
        """What waits; with an `action`, only what `operate` would change, and without replies."""
        ...

    async def operate(self, action: Action, wanted: QueueFilter, by: str, tell: Tell = tell_nobody) -> int:
        """Do it to all that is wanted; the number of rows that were changed.

        When this returns it is durable, and no process sees a row as it was before; the rows themselves may be changed
        after it, in bounded steps, by the next that need them. `depth` only may count them as they were for a while.
        Each message gets an event that names who did it (`by`), one for each step. Claimed rows are neither tried again
        nor removed; held ones are not tried again, but released. What may have arrived is sent again only where the
        filter names that (`held:uncertain`): somebody decides about each of them (`release`, `retry`, `remove`).
        """
        ...

    async def count(self, wanted: QueueFilter = ()) -> int: ...

    async def depth(self) -> QueueDepth:
        """How deep the queue is, at a bounded cost (about a second): beyond a million waiting, it says a million.

        Of more than 100,000 rows, only those held among the oldest 100,000 are seen.
        """
        ...

    async def over_limit(self, now: float) -> tuple[OverLimit, ...]:
        """Accounts of which more is held by a sending limit than postmaster was told, and not within the last hour."""
        ...

    async def hold(self, queue_id: QueueId, event: JourneyEvent) -> int: ...

    async def release(self, queue_id: QueueId, event: JourneyEvent) -> int:
        """Held rows go on; those that may have arrived are sent again."""
        ...

    async def retry(self, queue_id: QueueId, now: float, event: JourneyEvent) -> int:
        """Rows that wait, and those that may have arrived, are due from `now` on.

        With `AT_ONCE` as `now` they come before all others, and hosts that were found dead are asked, too.
        """
        ...

    async def remove(self, queue_id: QueueId, event: JourneyEvent) -> int:
        """Remove rows that are not claimed; these four return the number of rows changed, with the event if any."""
        ...


class Sources(Protocol):
    """Accounts at other houses that mail is collected from. Raises DirectoryConflict as Administration does."""

    async def add(self, settings: SourceSettings, identity: Identity | None = None) -> SourceId:
        """One more, with the identity of the same address, both or none."""
        ...

    async def change(self, settings: SourceSettings, identity: Identity | None = None) -> None:
        """Other settings for the source of that address, whose account stays; it is tried at once.

        `identity`: the one of the same address is this now, and made where there was none.
        """
        ...

    async def remove(self, address: Address, *, identity: bool = False) -> None:
        """Forget it and what was collected from it, and the identity of the same address if asked; the mail stays."""
        ...

    async def all(self) -> tuple[Source, ...]:
        """In order of their domains."""
        ...

    async def find(self, address: Address) -> Source | None: ...

    async def note(self, source: SourceId, state: SourceState) -> None: ...

    async def known(self, source: Source) -> Mapping[str, KnownMessage]:
        """What is remembered of what was collected from it, by UIDL."""
        ...

    async def note_listed(
        self, source: SourceId, *, gone: Collection[str], back: Collection[str], now: float, forget_before: float
    ) -> None:
        """`gone` are listed no more, `back` are listed again. What went before `forget_before` is forgotten."""
        ...

    async def rename(self, source: SourceId, names: Mapping[str, str]) -> None:
        """Known messages have other UIDLs now (new ones by old ones): the server was migrated."""
        ...


class Journey(Protocol):
    """What became of each message."""

    async def append(self, events: Sequence[JourneyEvent]) -> None: ...

    async def read(self, queue_id: QueueId) -> tuple[JourneyEvent, ...]: ...

    async def find(
        self,
        *,
        reverse_path: str | None = None,
        forward_path: str | None = None,
        message_id: str | None = None,
        reply: str | None = None,
        refused: bool = False,
        since: float | None = None,
        limit: int = 100,
    ) -> tuple[QueueId, ...]:
        """Journeys of which all that is given is true, newest first.

        `reply`: words of one reply, of another server's to an attempt or of ours to what was refused, in any order and
        case; an enhanced status code is one word. `since`: the journey began, or where `reply` is given was answered
        so, at that time or later. Where there are more than `limit` with that reply, those answered last are found.
        """
        ...

    async def beginning_with(self, prefix: str, limit: int = 10) -> tuple[QueueId, ...]:
        """Journeys whose queue id begins so, in order; `prefix` is in capitals."""
        ...

    async def holders(self, queue_id: QueueId) -> tuple[str, ...]:
        """Logins of the accounts in whose maildrops the message is now."""
        ...


class Changes(Protocol):
    """A hint that rows became due. Polling is the truth."""

    async def wait(self, timeout_s: float) -> None:
        """Return at a hint or after the time."""
        ...

    def notify(self) -> None: ...


class Storage(Protocol):
    """One house's durable state."""

    @property
    def directory(self) -> Directory: ...
    @property
    def administration(self) -> Administration: ...
    @property
    def credentials(self) -> Credentials: ...
    @property
    def content(self) -> Content: ...
    @property
    def maildrops(self) -> Maildrops: ...
    @property
    def spool(self) -> Spool: ...
    @property
    def journey(self) -> Journey: ...
    @property
    def folders(self) -> Folders: ...
    @property
    def reading(self) -> Reading: ...
    @property
    def sources(self) -> Sources: ...
    @property
    def changes(self) -> Changes: ...

    def observe(self, observer: Observer) -> None:
        """Tell this one, from now on and instead of the one before, what was done."""
        ...

    async def prove(self) -> None:
        """Commit something small, durably, that leaves nothing behind. Raises what `accept` would."""
        ...

    async def sizes(self) -> Sizes:
        """How large the store is, and its disk; content in files as it was some minutes ago."""
        ...

    async def accept(self, acceptance: Acceptance) -> None:
        """All of it in one durable transaction. Repeating one with the same queue id changes nothing.

        Raises StorageBusy, StorageFull or AccountGone; then nothing of it is there, after a crash neither.
        """
        ...

    async def settle(self, settlement: Settlement) -> bool:
        """All of it in one durable transaction; False: the claim on one of the rows was lost, nothing was changed."""
        ...

    async def tick(self) -> None:
        """Returns when whoever commits has had a turn, in which nothing is written. Raises what storage raises."""
        ...

    async def sweep(self, now: float, retention: Retention | None = None) -> Sequence[Path]:
        """Remove what nothing refers to any more and journeys that are too old; free claims of dead incarnations.

        Returns the snapshots of upgrades that were removed, since these can be undone no more.
        """
        ...

    def check(self, tell: Tell = tell_nobody, *, mend: bool = False) -> AsyncGenerator[Flaw, None]:
        """Look at every row and every content octet; others may write meanwhile.

        `mend`: put right, once all was looked at, what follows from what is there (counters, claims of nobody).
        """
        ...

    async def backup(self, target: Path, order: Order, tell: Tell = tell_nobody) -> Manifest:
        """Copy all of it, as it was at one moment, into a folder that is not there yet; others may write meanwhile.

        What has that name is whole and durable. Raises StorageError; then nothing of it is left.
        """
        ...

    async def close(self) -> None: ...
