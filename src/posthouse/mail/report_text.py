"""The first part of a report: what a person needs to know, in the order in which they want to know it."""

from __future__ import annotations

import textwrap
from typing import assert_never

from posthouse.mail.explain import Side, explain
from posthouse.mail.report_request import Action, RecipientStatus, ReportRequest
from posthouse.mail.words import cut, duration, moment, some, visible

MAX_REPLY_LINES = 20
MAX_REPLY_LINE_CHARACTERS = 500
_WIDTH = 76

_SUBJECTS = {
    Action.FAILED: "Could not be delivered",
    Action.DELAYED: "Delayed",
    Action.DELIVERED: "Delivered",
    Action.RELAYED: "Passed on",
    Action.EXPANDED: "Delivered and passed on",
}
_SIDES = {
    Side.RECIPIENT: "The cause is at the recipient's house.",
    Side.SENDER: "The cause is on the sender's side.",
    Side.OURS: "The cause is on our side.",
    Side.NETWORK: "The cause is on the way between the houses.",
    Side.UNKNOWN: "Where the cause is cannot be told.",
}


def subject(recipients: tuple[RecipientStatus, ...]) -> str:
    """The worst news and whom it is about: `Could not be delivered: nobdy@south.test`."""
    worst = next(action for action in Action if any(status.action is action for status in recipients))
    about = [visible(str(status.final_recipient)) for status in recipients if status.action is worst]
    return f"{_SUBJECTS[worst]}: {some(about)}"


def human_text(request: ReportRequest, returned: str) -> str:
    """Paragraphs of short lines, each ended by a line feed. `returned` says what of the original follows."""
    paragraphs = [_wrapped(f"This is the mail system of {request.hostname}.")]
    for status in request.recipients:
        paragraphs.extend(_about(status))
    original = request.original
    waited = duration(request.now - original.arrived_at)
    paragraphs.append(
        _wrapped(
            f"Your message came here on {moment(original.arrived_at)}, {waited} before this report. "
            f"Its queue id is {original.queue_id}. {returned}"
        )
    )
    return "\n\n".join(paragraphs) + "\n"


def reply_lines(status: RecipientStatus) -> list[str]:
    """The reply as it stood on the wire, line by line, bounded and free of control characters (RFC 3461 §9.2)."""
    reply = status.reply
    texts = [cut(visible(line.rstrip("\r")), MAX_REPLY_LINE_CHARACTERS, "...") for line in reply.text.split("\n")]
    if len(texts) > MAX_REPLY_LINES:
        texts = [*texts[: MAX_REPLY_LINES - 1], "..."]
    enhanced = cut(f"{reply.enhanced} ", 20, "... ") if reply.enhanced else ""
    last = len(texts) - 1
    return [f"{reply.code}{' ' if n == last else '-'}{enhanced}{text}".rstrip() for n, text in enumerate(texts)]


def _about(status: RecipientStatus) -> list[str]:
    paragraphs = [_wrapped(_sentence(status) + _written_as(status))]
    if status.action in (Action.FAILED, Action.DELAYED):
        explained = explain(status.reply, final=status.action is Action.FAILED)
        paragraphs.append(_wrapped(f"{explained.sentence} {_SIDES[explained.side]}"))
        paragraphs.append(_wrapped(f"What to do: {explained.advice}"))
    if status.from_peer:
        place = f" ({cut(visible(status.remote_ip), 64)})" if status.remote_ip else ""
        paragraphs.append(
            _wrapped(f"The other server, {cut(visible(status.remote_host), 255) or 'unnamed'}{place}, answered:")
        )
        paragraphs.append(_quoted(status))
    elif status.action in (Action.FAILED, Action.DELAYED):
        paragraphs.append("No server answered; in our own words:")
        paragraphs.append(_quoted(status))
    if status.last_attempt_at is not None:
        paragraphs.append(f"Last tried on {moment(status.last_attempt_at)}.")
    return paragraphs


def _sentence(status: RecipientStatus) -> str:
    to = visible(str(status.final_recipient))
    match status.action:
        case Action.FAILED:
            return f"Your message to {to} could not be delivered. It will not be tried again."
        case Action.DELAYED:
            until = f" until {moment(status.will_retry_until)}" if status.will_retry_until is not None else ""
            return f"Your message to {to} is delayed. It will be tried again{until}. You need not send it again."
        case Action.DELIVERED:
            return f"Your message to {to} was delivered to its mailbox."
        case Action.RELAYED:
            return f"Your message to {to} was passed on to a server that does not report what becomes of it."
        case Action.EXPANDED:
            return (
                f"Your message to {to} was taken, and passed on to the several addresses which that one stands for. "
                "Should it not reach one of them, you will hear of it."
            )
        case _:
            assert_never(status.action)


def _written_as(status: RecipientStatus) -> str:
    """The address that the sender wrote, where it led to another one."""
    written = (status.original_recipient or "").partition(";")[2]
    return f" (You wrote to {cut(visible(written))}.)" if written and written != str(status.final_recipient) else ""


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _quoted(status: RecipientStatus) -> str:
    # The quote mark keeps a peer's words from passing for ours.
    return "\n".join(
        textwrap.fill(line, _WIDTH, initial_indent="> ", subsequent_indent=">   ", break_on_hyphens=False)
        for line in reply_lines(status)
    )
