"""The first part of a report: what a person needs to know, in the order in which they want to know it.

What happened, in one sentence; whose side it is on; what to do; the other server's words; and last what somebody who
helps will ask for. Recipients of whom the same is to be said are told of together.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import assert_never

from posthouse.mail.explain import Explanation, Side, explain
from posthouse.mail.report_request import Action, RecipientStatus, ReportRequest
from posthouse.mail.title import title_of
from posthouse.mail.words import cut, duration, moment, some, visible

MAX_REPLY_LINES = 20
"""Of one reply; fewer where a report quotes many, so that a hundred recipients do not make a large report."""
_MAX_LINES_IN_ALL = 200
MAX_REPLY_LINE_CHARACTERS = 500
MAX_TITLE_CHARACTERS = 60
_WIDTH = 76
_NAMED_IN_THE_SENTENCE = 3

_SUBJECTS = {
    Action.FAILED: "Could not be delivered",
    Action.DELAYED: "Delayed",
    Action.DELIVERED: "Delivered",
    Action.RELAYED: "Passed on",
    Action.EXPANDED: "Delivered and passed on",
}
_DOUBTFUL_SUBJECT = "May not have arrived"
_SIDES = {
    Side.ADDRESS: "The cause is the address; no server is at fault.",
    Side.RECIPIENT: "The cause is on the recipient's side.",
    Side.SENDER: "The cause is on the sender's side, which is yours.",
    Side.OURS: "The cause is on our side: that of the mail system that sends for you.",
    Side.NETWORK: "The cause is on the way between the two mail systems.",
    Side.UNKNOWN: "On whose side the cause is cannot be told.",
}
_NOBODY_KNOWS = Explanation(
    "The connection broke off after the whole message was sent, and before the other server said that it has it.",
    Side.NETWORK,
    "Ask the recipient whether it is there before you send it again.",
)
_MAY_COME_TWICE = Explanation(
    _NOBODY_KNOWS.sentence, Side.NETWORK, "Nothing: it is tried again by itself, and may then arrive twice."
)


def subject(recipients: tuple[RecipientStatus, ...]) -> str:
    """The worst news and whom it is about: `Could not be delivered: nobdy@south.test`."""
    worst = next(action for action in Action if any(status.action is action for status in recipients))
    told = [status for status in recipients if status.action is worst]
    doubtful = worst is Action.FAILED and all(status.may_have_arrived for status in told)
    title = _DOUBTFUL_SUBJECT if doubtful else _SUBJECTS[worst]
    return f"{title}: {some([visible(str(status.final_recipient)) for status in told])}"


def human_text(request: ReportRequest, returned: str) -> str:
    """Paragraphs of short lines, each ended by a line feed. `returned` says what of the original follows."""
    original = request.original
    title = cut(visible(title_of(original.beginning)), MAX_TITLE_CHARACTERS)
    message = f'Your message "{title}"' if title else "Your message"
    paragraphs: list[str] = []
    for group in _alike(request.recipients):
        quote = _quoted(reply_lines(group[0], len(request.recipients)))
        paragraphs.extend(_about(message, group, quote, request.now - original.arrived_at))
    paragraphs.append(
        _wrapped(
            f"If you ask somebody for help, show them all of this. It was written by {request.hostname}, which took "
            f"your message on {moment(original.arrived_at)} as {original.queue_id}. {returned}"
        )
    )
    return "\n\n".join(paragraphs) + "\n"


def reply_lines(status: RecipientStatus, recipients: int) -> list[str]:
    """The reply as it stood on the wire, line by line, free of control characters (RFC 3461 §9.2).

    Bounded, by how many recipients the report is about.
    """
    reply = status.reply
    limit = max(2, min(MAX_REPLY_LINES, _MAX_LINES_IN_ALL // recipients))
    texts = [cut(visible(line.rstrip("\r")), MAX_REPLY_LINE_CHARACTERS, "...") for line in reply.text.split("\n")]
    if len(texts) > limit:
        texts = [*texts[: limit - 1], "..."]
    enhanced = cut(f"{reply.enhanced} ", 20, "... ") if reply.enhanced else ""
    last = len(texts) - 1
    return [f"{reply.code}{' ' if n == last else '-'}{enhanced}{text}".rstrip() for n, text in enumerate(texts)]


def _alike(recipients: Iterable[RecipientStatus]) -> list[list[RecipientStatus]]:
    groups: dict[object, list[RecipientStatus]] = {}
    for status in recipients:
        place = (status.remote_host, status.remote_ip) if status.from_peer else None
        what = (status.action, status.expired, status.may_have_arrived, status.last_attempt_at, status.will_retry_until)
        groups.setdefault((what, status.from_peer, place, status.reply), []).append(status)
    return list(groups.values())


def _about(message: str, group: list[RecipientStatus], quote: str, waited_s: float) -> list[str]:
    """The paragraphs about recipients of whom the same is to be said."""
    status = group[0]
    named = [_named(each) for each in group]
    listed = len(group) > _NAMED_IN_THE_SENTENCE
    to = "the recipients below" if listed else some(named)
    paragraphs = [_wrapped(_sentence(message, to, status, waited_s))]
    if listed:
        paragraphs.append("\n".join(f"    {name}" for name in named))
    if status.action in (Action.FAILED, Action.DELAYED):
        explained = _explained(status)
        paragraphs.append(_wrapped(f"{explained.sentence} {_SIDES[explained.side]}"))
        paragraphs.append(_wrapped(f"What to do: {explained.advice}"))
    paragraphs.extend(_words(status, quote))
    if status.last_attempt_at is not None and status.action in (Action.FAILED, Action.DELAYED):
        paragraphs.append(f"Last tried on {moment(status.last_attempt_at)}.")
    return paragraphs


def _explained(status: RecipientStatus) -> Explanation:
    failed = status.action is Action.FAILED
    if status.may_have_arrived:
        return _NOBODY_KNOWS if failed else _MAY_COME_TWICE
    return explain(status.reply, final=failed)


def _words(status: RecipientStatus, quote: str) -> list[str]:
    """The other server's words, quoted; else ours, where there is something to tell."""
    if status.from_peer:
        place = f" ({cut(visible(status.remote_ip), 64)})" if status.remote_ip else ""
        host = cut(visible(status.remote_host), 255) or "unnamed"
        return [_wrapped(f"The other server, {host}{place}, answered:"), quote]
    if status.action in (Action.FAILED, Action.DELAYED):
        return ["As our own log has it:", quote]
    return []


