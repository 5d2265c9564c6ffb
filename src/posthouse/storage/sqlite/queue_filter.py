"""The conditions of `mail/queue_filter.py` as SQL over spool rows.

`id` and the time that a row has waited seek in the primary key, since queue ids are ordered by time; all others are
looked at row by row, which is 50 ms at 100,000 rows. Only what is not in `spool` itself costs a join.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from posthouse.mail.ids import first_queue_id
from posthouse.mail.queue_filter import (
    Attempts,
    Comparison,
    Condition,
    From,
    Held,
    OfMessage,
    QueueFilter,
    RepliedCode,
    RepliedText,
    SentBy,
    Size,
    Through,
    To,
    Toward,
    Waiting,
)
from posthouse.mail.spool import Hold

Parameter: TypeAlias = str | int | float

BY_OPERATOR, BY_RESTORE, BY_LIMIT = 1, 2, 3
"""In `spool.held`, where 0 is not held."""

UNCERTAIN = "(held <> 0 AND sending_at IS NOT NULL AND claim_token IS NULL)"
_MESSAGES = " JOIN messages USING (queue_id)"
_CONTENTS = f"{_MESSAGES} JOIN contents USING (content)"
_HOLDS = {Hold.OPERATOR: BY_OPERATOR, Hold.RESTORE: BY_RESTORE, Hold.LIMIT: BY_LIMIT}


@dataclass(frozen=True, slots=True)
class Where:
    """`FROM spool` + `joins` + `WHERE` + `condition`."""

    joins: str
    condition: str
    parameters: tuple[Parameter, ...]


def where(wanted: QueueFilter, now: float) -> Where:
    """What finds the rows that are wanted at that time."""
    conditions: list[str] = []
    parameters: list[Parameter] = []
    joins = ""
    for each in wanted:
        condition, *values = _sql(each, now)
        conditions.append(str(condition))
        parameters += values
        if isinstance(each, Size):
            joins = _CONTENTS
        elif isinstance(each, From) and not joins:
            joins = _MESSAGES
    return Where(joins, " AND ".join(conditions) or "TRUE", tuple(parameters))


def _sql(condition: Condition, now: float) -> tuple[Parameter, ...]:
    """The condition with its parameters."""
    match condition:
        case OfMessage(queue_id=queue_id):
            return "spool.queue_id = ?", queue_id
        case To(local_part=local_part, domain=domain):
            return _party("forward", local_part, domain)
        case From(domain=""):
            return ("messages.reverse_domain IS NULL",)
        case From(local_part=local_part, domain=domain):
            return _party("messages.reverse", local_part, domain)
        case Toward(domain=domain):
            return "(spool.domain = ? OR substr(spool.domain, ?) = ?)", domain, -len(domain) - 1, f".{domain}"
        case Through(via=via):
            if ":" in via:
                # As one login or as any.
                named = f"{via} as "
                return "(via = ? OR substr(via, 1, ?) = ?)", via, len(named), named
            return "substr(via, 1, ?) = ?", len(via) + 1, f"{via}:"
        case SentBy(login_key=login_key):
            return "spool.account IN (SELECT account FROM accounts WHERE login_key = ?)", login_key
        case Waiting(comparison=comparison, seconds=seconds):
            # Whoever came later has the greater id.
            sign = "<" if comparison in (Comparison.ABOVE, Comparison.FROM) else ">="
            return f"spool.queue_id {sign} ?", first_queue_id(now - seconds)
        case RepliedCode() | RepliedText():
            return _replied(condition)
        case Held():
            return _held(condition)
        case Attempts(comparison=comparison, number=number):
            return f"attempts {comparison.value} ?", number
        case Size(comparison=comparison, octets=octets):
            return f"length(prefix) + size_octets {comparison.value} ?", octets
        case _:
            assert_never(condition)


def _party(columns: str, local_part: str, domain: str) -> tuple[Parameter, ...]:
    if not local_part:
        return f"{columns}_domain = ?", domain
    # Whether case means anything, only the other house knows; whoever looks for somebody wants to find them.
    return f"{columns}_domain = ? AND {columns}_local_part = ? COLLATE NOCASE", domain, local_part


def _replied(condition: RepliedCode | RepliedText) -> tuple[Parameter, ...]:
    match condition:
        case RepliedText(text=""):
            return ("last_reply IS NULL",)
        case RepliedText(text=text):
            return "instr(lower(last_reply), lower(?)) > 0", text
        case RepliedCode(code=code) if "." not in code:
            return "substr(last_reply, 1, 3) = ?", code
        case RepliedCode(code=code):
            # The enhanced code stands behind `451 `; a part of it ends at a dot.
            end = " " if code.count(".") == 2 else "."
            return "substr(last_reply || ' ', 5, ?) = ?", len(code) + 1, f"{code}{end}"
        case _:
            assert_never(condition)


def _held(condition: Held) -> tuple[Parameter, ...]:
    if not condition.held:
        return ("held = 0",)
    if condition.hold is None:
        return ("held <> 0",)
    if condition.hold is Hold.UNCERTAIN:
        return (UNCERTAIN,)
    return f"held = ? AND NOT {UNCERTAIN}", _HOLDS[condition.hold]
