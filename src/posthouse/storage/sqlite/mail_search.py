"""Finding mail, the newest first, and only as much as is wanted: rows stream in the order of their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from posthouse.mail.folders import ANSWERED, FLAGGED, SEEN
from posthouse.mail.ids import AccountId, QueueId, Uid
from posthouse.mail.indexed import LETTER_BITS, Listed
from posthouse.mail.mail_query import MailQuery, Words
from posthouse.storage.sqlite.connection import row, rows

FEW = 2000
"""So many entries, of a folder or with a flag, are looked at instead of all mail from the newest on."""

_COLUMNS = """
SELECT letter, folders.name, uid, letters.queue_id, letters.copy, flags, size_octets, sender, recipients, subject,
    attached, conversation"""
_ENTRY = """entries ON entries.queue_id = letters.queue_id AND entries.account = letters.account
    AND entries.copy = letters.copy"""
# CROSS JOIN keeps SQLite to this order of tables.
_BY_WORDS = """
{columns} FROM (SELECT rowid AS found FROM letter_words WHERE letter_words MATCH :words{range} ORDER BY rowid DESC)
CROSS JOIN letters ON letter = found CROSS JOIN {entry} CROSS JOIN folders ON folders.folder = entries.folder
WHERE letters.account = :account{also} ORDER BY found DESC LIMIT :limit"""
_BY_TIME = """
{columns} FROM letters CROSS JOIN {entry} CROSS JOIN folders ON folders.folder = entries.folder
WHERE letters.account = :account{range}{also} ORDER BY letter DESC LIMIT :limit"""
_BY_FOLDER = """
{columns} FROM folders CROSS JOIN entries ON entries.folder = folders.folder CROSS JOIN letters
    ON letters.account = entries.account AND letters.queue_id = entries.queue_id AND letters.copy = entries.copy
