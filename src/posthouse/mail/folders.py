"""The folders of an account, by name. POP3 shows the Inbox."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

INBOX: Final = "Inbox"
DRAFTS: Final = "Drafts"
SENT: Final = "Sent"
ARCHIVE: Final = "Archive"
JUNK: Final = "Junk"
TRASH: Final = "Trash"

FOLDERS: Final = (INBOX, DRAFTS, SENT, ARCHIVE, JUNK, TRASH)
"""Those that every account has, in the order in which they are shown."""

SEEN: Final = "\\Seen"
ANSWERED: Final = "\\Answered"
FLAGGED: Final = "\\Flagged"
DRAFT: Final = "\\Draft"
"""Flags of entries, as RFC 3501 §2.3.2 names them."""


@dataclass(frozen=True, slots=True)
class FolderSummary:
    """A folder that is there: one comes to be with its first entry."""

    name: str
    message_count: int
    used_octets: int
    unseen: int
