"""A message's journey as a person would tell it: one plain sentence for each event, with explanations below it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from posthouse.mail.explain import OUR_OPERATOR, Side, explain, meaning, reply_from_text
from posthouse.mail.folders import INBOX
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
from posthouse.mail.refusal import explain_refusal
from posthouse.mail.words import count, cut, duration, moment, size, some, visible

_OPERATIONS = {
    "retry": "asked for another try at once",
    "hold": "put it on hold",
    "release": "let it go on",
    "remove": "took it out of the queue",
}

_ACTIONS = {
    "failed": "failed for",
    "delayed": "is delayed for",
    "delivered": "was delivered to",
    "relayed": "was passed on for",
    "expanded": "was passed on to those behind",
}

_OURS_TO_MEND = "the answer tells what this house has to mend"
_REPLY_CODE = re.compile(r"S: ([2-5]\d\d)(?:\Z| )")
_PROTECTION = {"": "in clear", "S": "encrypted", "A": "in clear, with a login", "SA": "encrypted, with a login"}


@dataclass(frozen=True, slots=True)
class DialogueLine:
    """One line of a dialogue. `since_last_s`: None in journeys of older versions. `meaning`: of a reply code, or ""."""

    since_last_s: float | None
    line: str
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class StoryLine:
    """One event. `since_last_s`: seconds since the event before it. Texts hold no control characters."""

    at: float
    since_last_s: float
    text: str
    details: tuple[str, ...] = ()
    dialogue: tuple[DialogueLine, ...] = ()


def tell(events: Sequence[JourneyEvent]) -> list[StoryLine]:
    """One line for each event, in the order given. All that peers chose is shown escaped and bounded.

    What a reply means is said where it comes first: a message may be put off thirty times for the same reason.
    """
    lines: list[StoryLine] = []
    explained: set[tuple[str, ...]] = set()
    for event in events:
        # Clocks jump back: that is no negative wait.
        since_last_s = max(0.0, event.at - lines[-1].at) if lines else 0.0
        text, details = _told(event)
        if isinstance(event, Attempted) and event.outcome != "delivered":
            meant = tuple(_explained(event.reply, final=event.outcome == "failed"))
            details = [*details, *(() if meant in explained else meant)]
            explained.add(meant)
        shown = tuple(cut(visible(detail)) for detail in details if detail)
        dialogue = _dialogue(event) if isinstance(event, Attempted) else ()
        lines.append(StoryLine(event.at, since_last_s, cut(visible(text), 1000), shown, dialogue))
    return lines


def _dialogue(event: Attempted) -> tuple[DialogueLine, ...]:
    times = event.transcript_ms if len(event.transcript_ms) == len(event.transcript) else ()
    lines: list[DialogueLine] = []
    for number, line in enumerate(event.transcript):
        since_ms = max(0, times[number] - (times[number - 1] if number else 0)) if times else None
        found = _REPLY_CODE.match(line)
        lines.append(
            DialogueLine(
                since_last_s=None if since_ms is None else since_ms / 1000,
                line=cut(visible(line), 600),
                meaning=meaning(int(found[1])) if found else "",
            )
        )
    return tuple(lines)


def _told(event: JourneyEvent) -> tuple[str, Sequence[str]]:
    match event:
        case Accepted():
            return _accepted(event)
        case Placed():
            whose = "" if event.forward_path == event.login else f", for {event.forward_path}"
            return f"Put into the maildrop of {event.login}{whose}", [_folder(event.folder)]
        case Queued():
            by = f" by way of {event.via}" if event.via else ""
            rewritten = f"sender rewritten to {event.rewritten}, so that SPF holds there" if event.rewritten else ""
            return f"Waits to be sent on to {event.domain}{by}, for {event.forward_path}", [rewritten]
        case Attempted():
            return _attempted(event)
        case Reported():
            return _reported(event)
        case Retrieved():
            return f"Read by {event.login}{_from(event.peer)}", [f"UIDL {event.uidl}"]
        case Deleted():
            return f"Deleted by {event.login}{_from(event.peer)}", [f"UIDL {event.uidl}"]
        case Operated(action="limit"):
            why = f"{event.by} sent to more recipients elsewhere within an hour than it may"
            decide = f"Until somebody decides: posthouse queue show {event.queue_id}"
            return f"Held here{_for(event.forward_paths)}: {why}", [decide]
        case Operated():
            did = _OPERATIONS.get(event.action, event.action)
            return f"The operator {event.by} {did}{_for(event.forward_paths)}", []
        case Refused():
            return _refused(event)
        case _:
            assert_never(event)


def _accepted(event: Accepted) -> tuple[str, Sequence[str]]:
    details = [
        f"By {event.protocol}{_protection(event.protocol)}" if event.protocol else "",
        f"Message-ID {event.message_id}" if event.message_id else "",
        _session(event.session),
    ]
    rest = f"{_for(event.forward_paths)}, {size(event.size_octets)}"
    match event.source:
        case "report":
            about = f" about {event.about}" if event.about else ""
            return f"A report{about} was written here{rest}", details
        case "collection":
            return f"Collected from {event.peer}{rest}", details
        case "written":
            return f"Written here by {event.login or _who(event.reverse_path)}{rest}", details
        case _:
            sender = f"{_who(event.reverse_path)} ({_peer(event.peer, event.hello, event.login)})"
            return f"Accepted from {sender}{rest}", details


def _attempted(event: Attempted) -> tuple[str, Sequence[str]]:
    reply = cut(event.reply, 300)
    host = event.next_hop.removesuffix(":25") or "the next hop"
    # (Where the next hop is an address itself, it is not said twice.)
    known = event.address in (None, host.strip("[]"), host.rpartition(":")[0].strip("[]"))
    place = host if known else f"{host} ({event.address})"
    said = f"{host} answered {reply}" if event.from_peer else reply
    took = f"took {duration(event.duration_s)}"
    details = [f"Attempt {event.attempt}, at {place}, {took}"]
    if event.left_alone:
        why = "No connection was made, since other mail had just found nobody there"
        return f"Not tried for {event.forward_path}: {reply}{_next(event)}", [
            f"{why}; it counts as attempt {event.attempt}"
        ]
    match event.outcome:
        case "delivered":
            text = f"Delivered: {place} took responsibility for {event.forward_path}"
            return text, [f"Attempt {event.attempt}, {took}", f"It said {reply}"]
        case "deferred":
            text = f"Put off for {event.forward_path}: {said}{_next(event)}"
        case "uncertain":
            text = f"May have arrived for {event.forward_path}: {reply}{_next(event)}"
        case "failed":
            text = f"Failed for {event.forward_path}: {said}"
        case _:
            text = f"Tried, and the outcome was {event.outcome}: {said}"
    return text, details


def _next(event: Attempted) -> str:
    if event.next_at is None:
        return ""
    wait = event.next_at - event.at
    return f"; next try in {duration(wait)}" if wait < 86400 else f"; next try on {moment(event.next_at)}"


def _reported(event: Reported) -> tuple[str, Sequence[str]]:
    what = f"{_ACTIONS.get(event.action, event.action)} {some(event.forward_paths)}"
    if event.report_queue_id is None:
        return f"Did not tell the sender that it {what}{f': {event.reason}' if event.reason else ''}", []
    return f"Told the sender that it {what}, in the report {event.report_queue_id}", [event.reason]


def _refused(event: Refused) -> tuple[str, Sequence[str]]:
    sender = f" from {_who(event.reverse_path)}" if event.reverse_path is not None else ""
    reply = reply_from_text(event.reply)
    parties = f"{sender}{_for(event.forward_paths)}"
    return f"Refused at {event.command}{f': mail{parties}' if parties else ''}", [
        f"We said {cut(event.reply, 300)}",
        *(explain_refusal(reply, logged_in=event.login is not None) if reply is not None else ()),
        f"Peer {_peer(event.peer, event.hello, event.login)}",
        _session(event.session),
    ]


def _explained(reply_text: str, *, final: bool) -> Iterator[str]:
    """For the operator of this house, where `explain` speaks to the sender."""
    reply = reply_from_text(reply_text)
    if reply is None:
        return
    explained = explain(reply, final=True)
    yield explained.with_cause
    if explained.side is Side.OURS or explained.advice == OUR_OPERATOR:
        what, later = f"What to do: {_OURS_TO_MEND}.", f"If it lasts, {_OURS_TO_MEND}."
    else:
        what, later = (
            f"What to tell the sender: {explained.advice}",
            f"If it lasts, tell the sender: {explained.advice}",
        )
    yield what if final else f"Nothing to do yet: it is tried again by itself. {later}"


def _protection(protocol: str) -> str:
    """What the letters of `with` say (RFC 3848, RFC 6531)."""
    known = _PROTECTION.get(protocol.removeprefix("UTF8").removeprefix("E").removeprefix("SMTP"))
    return f", {known}" if known else ""


def _session(session: str | None) -> str:
    return f"In the log: session {session}" if session else ""


def _who(reverse_path: str | None) -> str:
    return reverse_path or "nobody (<>)"


def _peer(peer: str, hello: str, login: str | None) -> str:
    logged_in = f", logged in as {login}" if login else ""
    return f"{peer or 'address unknown'}{f', said it is {hello}' if hello else ''}{logged_in}"


def _from(peer: str) -> str:
    return f" ({peer})" if peer else ""


def _for(forward_paths: tuple[str, ...]) -> str:
    if not forward_paths:
        return ""
    more = f" ({count(len(forward_paths), 'recipient', 'recipients')})" if len(forward_paths) > 3 else ""
    return f" for {some(forward_paths)}{more}"


def _folder(folder: str) -> str:
    return f"Folder {folder}" if folder not in ("", INBOX) else ""
