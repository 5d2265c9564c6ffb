"""What a maildrop holds (RFC 1939 §4, §7)."""

from __future__ import annotations

from dataclasses import dataclass

from posthouse.mail.ids import AccountId, ContentId, QueueId, Uid, Uidl


@dataclass(frozen=True, slots=True)
class Listing:
    """A folder at one moment, as columns in order of uid. Sizes are exactly what is sent, in octets."""

    uids: tuple[Uid, ...] = ()
    uidls: tuple[Uidl, ...] = ()
    sizes_octets: tuple[int, ...] = ()
    flags: tuple[str, ...] = ()
    content_ids: tuple[ContentId, ...] = ()
    queue_ids: tuple[QueueId, ...] = ()
    internationalised: frozenset[Uid] = frozenset()
    """Those that came with SMTPUTF8 and have UTF-8 in their header section (RFC 6532)."""

    def __len__(self) -> int:
        return len(self.uids)


@dataclass(frozen=True, slots=True)
class MaildropLock:
    """The right to expunge from one account's Inbox by POP3."""

    account: AccountId
    token: str


@dataclass(frozen=True, slots=True)
class InUse:
    """Somebody else holds the lock (`[IN-USE]`, RFC 2449 §8.1.1)."""
