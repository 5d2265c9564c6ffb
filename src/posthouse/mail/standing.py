"""Where a message stands now, for each recipient, and the journeys that belong to its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from posthouse.mail.ids import QueueId
from posthouse.mail.journey import (
    Accepted,
    Attempted,
    Deleted,
    JourneyEvent,
    Operated,
    Placed,
    Queued,
    Refused,
    Reported,
    Retrieved,
)
from posthouse.mail.spool import SpoolRow
from posthouse.mail.words import cut, duration, moment, ordinal, some, visible

_SHOWN = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Recipients that stand alike. `command`: how to go on from there; "" where nothing follows."""

    recipients: tuple[str, ...]
    state: str
    """waiting, trying, held, uncertain, in_maildrop, deleted, gone, delivered, failed, removed or refused."""
    text: str
    command: str = ""

    def __str__(self) -> str:
        who = f"{some(self.recipients)}: " if self.recipients else ""
        return cut(visible(f"{who}{self.text}"), _SHOWN)


@dataclass(frozen=True, slots=True)
class Relation:
    """Another journey, and what it is to this one."""

    queue_id: QueueId
    what: str

    @property
    def command(self) -> str:
        """What shows it."""
        return _journey(self.queue_id)


def standing(
    events: Sequence[JourneyEvent], waiting: Iterable[SpoolRow], holders: Collection[str], now: float
) -> tuple[Standing, ...]:
    """Where it stands: `waiting` are the rows of the queue, `holders` the logins in whose maildrops it is."""
    if any(isinstance(event, Refused) for event in events):
        return (Standing(recipients=(), state="refused", text="refused; this house has nothing of it"),)
    rows = {str(row.forward_path): row for row in waiting}
    each = []
    for path, login in _recipients(events).items():
        if login is not None:
            each.append(_in_maildrop(path, login, events, holders))
        elif path in rows:
            each.append(_waiting(path, rows[path], now))
        else:
            each.append(_settled(path, events))
    return _alike(each)


def related(events: Sequence[JourneyEvent]) -> tuple[Relation, ...]:
    """A report and the message that it is about lead to each other."""
    found: dict[QueueId, Relation] = {}
    for event in events:
        match event:
            case Accepted(about=about) if about is not None:
                found[about] = Relation(about, "the message that this report is about")
            case Reported(report_queue_id=report, action=action) if report is not None:
                found[report] = Relation(report, f"the report to its sender ({action})")
            case _:
                pass
    return tuple(found.values())


def _recipients(events: Sequence[JourneyEvent]) -> dict[str, str | None]:
    """Each recipient in the end, with the login of its maildrop; None is elsewhere."""
    found: dict[str, str | None] = {}
    for event in events:
        match event:
            case Placed(forward_path=path, login=login):
                found[path] = login
            case Queued(forward_path=path) | Attempted(forward_path=path):
                found.setdefault(path, None)
            case _:
                pass
    return found


def _in_maildrop(path: str, login: str, events: Sequence[JourneyEvent], holders: Collection[str]) -> Standing:
    whose = f"the maildrop of {login}"
    if login in holders:
        read = [event.at for event in events if isinstance(event, Retrieved) and event.login == login]
        text = f"in {whose}, {f'read last on {moment(read[-1])}' if read else 'not read yet'}"
        return Standing(recipients=(path,), state="in_maildrop", text=text)
    gone = [event.at for event in events if isinstance(event, Deleted) and event.login == login]
    if gone:
        return Standing(recipients=(path,), state="deleted", text=f"deleted from {whose} on {moment(gone[-1])}")
    return Standing(recipients=(path,), state="gone", text=f"no longer in {whose}")


def _waiting(path: str, row: SpoolRow, now: float) -> Standing:
    show = f"posthouse queue show {row.message.queue_id}"
    if row.may_have_arrived:
        text = "may have arrived, and is not sent again unless somebody says so"
        return Standing(recipients=(path,), state="uncertain", text=text, command=show)
    if row.held:
        why = " since a restore" if row.held_by_restore else ""
        why = ": its account had reached its sending limit" if row.held_by_limit else why
        return Standing(
            recipients=(path,),
            state="held",
            text=f"held{why}, until somebody lets it go on",
            command=f"posthouse queue release {row.message.queue_id}",
        )
    if row.claimed:
        return Standing(
            recipients=(path,), state="trying", text=f"being tried now, for the {ordinal(row.attempts)} time"
        )
    wait_s = row.not_before - now
    when = f"in {duration(wait_s)}" if wait_s > 0 else "at once: it is due"
    until = f"; it is given up after {moment(row.expires_at)}" if row.expires_at > row.not_before else ""
    text = f"waits for its {ordinal(row.attempts + 1)} try {when}{until}"
    return Standing(recipients=(path,), state="waiting", text=text)


def _settled(path: str, events: Sequence[JourneyEvent]) -> Standing:
    """It is in the queue no more: the last that was done about it says why."""
    for event in reversed(events):
        match event:
            case Reported(action="failed", forward_paths=paths, report_queue_id=report, reason=reason) if path in paths:
                return _returned(path, report, reason)
            case Operated(action="remove", forward_paths=paths, by=by) if path in paths:
                return Standing(recipients=(path,), state="removed", text=f"taken out of the queue by {by}")
            case Attempted(outcome="delivered", forward_path=known, next_hop=host) if path == known:
                text = f"delivered to {host.removesuffix(':25') or 'the next house'}, which has it since"
                return Standing(recipients=(path,), state="delivered", text=text)
            case Attempted(outcome="failed", forward_path=known) if path == known:
                return Standing(recipients=(path,), state="failed", text="not delivered; the sender wanted no report")
            case _:
                continue
    return Standing(recipients=(path,), state="gone", text="no longer in the queue")


def _returned(path: str, report: QueueId | None, reason: str) -> Standing:
    if report is None:
        text = f"not delivered, and the sender was not told{f': {reason}' if reason else ''}"
        return Standing(recipients=(path,), state="failed", text=text)
    text = f"not delivered; returned to the sender in report {report}"
    return Standing(recipients=(path,), state="failed", text=text, command=_journey(report))


def _alike(each: Iterable[Standing]) -> tuple[Standing, ...]:
    """One line for all that stand alike: a message may have a hundred recipients."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for one in each:
        groups.setdefault((one.state, one.text, one.command), []).extend(one.recipients)
    return tuple(
        Standing(recipients=tuple(recipients), state=state, text=text, command=command)
        for (state, text, command), recipients in groups.items()
    )


def _journey(queue_id: QueueId) -> str:
    return f"posthouse journey {queue_id}"
