"""The folders of an account, by name. POP3 shows the Inbox."""

from __future__ import annotations

from typing import Final

INBOX: Final = "Inbox"
DRAFTS: Final = "Drafts"
SENT: Final = "Sent"
ARCHIVE: Final = "Archive"
JUNK: Final = "Junk"
TRASH: Final = "Trash"

FOLDERS: Final = (INBOX, DRAFTS, SENT, ARCHIVE, JUNK, TRASH)
"""Those that every account has, in the order in which they are shown."""
