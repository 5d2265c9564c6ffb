"""What operators do to many waiting rows: counted, and done to some at a time (`orders` says when), with its events."""

from __future__ import annotations

from typing import Any, TypeAlias

import apsw

from posthouse.mail.acceptance import Destination
from posthouse.mail.ids import QueueId
from posthouse.mail.queue_filter import QueueFilter, names_uncertain
from posthouse.mail.spool import AT_ONCE, Action, DestinationTally, Tally
from posthouse.storage.sqlite.connection import row, rows
from posthouse.storage.sqlite.ordered import spool_now
from posthouse.storage.sqlite.queue_filter import UNCERTAIN, Where

Key: TypeAlias = tuple[QueueId, int]

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
_AMONG = "WHERE (queue_id, recipient_number) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))"
_DO = {
    Action.RETRY: "UPDATE spool SET not_before = ?2, held = 0, sending_at = NULL",
    Action.HOLD: "UPDATE spool SET held = 1",
    Action.RELEASE: "UPDATE spool SET held = 0, sending_at = CASE WHEN claim_token IS NOT NULL THEN sending_at END",
    Action.REMOVE: "DELETE FROM spool",
}

_KEYS = "json_each(?1) CROSS JOIN spool ON queue_id = value ->> 0 AND recipient_number = value ->> 1"
EVENTS = f"""
INSERT INTO events SELECT queue_id,
    coalesce((SELECT max(event_number) FROM events WHERE events.queue_id = spool.queue_id), 0) + 1, ?2, 'operated',
    json_object('action', ?3, 'forward_paths', json_group_array(forward_local_part || '@' || forward_domain), 'by', ?4)
FROM {_KEYS} GROUP BY queue_id"""
UNREFERENCED = f"INSERT OR IGNORE INTO unreferenced SELECT DISTINCT ?2, queue_id FROM {_KEYS}"
# In the order of the key: counting distinct ids would sort them.
MESSAGES = """
SELECT coalesce(sum(recipients), 0), count(*) FROM (
    SELECT count(*) AS recipients FROM {spool}{joins} WHERE {may} AND {condition} GROUP BY spool.queue_id)"""
BY_DESTINATION = """
SELECT via, spool.domain, count(*), sum(held <> 0), count(claim_token), min(spool.queue_id),
    min(CASE WHEN held = 0 AND claim_token IS NULL THEN not_before END)
FROM {spool}{joins} WHERE {may} AND {condition} GROUP BY via, spool.domain"""
# SQLite takes the reply of the row that has the maximum.
LAST_REPLIES = """
SELECT via, spool.domain, last_reply, max(coalesce(tried_at, 0)), tried_at
FROM {spool}{joins} WHERE last_reply IS NOT NULL AND {may} AND {condition} GROUP BY via, spool.domain"""
_ACCEPTED_AT = "SELECT accepted_at FROM messages WHERE queue_id = ?"


def may(action: Action | None, wanted: QueueFilter) -> str:
    """The condition on rows that an action changes."""
    if action is None:
        return "TRUE"
    return (_MAY_DECIDED if names_uncertain(wanted) else _MAY)[action]


def tally(connection: apsw.Connection, which: Where, action: Action | None, wanted: QueueFilter) -> Tally:
    """Count what is wanted, of one moment; with an action, replies are left out: a fifth of the time."""
    with connection:
        parts = {
            "spool": spool_now(connection),
            "joins": which.joins,
            "may": may(action, wanted),
            "condition": which.condition,
        }
        recipients, messages = row(connection, MESSAGES.format(**parts), which.parameters)
        found: list[Any] = rows(connection, BY_DESTINATION.format(**parts), which.parameters)
        replies: dict[tuple[str, str], tuple[str, float | None]] = {
            (via, domain): (reply, tried_at)
            for via, domain, reply, _, tried_at in (
                rows(connection, LAST_REPLIES.format(**parts), which.parameters) if action is None else ()
            )
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


def change(connection: apsw.Connection, *, action: Action, keys: str, by: str, at: float) -> int:
    """Do it to rows (`keys`: a JSON array of pairs), with the events; how many they were.

    Three statements for all rows: with two for each row, 100,000 of them took 15 s.
    """
    connection.execute(EVENTS, (keys, at, str(action), by))
    if action is Action.REMOVE:
        connection.execute(UNREFERENCED, (keys, at))
    parameters = (keys, AT_ONCE) if action is Action.RETRY else (keys,)
    connection.execute(f"{_DO[action]} {_AMONG}", parameters)
    return connection.changes()
