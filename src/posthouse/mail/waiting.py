"""Why a recipient waits, and until when, as an operator is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from posthouse.mail.explain import explain, reply_from_text
from posthouse.mail.pressure import asks_to_slow_down
from posthouse.mail.reply import EnhancedCode
from posthouse.mail.spool import Hold, SpoolRow
from posthouse.mail.words import count, duration, moment

REST_S = 900.0
"""No destination rests longer after what it said (`forwarding/places.py`, `hosts.py`)."""
NO_ANSWER = EnhancedCode(4, 4, 1)


@dataclass(frozen=True, slots=True)
class Wait:
    """`state` in a few words; whole sentences why; what to do, where somebody has to. Texts may be a peer's."""

    state: str
    why: tuple[str, ...]
    decide: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """What a destination said last, to whichever message, and when (Unix seconds)."""

    reply: str
    at: float


def wait_of(row: SpoolRow, now: float, *, served: bool | None = None, answered: Answered | None = None) -> Wait:
    """`served`: whether a house runs that could try it; None: that was not looked at.

    `answered`: by its destination; None: only what was said to this recipient is known.
    """
    hold = row.hold
    if hold is not None:
        return _held(row, hold)
    if row.claimed:
        return Wait("being tried now", ("An attempt is under way.", *_last(row, now)))
    if row.not_before > now:
        return Wait(f"next try in {duration(row.not_before - now)}", (*_last(row, now), *_put_off(row)))
    if served is False:
        why = "It is due, but no house serves this folder now."
        return Wait("due", (why, *_last(row, now)), ("start it: posthouse serve",))
    return Wait("due", (_turn(row, now, answered), *_last(row, now)))


def state_of(row: SpoolRow, now: float) -> str:
    """The state alone, for a list."""
    return wait_of(row, now).state


def next_try(row: SpoolRow, now: float) -> str:
    """When it is tried next: `in 12 min, on 3 March 2026, 10:12 UTC`."""
    if row.hold is not None:
        return "never, while it is held"
    if row.claimed:
        return "now"
    if row.not_before <= now:
        return "as soon as it is its turn"
    return f"in {duration(row.not_before - now)}, on {moment(row.not_before)}"


def _held(row: SpoolRow, hold: Hold) -> Wait:
    queue_id = row.message.queue_id
    release = f"let it go on: posthouse queue release {queue_id}"
    gone = f"posthouse queue remove {queue_id}"
    match hold:
        case Hold.UNCERTAIN:
            why = f"It may have arrived: what {row.destination.via or row.destination.domain} said to it never came."
            again = f"ask whether it arrived; if not, send it again: posthouse queue retry {queue_id}; if so: {gone}"
            return Wait("held, may have arrived", (why, *_reply(row)), (again,))
        case Hold.LIMIT:
            why = "The account that sent it had reached its sending limit, so it is held here."
            return Wait("held by limit", (why, *_reply(row)), (f"{release}; or forget it: {gone}",))
        case Hold.RESTORE:
            why = "The store was restored, and it may have been sent since the backup was made."
            all_of_them = "all that was restored: posthouse queue release held:restore"
            return Wait("held by restore", (why, *_reply(row)), (f"{release}; {all_of_them}",))
        case Hold.OPERATOR:
            why = f"An operator put it on hold; who, and when: posthouse journey {queue_id}"
            return Wait("held", (why, *_reply(row)), (release,))
        case _:
            assert_never(hold)


def _last(row: SpoolRow, now: float) -> tuple[str, ...]:
    if row.last_reply is None:
        return ("It was not tried yet.",) if not row.attempts or row.claimed else ()
    ago = f", {duration(now - row.tried_at)} ago" if row.tried_at is not None else ""
    return (f"The last of {count(row.attempts, 'try', 'tries')}{ago}, ended with: {row.last_reply}", *_explained(row))


def _reply(row: SpoolRow) -> tuple[str, ...]:
    """What the last try came to; for what was never tried, why it is held."""
    if row.last_reply is None:
        return ()
    return (f"The last try ended with: {row.last_reply}" if row.attempts else row.last_reply,)


def _explained(row: SpoolRow) -> tuple[str, ...]:
    reply = reply_from_text(row.last_reply or "")
    if reply is None or reply.is_positive:
        return ()
    explained = explain(reply)
    return (explained.with_cause, explained.advice)


def _turn(row: SpoolRow, now: float, answered: Answered | None) -> str:
    """Why what is due is not tried at this moment. How long a destination rests, only the house that runs knows."""
    said = answered or (Answered(row.last_reply, row.tried_at) if row.last_reply and row.tried_at is not None else None)
    reply = reply_from_text(said.reply) if said is not None else None
    if said is None or reply is None or now - said.at > REST_S:
        return "It is due: destinations take turns."
    whom, ago = row.destination.via or row.destination.domain, f"{duration(now - said.at)} ago"
    if reply.enhanced == NO_ANSWER:
        rests = "a destination that does not answer is tried by one message at a time, and rests between"
        return f"It is due, but {whom} did not answer {ago}: {rests}, for 15 min at most."
    if asks_to_slow_down(reply):
        return f"It is due, but {whom} asked {ago} to be sent less ({said.reply}): it may rest, for 5 min at most."
    return "It is due: destinations take turns."


def _put_off(row: SpoolRow) -> tuple[str, ...]:
    if not row.deaths:
        return ()
    return (f"The house ended {count(row.deaths, 'time', 'times')} while it was tried, so it was put off.",)
