"""What the server half tells its driver and wants no answer to. (What wants an answer is a command, in `smtp`.)"""

from __future__ import annotations

from dataclasses import dataclass

from posthouse.mail.reply import Reply
from posthouse.protocol.events import Notice


@dataclass(frozen=True, slots=True)
class ContentChunk(Notice):
    """Content as it is to be stored: free of dot-stuffing."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class ContentRefused(Notice):
    """The core answered the end of content by itself; TransactionDropped follows."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class TransactionDropped(Notice):
    """An accepted MAIL ended without a reply to EndOfContent: forget envelope and draft."""


@dataclass(frozen=True, slots=True)
class Rejected(Notice):
    """The core answered an error by itself. `line_verb` is printable, and never holds credentials."""

    line_verb: str
    reply: Reply


@dataclass(frozen=True, slots=True)
class QuitReceived(Notice):
    """The peer took its leave; CLOSED follows."""
