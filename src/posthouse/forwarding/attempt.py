"""One try, as the journey, the reports and the schedule see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from posthouse.mail.outcome import Outcome
from posthouse.mail.reply import Reply
from posthouse.mail.spool import SpoolRow
from posthouse.net.smtp_transcript import Step

TRANSCRIPT_OCTETS = 8 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try for some recipients of one message: `outcomes` are in the order of `rows`.

    `transcript_ms`: milliseconds from the beginning of the attempt to each line of the transcript.
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
    transcript_ms: tuple[int, ...] = ()
    reports_passed_on: bool = False
    not_before: float | None = None
    slow_down: Reply | None = None


def bounded(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The beginning and the end of a dialogue, at most TRANSCRIPT_OCTETS in all: it is kept for each attempt."""
    if sum(len(step.line) for step in steps) <= TRANSCRIPT_OCTETS:
        return tuple(steps)
    head = _within(steps, TRANSCRIPT_OCTETS // 2)
    tail = _within(steps[: len(head) - 1 if head else None : -1], TRANSCRIPT_OCTETS // 2)[::-1]
    left_out = len(steps) - len(head) - len(tail)
    return (*head, Step(f"C: ({left_out} lines are left out here)", steps[len(head)].at_s), *tail)


def _within(steps: Sequence[Step], limit: int) -> list[Step]:
    kept: list[Step] = []
    for step in steps:
        limit -= len(step.line)
        if limit < 0:
            break
        kept.append(step)
    return kept
