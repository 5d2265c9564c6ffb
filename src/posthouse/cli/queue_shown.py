"""How `posthouse queue` shows what waits: a list, a summary, one message."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence

from posthouse.cli.common import print_rows, printable
from posthouse.mail.acceptance import Destination
from posthouse.mail.spool import DestinationTally, SpoolRow, Tally
from posthouse.mail.waiting import Answered, next_try, state_of, wait_of
from posthouse.mail.words import count, cut, duration, size

WIDE = 130
"""Columns from which a recipient has one line."""


def on_terminal() -> bool:
    """Whether a person looks, whose terminal has a width."""
    return sys.stdout.isatty()


def fields(row: SpoolRow) -> dict[str, object]:
    """A row as JSON."""
    return {
        "queue_id": row.message.queue_id,
        "forward_path": str(row.forward_path),
        "reverse_path": str(row.reverse_path or ""),
        "destination": row.destination.domain,
        "via": row.destination.via or None,
        "accepted_at": row.message.accepted_at,
        "not_before": row.not_before,
        "expires_at": row.expires_at,
        "attempts": row.attempts,
        "tried_at": row.tried_at,
        "held": row.held,
        "held_by": row.hold,
        "held_by_restore": row.held_by_restore,
        "claimed": row.claimed,
        "sending_at": row.sending_at,
        "may_have_arrived": row.may_have_arrived,
        "deaths": row.deaths,
        "last_reply": row.last_reply,
        "size_octets": len(row.message.prefix) + row.message.content_octets,
    }


def summary_fields(tally: DestinationTally) -> dict[str, object]:
    """A destination as JSON."""
    return {
        "destination": tally.destination.domain,
        "via": tally.destination.via or None,
        "recipients": tally.recipients,
        "held": tally.held,
        "claimed": tally.claimed,
        "oldest_at": tally.oldest_at,
        "next_at": tally.next_at,
        "tried_at": tally.tried_at,
        "last_reply": tally.last_reply,
    }


def print_list(rows: Sequence[SpoolRow], now: float, *, empty: str) -> None:
    """One line for each recipient; on a terminal that is narrow, three."""
    columns = shutil.get_terminal_size().columns
    if on_terminal() and columns < WIDE:
        for row in rows:
            _print_narrow(row, now, columns)
        if not rows:
            print(empty)
        return
    shown = [
        {
            "queue_id": row.message.queue_id,
            "to": row.forward_path,
            "waiting_for": duration(now - row.message.accepted_at),
            "attempts": row.attempts,
            "next_try": _next(row, now),
            "why": row.last_reply or "not tried yet",
        }
        for row in rows
    ]
    names = list(shown[0]) if shown else []
    if on_terminal():
        taken = sum(max(len(name), *(len(printable(each[name])) for each in shown)) + 2 for name in names[:-1])
        for each in shown:
            each["why"] = cut(printable(each["why"]), max(20, columns - taken))
    print_rows(shown, names, as_json=False, empty=empty)


def _print_narrow(row: SpoolRow, now: float, columns: int) -> None:
    waited = f"waiting for {duration(now - row.message.accepted_at)}"
    tried = f"tried {count(row.attempts, 'time', 'times')}, {state_of(row, now)}"
    lines = (
        f"{row.message.queue_id}  {printable(row.forward_path)}",
        f"  {waited}, {tried}",
        f"  {printable(row.last_reply) or 'not tried yet'}",
    )
    for line in lines:
        print(cut(line, columns))


def _next(row: SpoolRow, now: float) -> str:
    """Short, for a column."""
    state = state_of(row, now)
    return "now" if row.claimed and not row.held else state.removeprefix("next try ")


def print_summary(tally: Tally, now: float, limit: int) -> None:
    """By destination: what an operator wants to know first when much waits."""
    if not tally.recipients:
        print("Nothing waits.")
        return
    rows = [_summary_row(each, now) for each in tally.destinations[:limit]]
    names = [name for name in rows[0] if name != "held" or any(row["held"] for row in rows)]
    reply = names.pop()
    replies = [printable(row.pop(reply)) for row in rows]
    columns = shutil.get_terminal_size().columns if on_terminal() else 10_000
    taken = sum(max(len(name), *(len(printable(row[name])) for row in rows)) + 2 for name in names)
    if columns - taken < 40:
        # No room beside: below.
        print_rows(rows, names, as_json=False, empty="")
        print("\nWhat they said last:")
        for row, said in zip(rows, replies, strict=True):
            print(cut(f"  {printable(row['destination'])}: {said}", columns))
    else:
        shown = [row | {reply: cut(said, columns - taken)} for row, said in zip(rows, replies, strict=True)]
        print_rows(shown, [*names, reply], as_json=False, empty="")
    print(_total(tally, now, len(rows)))


def _summary_row(each: DestinationTally, now: float) -> dict[str, object]:
    via = f" through {each.destination.via}" if each.destination.via else ""
    next_at = each.next_at
    soon = "held" if each.held == each.recipients else "now"
    return {
        "recipients": each.recipients,
        "destination": f"{each.destination.domain}{via}",
        "held": each.held or "",
        "oldest": duration(now - each.oldest_at),
        "next_try": soon if next_at is None else "due" if next_at <= now else f"in {duration(next_at - now)}",
        "last_reply": each.last_reply or "not tried yet",
    }


def _total(tally: Tally, now: float, shown: int) -> str:
    recipients = count(tally.recipients, "recipient", "recipients")
    destinations = count(len(tally.destinations), "destination", "destinations")
    line = f"{recipients} of {count(tally.messages, 'message', 'messages')} for {destinations}"
    line += f", waiting for up to {duration(now - tally.oldest_at)}."
    more = len(tally.destinations) - shown
    return line + (f"\n{more} more destinations are not shown (--limit)." if more else "")


def print_message(
    rows: Sequence[SpoolRow], now: float, *, total: int, served: bool, answered: Mapping[Destination, Answered]
) -> None:
    """Everything about one message. `answered`: what the destinations of due recipients said last."""
    message = rows[0].message
    sender = printable(rows[0].reverse_path) or "nobody (<>)"
    print(f"Message {message.queue_id} from {sender}, {size(len(message.prefix) + message.content_octets)}")
    accepted = duration(now - message.accepted_at)
    print(f"  accepted {accepted} ago")
    print(f"  told in full by: posthouse journey {message.queue_id}")
    for row in rows:
        print(f"  to {printable(row.forward_path)}")
        if row.destination.via:
            _told("leaves", f"through {row.destination.via}, as mail of {row.identity}")
        wait = wait_of(row, now, served=served, answered=answered.get(row.destination))
        if row.held or row.claimed:
            _told("state", wait.state)
        _told("tried", count(row.attempts, "time", "times"))
        _told("next try", next_try(row, now))
        _told("given up", f"in {duration(row.expires_at - now)}")
        for number, sentence in enumerate(wait.why):
            _told("why" if not number else "", sentence)
        for sentence in wait.decide:
            _told("to do", sentence)
    if total > len(rows):
        print(f"Shown are the first {len(rows)} of {total} recipients.")


def _told(name: str, text: str) -> None:
    """A line below the recipient; folded on a terminal, where commands stay whole."""
    line = f"    {name:<9} {printable(text)}"
    if not on_terminal():
        print(line)
        return
    width = max(shutil.get_terminal_size().columns, 60)
    print(
        textwrap.fill(line, width, subsequent_indent=" " * 14, break_long_words=False, break_on_hyphens=False),
    )