def _sentence(message: str, to: str, status: RecipientStatus, waited_s: float) -> str:
    match status.action:
        case Action.FAILED:
            if status.may_have_arrived:
                return f"{message} to {to} may have arrived, or not: nobody can tell. It will not be tried again."
            time = f" within {duration(waited_s)}" if status.expired else ""
            return f"{message} to {to} could not be delivered{time}. It will not be tried again."
        case Action.DELAYED:
            until = f" until {moment(status.will_retry_until)}" if status.will_retry_until is not None else ""
            waits = (
                f"has waited for {duration(waited_s)}, and may have arrived"
                if status.may_have_arrived
                else (f"is delayed: it has waited for {duration(waited_s)}")
            )
            return f"{message} to {to} {waits}. It will be tried again{until}. You need not send it again."
        case Action.DELIVERED:
            return f"{message} to {to} was delivered to its mailbox, as you asked to be told."
        case Action.RELAYED:
            return (
                f"{message} to {to} was passed on to another mail system, which took it and does not report what "
                "becomes of it."
            )
        case Action.EXPANDED:
            return (
                f"{message} to {to} was taken, and passed on to the several addresses that it stands for. Should it "
                "not reach one of them, you will hear of it."
            )
        case _:
            assert_never(status.action)


def _named(status: RecipientStatus) -> str:
    """The address, and the one that the sender wrote where that led to it."""
    address = str(status.final_recipient)
    written = (status.original_recipient or "").partition(";")[2]
    led_here = f" (you wrote to {cut(visible(written))})" if written and written.lower() != address.lower() else ""
    return visible(address) + led_here


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _quoted(lines: Iterable[str]) -> str:
    # The quote mark keeps a peer's words from passing for ours.
    return "\n".join(
        textwrap.fill(line, _WIDTH, initial_indent="> ", subsequent_indent=">   ", break_on_hyphens=False)
        for line in lines
    )