WHERE folders.account = :account{range}{also} ORDER BY letter DESC LIMIT :limit"""
_BY_CONVERSATION = """
{columns} FROM letters INDEXED BY letters_by_conversation CROSS JOIN {entry}
CROSS JOIN folders ON folders.folder = entries.folder
WHERE conversation = :conversation AND letters.account = :account{range}{also} ORDER BY letter DESC LIMIT :limit"""
_HAS_FLAG = "instr(' ' || flags || ' ', ' {flag} ') {test}"
_WITHOUT = " AND letter NOT IN (SELECT rowid FROM letter_words WHERE letter_words MATCH :without)"
_FOLDER_SIZE = "SELECT message_count FROM folders WHERE account = ? AND name = ?"
_FEW_FLAGGED = f"""
SELECT count(*) FROM (
    SELECT 1 FROM folders CROSS JOIN entries ON entries.folder = folders.folder
    WHERE folders.account = :account{{also}} LIMIT {FEW + 1})"""
_NAMED = """
{columns} FROM letters CROSS JOIN {entry} CROSS JOIN folders ON folders.folder = entries.folder
WHERE letters.account = ?1 AND letters.queue_id >= ?2 AND letters.queue_id < ?2 || '~'
ORDER BY letters.queue_id, letters.copy LIMIT ?3"""
_BEFORE = "SELECT max(queue_id) FROM letters WHERE account = ? AND queue_id < ?"
_AFTER = "SELECT min(queue_id) FROM letters WHERE account = ? AND queue_id > ?"


@dataclass(frozen=True, slots=True)
class MailSearch:
    """One question, for one account."""

    account: AccountId
    query: MailQuery
    limit: int

    def run(self, connection: apsw.Connection) -> tuple[Listed, ...]:
        found: list[Any] = rows(connection, self._sql(connection), self._parameters())
        return tuple(_listed(*values) for values in found)

    def _sql(self, connection: apsw.Connection) -> str:
        query = self.query
        if query.has_words:
            return _BY_WORDS.format(columns=_COLUMNS, entry=_ENTRY, range=self._range("rowid"), also=self._also())
        if query.conversation is not None:
            template = _BY_CONVERSATION
        else:
            template = _BY_FOLDER if self._is_small(connection) else _BY_TIME
        return template.format(columns=_COLUMNS, entry=_ENTRY, range=self._range("letter"), also=self._also())

    def _is_small(self, connection: apsw.Connection) -> bool:
        """Whether so few entries come into question that to look at each is least work."""
        if self.query.folder is not None:
            found = row(connection, _FOLDER_SIZE, (self.account, self.query.folder))
            if found is None or found[0] <= FEW:
                return True
        flags = self._flags()
        if not flags:
            return False
        also = "".join(f" AND {test}" for test in (*self._places(), *flags))
        (count,) = row(connection, _FEW_FLAGGED.format(also=also), self._parameters())
        return bool(count <= FEW)

    def _range(self, column: str) -> str:
        since = f" AND {column} >= :since" if self.query.since is not None else ""
        return since + (f" AND {column} < :before" if self.query.before is not None else "")

    def _also(self) -> str:
        query = self.query
        tests = [*self._places(), *self._flags()]
        if query.attached is not None:
            tests.append(f"attached {'> 0' if query.attached else '= 0'}")
        if query.has_words and query.conversation is not None:
            tests.append("conversation = :conversation")
        without = _WITHOUT if not query.has_words and query.words else ""
        return "".join(f" AND {test}" for test in tests) + without

    def _places(self) -> list[str]:
        return [] if self.query.folder is None else ["folders.name = :folder"]

    def _flags(self) -> list[str]:
        query = self.query
        wanted = ((SEEN, query.seen), (FLAGGED, query.flagged), (ANSWERED, query.answered))
        return [_HAS_FLAG.format(flag=flag, test="> 0" if yes else "= 0") for flag, yes in wanted if yes is not None]

    def _parameters(self) -> dict[str, str | int]:
        query = self.query
        return {
            "account": self.account,
            "limit": self.limit,
            "folder": query.folder or "",
            "since": int(query.since or 0) << LETTER_BITS,
            "before": int(query.before or 0) << LETTER_BITS,
            "words": match_of(query.words),
            "without": _any_of(words for words in query.words if words.is_not),
            "conversation": query.conversation or 0,
        }


def match_of(words: Iterable[Words]) -> str:
    """The full-text query. Each word stands in quotes, so that none is an operator."""
    given = tuple(words)
    wanted = [each for each in given if not each.is_not]
    unwanted = [each for each in given if each.is_not]
    together = " AND ".join(map(_term, wanted))
    return f"({together}) NOT ({_any_of(unwanted)})" if wanted and unwanted else together


def _any_of(words: Iterable[Words]) -> str:
    return " OR ".join(map(_term, words))


def _term(words: Words) -> str:
    quoted = words.text.replace('"', '""').replace("\0", " ")
    column = f"{{{words.column}}} : " if words.column else ""
    return f'{column}"{quoted}"{" *" if words.is_prefix else ""}'


def entries_named(connection: apsw.Connection, *, account: AccountId, beginning: str, limit: int) -> tuple[Listed, ...]:
    """Those whose queue id begins so, in order."""
    found = rows(connection, _NAMED.format(columns=_COLUMNS, entry=_ENTRY), (account, beginning, limit))
    return tuple(_listed(*values) for values in found)


def short_names(
    connection: apsw.Connection, *, account: AccountId, queue_ids: Sequence[QueueId], least: int
) -> Mapping[QueueId, str]:
    """Of each queue id as much as tells it from the account's others, at least so many characters."""
    return {queue_id: _short(connection, account, queue_id, least) for queue_id in queue_ids}


def _short(connection: apsw.Connection, account: AccountId, queue_id: QueueId, least: int) -> str:
    needed = least
    for sql in (_BEFORE, _AFTER):
        (other,) = row(connection, sql, (account, queue_id))
        if other is not None:
            same = next((at for at, (a, b) in enumerate(zip(queue_id, other, strict=False)) if a != b), len(queue_id))
            needed = max(needed, same + 1)
    return queue_id[:needed]


def _listed(
    letter: int,
    folder: str,
    uid: int,
    queue_id: str,
    copy: int,
    flags: str,
    size_octets: int,
    sender: str,
    recipients: str,
    subject: str,
    attached: int,
    conversation: int,
) -> Listed:
    return Listed(
        letter=letter,
        folder=folder,
        uid=Uid(uid),
        queue_id=QueueId(queue_id),
        copy=copy,
        flags=frozenset(flags.split()),
        size_octets=size_octets,
        sender=sender,
        recipients=recipients,
        subject=subject,
        attached=attached,
        conversation=conversation,
    )
