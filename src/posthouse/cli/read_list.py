"""How lists of messages look: one line each, on terminals of any width."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posthouse.mail.folders import DRAFTS, INBOX, SENT
from posthouse.mail.indexed import Listed
from posthouse.mail.standing import Standing, standing
from posthouse.mail.words import visible

if TYPE_CHECKING:
    from posthouse.storage.interfaces import Storage

DEFAULT_COLUMNS = 80
_WHO = 20
_LEAST_SUBJECT = 20
_DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A message in a list. `state`: of what was sent from here, how far it came; `together`: messages with it."""

    letter: Listed
    name: str
    state: str = ""
    together: int = 1


def layout(lines: Sequence[Line], *, width: int | None, now: float, folder: str | None) -> Iterator[str]:
    """The list. `width`: columns of the terminal; None for whoever reads line by line."""
    ours = folder in (SENT, DRAFTS)
    names = max([2, *(len(line.name) for line in lines)])
    states = max([0, *(len(line.state) for line in lines)])
    fixed = names + 2 + 10 + 2 + 3 + 2 + _WHO + 2 + (states + 2 if states else 0)
    places = folder is None
    room = None if width is None else max(_LEAST_SUBJECT, width - fixed)
    heads = [f"{'id':{names}}", f"{'date':10}", "   ", f"{'to' if ours else 'from':{_WHO}}"]
    if states:
        heads.append(f"{'state':{states}}")
    yield "  ".join([*heads, "subject"])
    for line in lines:
        letter = line.letter
        is_ours = ours or letter.folder in (SENT, DRAFTS)
        who = short_name(letter.recipients if is_ours else letter.sender)
        if is_ours and not ours:
            who = f"to {who}"
        cells = [f"{line.name:{names}}", f"{date_shown(letter.date, now):10}", marks(letter), fitted(who, _WHO)]
        if states:
            cells.append(f"{line.state:{states}}")
        subject = visible(" ".join(letter.subject.split())) or "(no subject)"
        before = f"[{visible(letter.folder)}] " if places and letter.folder != INBOX else ""
        behind = f" ({line.together})" if line.together > 1 else ""
        told = f"{before}{subject}"
        if room is not None:
            told = fitted(told, room - len(behind)).rstrip()
        yield "  ".join([*cells, told + behind]).rstrip()


def json_row(line: Line, login: str) -> dict[str, Any]:
    """The same for programs."""
    letter = line.letter
    row: dict[str, Any] = {
        "id": line.name,
        "queue_id": letter.queue_id,
        "account": login,
        "folder": letter.folder,
        "date": letter.date,
        "from": letter.sender,
        "to": letter.recipients,
        "subject": letter.subject,
        "size_octets": letter.size_octets,
        "unread": letter.is_unread,
        "answered": letter.is_answered,
        "flagged": letter.is_flagged,
        "attachments": letter.attached,
        "conversation": letter.conversation,
        "messages": line.together,
    }
    return {**row, "state": line.state or None}


def marks(letter: Listed) -> str:
    """`N` new, `r` replied to, `!` flagged, `@` has attachments: three columns."""
    first = "N" if letter.is_unread else "r" if letter.is_answered else " "
    return f"{first}{'!' if letter.is_flagged else ' '}{'@' if letter.attached else ' '}"


def short_name(people: str) -> str:
    """The first of a list of mailboxes, by name if it has one."""
    first = people.strip()
    if first.startswith('"'):
        name, _, _ = first[1:].partition('"')
    else:
        name, _, rest = first.partition("<")
        name = name if rest else first.split(",")[0]
    name = name.strip() or first.strip('<> ,"')
    return visible(" ".join(name.split())) or "(nobody)"


def date_shown(at: float, now: float) -> str:
    """The time of day of what is not a day old, else the day; as the clock here has it."""
    local = time.localtime(at)
    return time.strftime("%H:%M", local) if 0 <= now - at < _DAY_S else time.strftime("%Y-%m-%d", local)


def fitted(text: str, width: int) -> str:
    """Cut and filled to so many columns; wide characters take two, combining ones none."""
    taken: list[str] = []
    used = 0
    for character in text[: width * 8]:
        columns = columns_of(character)
        if used + columns > width:
            while used + 1 > width and taken:
                used -= columns_of(taken.pop())
            taken.append("…")
            used += 1
            break
        taken.append(character)
        used += columns
    return "".join(taken) + " " * (width - used)


def columns_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


async def state_of(storage: Storage, letter: Listed, now: float) -> str:
    """How far a message that was written here came; "" where nothing is known of that."""
    events = await storage.journey.read(letter.queue_id)
    waiting = await storage.spool.list(limit=1000, queue_id=letter.queue_id)
    if not events and not waiting:
        return ""
    holders = await storage.journey.holders(letter.queue_id)
    return state_in_words(standing(events, waiting, holders, now))


def state_in_words(standings: Iterable[Standing]) -> str:
    """The worst of its recipients' states. "Sent" only where the other house has it, for each of them."""
    states = {each.state for each in standings}
    if "uncertain" in states:
        return "may have arrived"
    if states & {"failed", "removed", "refused"}:
        return "failed"
    if "held" in states:
        return "held"
    if states & {"waiting", "trying"}:
        return "waiting"
    if states and states <= {"delivered", "in_maildrop", "deleted"}:
        return "sent"
    return "unknown"
