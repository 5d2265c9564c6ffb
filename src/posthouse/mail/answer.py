"""What an answer begins with: whom it goes to, its subject, the quoted text, what it refers to (RFC 5322 §3.6)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from posthouse.mail.address import Address, AddressError, parse_address
from posthouse.mail.charsets import decoded
from posthouse.mail.encoded_words import text_of
from posthouse.mail.found_by import addresses_in, references_in
from posthouse.mail.letter import references_of, reply_subject
from posthouse.mail.mailboxes import Mailbox, parse_named_mailboxes
from posthouse.mail.mime import Message
from posthouse.mail.readable import harmless, text
from posthouse.mail.words import cut, visible

MAX_PEOPLE = 200
MAX_QUOTED_LINES = 2000
_IN_BRACKETS = re.compile(r"<([^<>\s]{1,200}@[^<>\s]{1,250})>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A letter that is begun. `addressed`: the own addresses that the message went to, in order."""

    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    subject: str
    quoted: str
    in_reply_to: str
    references: tuple[str, ...]
    addressed: tuple[Address, ...]


def answer_to(message: Message, is_own: Callable[[Address], bool], *, everyone: bool, written: str) -> Answer:
    """Begin an answer, to whoever wrote the message or to everyone in it. `written`: when, in words.

    An answer to a message of one's own goes to those that it went to.
    """
    authors = _people(message, "from")
    to, cc = _people(message, "to"), _people(message, "cc")
    came_to = (*to, *cc, *_people(message, "delivered-to"))
    if authors and all(is_own(mailbox.address) for mailbox in authors):
        first, came_to = list(to), authors
    else:
        first = [*(_people(message, "reply-to") or authors), *(to if everyone else ())]
    taken: set[str] = set()
    others = list(_others(first, taken, is_own)) or first[:1]
    own_id = references_of([message.text("message-id")])
    return Answer(
        to=tuple(others),
        cc=tuple(_others(cc, taken, is_own)) if everyone else (),
        subject=cut(visible(reply_subject(message.text("subject"))), 500),
        quoted="\n".join(_quoted(message, authors, written)) + "\n",
        in_reply_to=own_id[0] if own_id else "",
        references=references_of([*(named.decode("ascii", "replace") for named in references_in(message)), *own_id]),
        addressed=tuple(dict.fromkeys(mailbox.address for mailbox in came_to if is_own(mailbox.address))),
    )


def _people(message: Message, name: str) -> tuple[Mailbox, ...]:
    """The mailboxes of all such fields; of a field that is not right, the addresses in it."""
    found = [mailbox for value in message.all(name) for mailbox in _mailboxes(value[: 64 * 1024])]
    return tuple(found[:MAX_PEOPLE])


def _mailboxes(value: bytes) -> Iterator[Mailbox]:
    try:
        for mailbox in parse_named_mailboxes(decoded(value)):
            # The name is decoded after the list was taken apart: a comma in it separates nothing.
            yield Mailbox(mailbox.address, visible(text_of(mailbox.name.encode())))
    except AddressError:
        # What a name only claims to be is nobody to answer: an address in brackets comes first.
        raw = decoded(value)
        for address in _IN_BRACKETS.findall(raw) or addresses_in(raw):
            try:
                yield Mailbox(parse_address(address))
            except AddressError:
                continue


def _others(people: Iterable[Mailbox], taken: set[str], is_own: Callable[[Address], bool]) -> Iterator[Mailbox]:
    """Each once, and not oneself."""
    for mailbox in people:
        if mailbox.address.key not in taken and not is_own(mailbox.address):
            taken.add(mailbox.address.key)
            yield mailbox


def _quoted(message: Message, authors: Iterable[Mailbox], written: str) -> Iterator[str]:
    author = next(((mailbox.name or str(mailbox.address)) for mailbox in authors), "")
    yield f"On {written}, {cut(visible(author or 'somebody'), 100)} wrote:"
    for line in islice(harmless(text(message).text), MAX_QUOTED_LINES):
        yield f">{line}" if line.startswith(">") else f"> {line}".rstrip()
