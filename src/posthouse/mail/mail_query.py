"""What is looked for among mail: `from:bob invoice "exact words" before:2026-01-31 in:Sent is:unread`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from posthouse.mail.folders import FOLDERS

MAX_TERMS = 32
MAX_CHARACTERS = 1000
FIELDS: Final = {
    "from": "sender",
    "to": "recipients",
    "cc": "recipients",
    "subject": "subject",
    "file": "files",
    "body": "text",
}
"""Where a word is looked for, by the name that people write; without any, everywhere."""

_TERM = re.compile(r'(-)?(?:([A-Za-z]{2,12}):)?(?:"([^"]*)"?(\*)?|(\S+))')
_DAY = re.compile(r"(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2}))?\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """A word, or several in this order. `column`: where, "" for anywhere; `is_prefix`: the last may go on."""

    text: str
    column: str = ""
    is_prefix: bool = False
    is_not: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MailQuery:
    """All of it is to be true. Times are Unix seconds; `since` is included, `before` is not."""

    words: tuple[Words, ...] = ()
    folder: str | None = None
    since: float | None = None
    before: float | None = None
    seen: bool | None = None
    flagged: bool | None = None
    answered: bool | None = None
    attached: bool | None = None
    conversation: int | None = None

    @property
    def has_words(self) -> bool:
        return any(not words.is_not for words in self.words)


class QueryError(ValueError):
    """A sentence for whoever wrote it."""


@dataclass(slots=True)
class _Found:
    words: list[Words] = field(default_factory=list)
    rest: dict[str, object] = field(default_factory=dict)


def parse_query(text: str) -> MailQuery:
    """Read what a person typed. Raises QueryError. Days begin at midnight UTC."""
    if len(text) > MAX_CHARACTERS:
        raise QueryError(f"that is longer than {MAX_CHARACTERS} characters")
    found = _Found()
    for number, term in enumerate(_TERM.finditer(text)):
        if number >= MAX_TERMS:
            raise QueryError(f"these are more than {MAX_TERMS} words; give fewer")
        _take(found, term)
    return MailQuery(words=tuple(found.words), **found.rest)  # type: ignore[arg-type]


def has_word(text: str) -> bool:
    """Whether there is anything in it that an index knows: letters, digits."""
    return any(unicodedata.category(character)[0] in "LN" for character in text)


def _take(found: _Found, term: re.Match[str]) -> None:
    is_not, name = term[1] is not None, (term[2] or "").lower()
    value = term[3] if term[3] is not None else term[5]
    is_prefix = term[4] is not None
    match name:
        case "" | "from" | "to" | "cc" | "subject" | "file" | "body":
            found.words += _words(value, FIELDS.get(name, ""), is_prefix=is_prefix, is_not=is_not)
            return
        case "in" | "is" | "has" | "before" | "after" | "since" | "on":
            for key, one in _facts(name, value, is_not=is_not):
                if found.rest.setdefault(key, one) != one:
                    raise QueryError(f"{name}:{value} contradicts what stands before it")
        case _ if term[5] is not None and value.startswith("//"):
            # An address of a page, not a name with a value.
            found.words += _words(f"{term[2]}:{value}", "", is_prefix=False, is_not=is_not)
        case _:
            known = "from: to: subject: body: file: has:attachment before: after: on: in:FOLDER is:unread"
            raise QueryError(f"{name}: is not known; there are {known}, and words, with quotes as phrases")


def _words(value: str, column: str, *, is_prefix: bool, is_not: bool) -> Iterator[Words]:
    """A trailing star asks for all that begins so; what holds no word asks for nothing."""
    if value.endswith("*"):
        value, is_prefix = value.rstrip("*"), True
    if has_word(value):
        yield Words(text=value, column=column, is_prefix=is_prefix, is_not=is_not)


def _facts(name: str, value: str, *, is_not: bool) -> Iterator[tuple[str, object]]:
    if name == "in":
        if is_not:
            raise QueryError("-in: is not known; name the folder where it is: in:FOLDER")
        yield "folder", folder_named(value)
    elif name in ("is", "has"):
        yes = not is_not
        match value.lower():
            case "unread" | "new" | "unseen":
                yield "seen", not yes
            case "read" | "seen":
                yield "seen", yes
            case "flagged" | "starred":
                yield "flagged", yes
            case "answered" | "replied":
                yield "answered", yes
            case "attachment" | "attachments" | "file" if name == "has":
                yield "attached", yes
            case _:
                raise QueryError(f"{name}:{value} is not known; there are is:unread, is:answered, has:attachment")
    elif is_not:
        raise QueryError(f"-{name}: is not known; there are before: and after:")
    else:
        first, after = _period(value)
        if name in ("after", "since", "on"):
            # After a day is from its end on; since a day, and on it, is from its beginning on.
            yield "since", after if name == "after" else first
        if name in ("before", "on"):
            yield "before", first if name == "before" else after


def folder_named(value: str) -> str:
    """The folder of that name; those that every account has in any case of letters."""
    return next((folder for folder in FOLDERS if folder.lower() == value.lower()), value)


def _period(value: str) -> tuple[float, float]:
    """Beginning and end of a year, a month or a day."""
    given = _DAY.match(value)
    if given is None:
        raise QueryError(f"{value!r} is not a day such as 2026-03-31, nor a month, nor a year")
    year, month, day = int(given[1]), int(given[2] or 1), int(given[3] or 1)
    try:
        first = datetime(year, month, day, tzinfo=UTC)
        if given[3]:
            after = first + timedelta(days=1)
        elif given[2]:
            after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        else:
            after = datetime(year + 1, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError) as exc:
        raise QueryError(f"{value!r} is not a day that there is") from exc
    return first.timestamp(), after.timestamp()
