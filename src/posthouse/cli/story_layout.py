"""How journeys look: one story with its times in columns, or a list of many, on terminals of any width."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from posthouse.mail.journey import Accepted, JourneyEvent, Refused
from posthouse.mail.standing import Relation, Standing
from posthouse.mail.story import DialogueLine, StoryLine, tell
from posthouse.mail.words import cut, duration, moment, some, visible

_COLUMN = 25
"""Where texts begin: behind the time of day and the time since the last event."""
_NARROW = 74
"""On a terminal of fewer columns texts begin on a line of their own."""
_NARROW_COLUMN = 4
_LEAST_WIDTH = 30
_DIALOGUE_TIME = 10
_QUANTITY = re.compile(r"(\d) (ms|s|min|h|days?|octets?|[KMGT]B)\b")
"""What stands together on one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A journey, where its message stands at `now`, and what belongs to it."""

    events: tuple[JourneyEvent, ...]
    standings: tuple[Standing, ...]
    relations: tuple[Relation, ...]
    now: float


def story(told: Told, *, width: int | None, dialogues: bool) -> Iterator[str]:
    """The lines of one journey. `width`: columns of the terminal; None for whoever reads line by line."""
    lines = tell(told.events)
    first = told.events[0]
    yield from _wrapped("", f"{_kind(first)} {first.queue_id}{_parties(first)}", 2, width)
    day, zone = "", " (times in UTC)"
    for line in lines:
        if (today := _day(line.at)) != day:
            yield f"  {today}{zone}"
            day, zone = today, ""
        yield from _event(line, width)
        if dialogues and line.dialogue:
            yield from _dialogue(line.dialogue, width)
    for number, standing in enumerate(told.standings):
        yield from _leading_on("" if number else "now", str(standing), standing.command, width)
    commands = {standing.command for standing in told.standings}
    for relation in told.relations:
        if relation.command not in commands:
            yield from _leading_on("see also", relation.what, relation.command, width)
    if not dialogues and any(line.dialogue for line in lines):
        yield from _leading_on(
            "see also", "what was said, line by line", f"posthouse journey {first.queue_id} -v", width
        )


def listed(told: Told, *, width: int | None) -> Iterator[str]:
    """One journey of many: who, when, and where it stands."""
    first = told.events[0]
    since = duration(told.now - first.at)
    yield f"{first.queue_id}  {moment(first.at)}, {since} ago"
    yield from _wrapped("    ", f"{_kind(first)}{_parties(first)}", 6, width)
    for standing in told.standings:
        text = _why(first) if isinstance(first, Refused) else str(standing)
        yield from _wrapped("    ", text, 6, width)


def _kind(first: JourneyEvent) -> str:
    if isinstance(first, Refused):
        return "Refused mail"
    return "Report" if isinstance(first, Accepted) and first.source == "report" else "Message"


def _parties(first: JourneyEvent) -> str:
    if not isinstance(first, Accepted | Refused):
        return ""
    sender = "" if first.reverse_path is None else f" from {first.reverse_path or '<>'}"
    recipients = f" to {some(first.forward_paths)}" if first.forward_paths else ""
    return cut(visible(f"{sender}{recipients}"), 300)


def _why(refused: Refused) -> str:
    return cut(visible(f"refused at {refused.command}: {refused.reply}"))


def _event(line: StoryLine, width: int | None) -> Iterator[str]:
    since = f"+{duration(line.since_last_s)}" if line.since_last_s else ""
    yield from _beside(_time_of_day(line.at), line.text, width, since)
    for detail in line.details:
        yield from _wrapped(" " * (_column(width) + 2), detail, _column(width) + 4, width)


def _dialogue(lines: Sequence[DialogueLine], width: int | None) -> Iterator[str]:
    """Each line with the time since the one before: where it waited, it shows."""
    column = _column(width)
    timed = any(line.since_last_s is not None for line in lines)
    title = "What was said (C: this house, S: the other server)"
    yield from _wrapped(
        " " * (column + 2), f"{title}{', with the time since the line before' if timed else ''}:", column + 4, width
    )
    for line in lines:
        since = "" if line.since_last_s is None else f"+{duration(line.since_last_s)}"
        meaning = f"  ({line.meaning})" if line.meaning else ""
        before = " " * (column + 2) + (f"{since:>{_DIALOGUE_TIME}}  " if timed else "")
        yield from _wrapped(before, f"{line.line}{meaning}", len(before) + 3, width)


def _beside(head: str, text: str, width: int | None, since: str = "") -> Iterator[str]:
    """A text beside its time; on a narrow terminal below it."""
    if width is not None and width < _NARROW:
        if head or since:
            yield f"  {head} {since}".rstrip()
        yield from _wrapped(" " * _NARROW_COLUMN, text, _NARROW_COLUMN, width)
        return
    yield from _wrapped(f"  {head:<8} {since:>12}  ", text, _COLUMN, width)


def _leading_on(head: str, text: str, command: str, width: int | None) -> Iterator[str]:
    """A text, and below it the command that leads on, which is never broken."""
    yield from _beside(head, f"{text}:" if command else text, width)
    if command:
        yield " " * (_column(width) + 2) + command


def _column(width: int | None) -> int:
    return _NARROW_COLUMN if width is not None and width < _NARROW else _COLUMN


def _wrapped(before: str, text: str, indent: int, width: int | None) -> Iterator[str]:
    """`before` and the text, on lines that fit; what a peer chose was made harmless before."""
    if width is None:
        yield (before + text).rstrip()
        return
    lines = textwrap.wrap(
        _QUANTITY.sub("\\1\N{NO-BREAK SPACE}\\2", text),
        max(width, indent + _LEAST_WIDTH),
        initial_indent=before,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    )
    yield from (line.replace("\N{NO-BREAK SPACE}", " ") for line in lines)


def _time_of_day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def _day(at: float) -> str:
    return moment(at).partition(",")[0]
