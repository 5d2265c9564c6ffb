"""What journeys are found by beside their parties: the words of a reply, and the Message-ID, each in one spelling."""

from __future__ import annotations

import re
import unicodedata

from posthouse.mail.journey import Attempted, JourneyEvent, Refused

MOST_WORDS = 64
MOST_CHARACTERS = 40
_TEXT_CHARACTERS = 1000
# An enhanced status code (RFC 3463 §2) is one word; 4.7.28 inside an IP address is none.
_WORD = re.compile(r"(?<![\d.])[245]\.\d{1,3}\.\d{1,3}(?!\.?\d)|[^\W_]+")


def words_of(text: str) -> tuple[str, ...]:
    """The words of a reply, or of what one looks for in replies: each once, without case and punctuation."""
    spelled = unicodedata.normalize("NFKC", text[:_TEXT_CHARACTERS]).casefold()
    words = dict.fromkeys(found[:MOST_CHARACTERS] for found in _WORD.findall(spelled))
    return tuple(words)[:MOST_WORDS]


def reply_of(event: JourneyEvent) -> str:
    """The reply that an event tells of, another server's or ours; "" where it tells of none."""
    return event.reply if isinstance(event, Attempted | Refused) else ""


def message_id_key(message_id: str) -> str:
    """The spelling that a Message-ID is compared in: without angle brackets, space around it and case."""
    return message_id.strip()[:1000].removeprefix("<").removesuffix(">").strip().lower()
