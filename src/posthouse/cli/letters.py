"""Whose mail is read here, and which message is meant: shared by `posthouse read` and `posthouse send --reply`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from posthouse.cli.common import Problem, printable
from posthouse.cli.progress import progress_shown
from posthouse.mail.ids import AccountId, QueueId
from posthouse.mail.indexed import Listed
from posthouse.mail.words import some

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from posthouse.storage.interfaces import Storage

LEAST_CHARACTERS = 8
"""Of an id that is shown: with so many it means another second than those of mail that comes later."""
QUEUE_ID_CHARACTERS = 26
_SHOWN = 4
_CROCKFORD = frozenset("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
# As read aloud or from paper: Crockford's base 32 has no I, L and O.
_MISREAD = str.maketrans("ILO", "110")


@dataclass(frozen=True, slots=True)
class Reader:
    """The account whose mail is read."""

    account: AccountId
    login: str


async def find_reader(storage: Storage, wanted: str | None, option: str = "--account") -> Reader:
    """The account of that login or address; None: the only one here. `option` names it. Raises Problem."""
    logins = [summary.login for summary in await storage.administration.accounts() if not summary.suspended]
    if wanted is None:
        if not logins:
            raise Problem("this house has no account to read; add one: posthouse account add ADDRESS")
        if len(logins) > 1:
            raise Problem(f"{some(logins)} have accounts here; say whose mail: {option} {logins[0]}")
        wanted = logins[0]
    account = await storage.directory.account(wanted)
    if account is None:
        raise Problem(f"{wanted!r} has no account here; see: posthouse account list")
    return Reader(account.account, account.login)


async def refresh(storage: Storage, reader: Reader) -> None:
    """Let the index know all that is there, with a bar where that takes a while."""
    from posthouse.indexing import bring_up_to_date

    await storage.reading.begin(reader.account)
    with progress_shown() as tell:
        await bring_up_to_date(storage, reader.account, tell)


async def find_letter(storage: Storage, reader: Reader, wanted: str) -> Listed:
    """The message with that id, of which the beginning is enough. Raises Problem."""
    beginning, copy = _spelled(wanted)
    found = await storage.reading.named(reader.account, beginning, _SHOWN * 2)
    if copy is not None:
        found = tuple(each for each in found if each.copy == copy)
    ids = list(dict.fromkeys(each.queue_id for each in found))
    if not ids:
        raise Problem(f"no message has the id {printable(wanted)}; see: posthouse read")
    if len(ids) > 1:
        more = ", …" if len(ids) >= _SHOWN else ""
        shown = await storage.reading.short_names(reader.account, ids[: _SHOWN - 1], LEAST_CHARACTERS)
        raise Problem(
            f"{beginning} is the beginning of several: {', '.join(shown.values())}{more}; give more of it: "
            f"posthouse read {shown[ids[0]]}"
        )
    return found[0]


async def names_of(storage: Storage, reader: Reader, letters: Sequence[Listed]) -> Mapping[int, str]:
    """What each is called here, by its number: as much of its id as is needed."""
    ids = list(dict.fromkeys(each.queue_id for each in letters))
    short = await storage.reading.short_names(reader.account, ids, LEAST_CHARACTERS)
    names = {}
    for each in letters:
        # Of a message to oneself there is another copy in Sent.
        is_further = each.copy and await _has_first_copy(storage, reader, each.queue_id)
        names[each.letter] = f"{short[each.queue_id]}.{each.copy}" if is_further else short[each.queue_id]
    return names


async def _has_first_copy(storage: Storage, reader: Reader, queue_id: QueueId) -> bool:
    return any(each.copy == 0 for each in await storage.reading.named(reader.account, queue_id, 2))


def _spelled(wanted: str) -> tuple[str, int | None]:
    """The beginning of a queue id, and which of its copies. Raises Problem."""
    beginning, dot, number = wanted.strip().upper().partition(".")
    beginning = beginning.translate(_MISREAD)
    is_right = 0 < len(beginning) <= QUEUE_ID_CHARACTERS and set(beginning) <= _CROCKFORD
    if not is_right or (dot and not (number.isascii() and number.isdigit() and len(number) < 9)):
        raise Problem(
            f"{printable(wanted)!r} is not the id of a message; they stand in the list: posthouse read "
            "(to look for words: posthouse read --search WORDS)"
        )
    return beginning, int(number) if dot else None
