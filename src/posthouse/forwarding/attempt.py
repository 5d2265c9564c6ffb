"""One try, as the journey, the reports and the schedule see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from posthouse.mail.outcome import Outcome
from posthouse.mail.reply import Reply
from posthouse.mail.spool import SpoolRow

TRANSCRIPT_OCTETS = 8 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try for some recipients of one message: `outcomes` are in the order of `rows`.

    `reports_passed_on`: the next hop offers DSN, so that a report of success is its business (RFC 3461 §5.2.2).
    `not_before`: nobody was asked, since all hosts were found dead a moment ago; they are left alone until then.
    `slow_down`: what the next hop said to be left alone for a moment, or None.
    """

    rows: tuple[SpoolRow, ...]
    outcomes: tuple[Outcome, ...]
    next_hop: str
    address: str
    duration_s: float
    transcript: tuple[str, ...] = ()
    reports_passed_on: bool = False
    not_before: float | None = None
    slow_down: Reply | None = None


def bounded(transcript: Sequence[str]) -> tuple[str, ...]:
    """The beginning and the end of a dialogue, at most TRANSCRIPT_OCTETS in all: it is kept for each attempt."""
    if sum(map(len, transcript)) <= TRANSCRIPT_OCTETS:
        return tuple(transcript)
    head = _within(transcript, TRANSCRIPT_OCTETS // 2)
    tail = _within(transcript[: len(head) - 1 if head else None : -1], TRANSCRIPT_OCTETS // 2)[::-1]
    left_out = len(transcript) - len(head) - len(tail)
    return (*head, f"C: ({left_out} lines are left out here)", *tail)


def _within(lines: Sequence[str], limit: int) -> list[str]:
    kept: list[str] = []
    for line in lines:
        limit -= len(line)
        if limit < 0:
            break
        kept.append(line)
    return kept
