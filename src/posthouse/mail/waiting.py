"""Why a recipient waits, and until when, as an operator is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from posthouse.mail.explain import explain, reply_from_text
from posthouse.mail.spool import Hold, SpoolRow
from posthouse.mail.words import count, duration, moment


@dataclass(frozen=True, slots=True)
class Wait:
    """`state` in a few words; whole sentences why; what to do, where somebody has to. Texts may be a peer's."""

    state: str
    why: tuple[str, ...]
    decide: tuple[str, ...] = ()


def wait_of(row: SpoolRow, now: float, *, served: bool | None = None) -> Wait:
    """`served`: whether a house runs that could try it; None: that was not looked at."""
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
    turn = (
        "It is due: destinations take turns, and one that asked to slow down, or did not answer, is given less at once."
    )
    return Wait("due", (turn, *_last(row, now)))


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
    return (f"{explained.sentence} ({explained.side})", explained.advice)


def _put_off(row: SpoolRow) -> tuple[str, ...]:
    if not row.deaths:
        return ()
    return (f"The house ended {count(row.deaths, 'time', 'times')} while it was tried, so it was put off.",)
