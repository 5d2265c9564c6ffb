"""Entries of a maildrop as its owner sees them in a list."""

from __future__ import annotations

from dataclasses import dataclass

from posthouse.mail.folders import ANSWERED, FLAGGED, SEEN
from posthouse.mail.ids import QueueId, Uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """An entry that is not in the index. `is_known`: it was there in another folder, and need not be read again."""

    folder: str
    folder_number: int
    uid: Uid
    queue_id: QueueId
    copy: int
    accepted_at: float
    is_known: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One message. Texts may hold any character. `date` is in Unix seconds, as its writer's clock said if plausible.

    `conversation` is the same for all messages of one; `copy` is above 0 for further entries of one message.
    """

    letter: int
    folder: str
    uid: Uid
    queue_id: QueueId
    copy: int
    flags: frozenset[str]
    size_octets: int
    sender: str
    recipients: str
    subject: str
    attached: int
    conversation: int

    @property
    def date(self) -> float:
        return float(self.letter >> LETTER_BITS)

    @property
    def is_unread(self) -> bool:
        return SEEN not in self.flags

    @property
    def is_answered(self) -> bool:
        return ANSWERED in self.flags

    @property
    def is_flagged(self) -> bool:
        return FLAGGED in self.flags


LETTER_BITS = 20
"""Of a letter's number, below its time: so many messages of one second are told apart."""
