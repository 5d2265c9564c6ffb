"""What operators do to many waiting rows: counted first, then done in steps, each one transaction with its events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, TypeAlias

import apsw

from posthouse.mail.acceptance import Destination
from posthouse.mail.address import Address
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import JourneyEvent
from posthouse.mail.queue_filter import QueueFilter, names_uncertain
from posthouse.mail.spool import Action, DestinationTally, Tally
from posthouse.storage.sqlite.accept import mark_unreferenced
from posthouse.storage.sqlite.connection import row, rows
from posthouse.storage.sqlite.journey import append_events
from posthouse.storage.sqlite.queue_filter import UNCERTAIN, Where

Key: TypeAlias = tuple[QueueId, int]
Told: TypeAlias = Callable[[QueueId, tuple[str, ...]], JourneyEvent]

STEP_ROWS = 2000
"""Rows in one transaction: 30 ms, in which the house's own writing waits."""
FIRST: Key = (QueueId(""), -1)
"""Before every row."""

_MAY = {
    Action.RETRY: "held = 0 AND claim_token IS NULL",
    Action.HOLD: "held = 0",
    Action.RELEASE: f"held <> 0 AND NOT {UNCERTAIN}",
    Action.REMOVE: "claim_token IS NULL",
}
# What somebody has decided about.
_MAY_DECIDED = {
    Action.RETRY: UNCERTAIN,
    Action.HOLD: "held = 0",
    Action.RELEASE: UNCERTAIN,
    Action.REMOVE: "claim_token IS NULL",
}
_KEY = "WHERE queue_id = ?1 AND recipient_number = ?2"
_CHANGED = "RETURNING queue_id, forward_local_part, forward_domain"
_DO = {
    Action.RETRY: "UPDATE spool SET not_before = ?3, held = 0, sending_at = NULL",
    Action.HOLD: "UPDATE spool SET held = 1",
    Action.RELEASE: "UPDATE spool SET held = 0, sending_at = CASE WHEN claim_token IS NOT NULL THEN sending_at END",
    Action.REMOVE: "DELETE FROM spool",
}

FIND = """
SELECT spool.queue_id, recipient_number FROM spool{joins}
WHERE (spool.queue_id, recipient_number) > (?, ?) AND {may} AND {condition}
ORDER BY spool.queue_id, recipient_number LIMIT ?"""
MESSAGES = "SELECT count(*), count(DISTINCT spool.queue_id) FROM spool{joins} WHERE {may} AND {condition}"
BY_DESTINATION = """
SELECT via, spool.domain, count(*), sum(held <> 0), count(claim_token), min(spool.queue_id),
    min(CASE WHEN held = 0 AND claim_token IS NULL THEN not_before END)
FROM spool{joins} WHERE {may} AND {condition} GROUP BY via, spool.domain"""
# SQLite takes the reply of the row that has the maximum.
LAST_REPLIES = """
SELECT via, spool.domain, last_reply, max(coalesce(tried_at, 0)), tried_at
FROM spool{joins} WHERE last_reply IS NOT NULL AND {may} AND {condition} GROUP BY via, spool.domain"""
_ACCEPTED_AT = "SELECT accepted_at FROM messages WHERE queue_id = ?"


def may(action: Action | None, wanted: QueueFilter) -> str:
    """The condition on rows that an action changes."""
    if action is None:
        return "TRUE"
    return (_MAY_DECIDED if names_uncertain(wanted) else _MAY)[action]


def tally(connection: apsw.Connection, which: Where, action: Action | None, wanted: QueueFilter) -> Tally:
    """Count what is wanted, of one moment."""
    parts = {"joins": which.joins, "may": may(action, wanted), "condition": which.condition}
    with connection:
        recipients, messages = row(connection, MESSAGES.format(**parts), which.parameters)
        found: list[Any] = rows(connection, BY_DESTINATION.format(**parts), which.parameters)
        replies: dict[tuple[str, str], tuple[str, float | None]] = {
            (via, domain): (reply, tried_at)
            for via, domain, reply, _, tried_at in rows(connection, LAST_REPLIES.format(**parts), which.parameters)
        }
        destinations = [
            DestinationTally(
                destination=Destination(via, domain),
                recipients=count,
                held=held,
                claimed=claimed,
                oldest_at=row(connection, _ACCEPTED_AT, (oldest,))[0],
                next_at=next_at,
                last_reply=replies.get((via, domain), (None, None))[0],
                tried_at=replies.get((via, domain), (None, None))[1],
            )
            for via, domain, count, held, claimed, oldest, next_at in found
        ]
    destinations.sort(key=lambda each: (-each.recipients, each.destination))
    return Tally(recipients=recipients, messages=messages, destinations=tuple(destinations))


def find_some(
    connection: apsw.Connection, *, which: Where, action: Action, wanted: QueueFilter, after: Key
) -> list[Key]:
    """The next rows, at most STEP_ROWS, that an action would change."""
    sql = FIND.format(joins=which.joins, may=may(action, wanted), condition=which.condition)
    return rows(connection, sql, (*after, *which.parameters, STEP_ROWS))


def operate_on(
    connection: apsw.Connection, *, action: Action, wanted: QueueFilter, keys: Sequence[Key], now: float, told: Told
) -> int:
    """Do it to those of the rows that it may still be done to, with the events; how many they were."""
    sql = f"{_DO[action]} {_KEY} AND {may(action, wanted)} {_CHANGED}"
    parameters = [(*key, now) for key in keys] if action is Action.RETRY else keys
    done: list[Any] = connection.executemany(sql, parameters).fetchall()
    for queue_id, of_message in groupby(done, key=lambda each: each[0]):
        paths = tuple(str(Address(local_part, domain)) for _, local_part, domain in of_message)
        append_events(connection, (told(queue_id, paths),))
        if action is Action.REMOVE:
            mark_unreferenced(connection, queue_id, now)
    return len(done)
