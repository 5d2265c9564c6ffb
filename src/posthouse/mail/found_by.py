"""What a message is listed and found by: who, whom to, what about, its words, its files, its conversation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_tz
from hashlib import blake2b

from posthouse.mail.address import AddressError
from posthouse.mail.encoded_words import text_of
from posthouse.mail.mailboxes import parse_named_mailboxes
from posthouse.mail.mime import Message
from posthouse.mail.readable import attachments, text

TEXT_CHARACTERS = 200_000
"""Of a text that is found by its words."""
LINE_CHARACTERS = 400
MOST_NAMES = 200
MOST_REFERENCES = 50
_AHEAD_S = 86_400
_EARLIEST = 0

_MESSAGE_ID = re.compile(rb"<[^<>\s]{1,500}>")
_ADDRESS = re.compile(r"[^\s<>()\[\]\",;:]{1,200}@[^\s<>()\[\]\",;:]{1,250}")
_ANSWER = re.compile(
    r"(?:\s*(?:re|aw|sv|antw|antwort|vs|odp|ref|rif)\s*(?:\[\d{1,3}\]|\(\d{1,3}\))?\s*:)+\s*", re.IGNORECASE
)
LEAST_SUBJECT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundBy:
    """Texts are on one line and may hold any character. `date` is in Unix seconds."""

    date: float
    sender: str
    recipients: str
    subject: str
    text: str
    files: tuple[str, ...]
    attached: int
    """Files that do not belong into the text."""
    addresses: frozenset[str]
    """Of sender and recipients, in lower case."""
    sender_address: str
    message_id: int | None
    references: tuple[int, ...]
    """Hashes of the Message-IDs of the conversation, the answered one last."""
    answer_to: str
    """The subject that it answers, "" where it does not look like an answer."""


def found_by(message: Message, accepted_at: float) -> FoundBy:
    """Bounded, whatever the message is."""
    senders = message.text("from") or message.text("sender") or message.text("return-path")
    whom_to = ", ".join(text_of(value) for name in ("to", "cc", "bcc") for value in message.all(name))
    files = attachments(message)
    subject = message.text("subject")
    own = _ids(message.all("message-id"))
    return FoundBy(
        date=date_of(message, accepted_at),
        sender=senders[:LINE_CHARACTERS],
        recipients=whom_to[: LINE_CHARACTERS * 10],
        subject=subject[: LINE_CHARACTERS * 2],
        text=text(message).text[:TEXT_CHARACTERS],
        files=tuple((each.part.name or each.file_name)[:LINE_CHARACTERS] for each in files[:MOST_NAMES]),
        attached=sum(not each.is_picture_of_text for each in files),
        addresses=frozenset(addresses_in(f"{senders}, {whom_to}")),
        sender_address=next(iter(addresses_in(senders)), ""),
        message_id=id_hash(own[0]) if own else None,
        references=tuple(map(id_hash, references_in(message))),
        answer_to=answered_subject(subject),
    )


def references_in(message: Message) -> list[bytes]:
    """Message-IDs of the conversation, without its own; the answered one last (RFC 5322 §3.6.4)."""
    named = [*_ids(message.all("references")), *_ids(message.all("in-reply-to"))[:5]]
    found = list(dict.fromkeys(named))
    return found if len(found) <= MOST_REFERENCES else [found[0], *found[1 - MOST_REFERENCES :]]


def id_hash(message_id: bytes) -> int:
    """64 bits: few octets, and nobody meets another's by chance."""
    return int.from_bytes(blake2b(message_id, digest_size=8).digest(), "big", signed=True)


def answered_subject(subject: str) -> str:
    """`Re: Re: X` answers `x`; one that is too short to tell anything answers nothing."""
    answer = _ANSWER.match(subject[:LINE_CHARACTERS])
    return plain_subject(subject) if answer else ""


def plain_subject(subject: str) -> str:
    """What messages of one conversation have in common, "" where that is too little."""
    subject = subject[:LINE_CHARACTERS]
    answer = _ANSWER.match(subject)
    rest = " ".join(subject[answer.end() if answer else 0 :].casefold().split())
    return rest if len(rest) >= LEAST_SUBJECT else ""


def date_of(message: Message, accepted_at: float) -> float:
    """When it was written, as far as that can be believed: not after it came, nor before there were such clocks."""
    written = _parsed_date(message.text("date")[:100])
    if written is None or not _EARLIEST <= written <= accepted_at + _AHEAD_S:
        return accepted_at
    return written


def addresses_in(text: str) -> list[str]:
    """What looks like addresses, in lower case; of a list that is right, what is right."""
    text = text[: LINE_CHARACTERS * 20]
    try:
        return [str(mailbox.address).lower() for mailbox in parse_named_mailboxes(text)][:MOST_NAMES]
    except AddressError:
        return [found.lower() for found in _ADDRESS.findall(text)][:MOST_NAMES]


def _parsed_date(text: str) -> float | None:
    try:
        parsed = parsedate_tz(text)
        if parsed is None:
            return None
        at = datetime(*parsed[:6], tzinfo=UTC) - timedelta(seconds=parsed[9] or 0)
        return at.timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _ids(values: Iterable[bytes]) -> list[bytes]:
    return [found for value in values for found in _MESSAGE_ID.findall(value[:64_000])[:1000]]
