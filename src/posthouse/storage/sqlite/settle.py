"""`settle`: the outcomes of an attempt, and all that they cause, as rows of one transaction."""

from __future__ import annotations

from collections.abc import Mapping

import apsw

from posthouse.mail.spool import Settled, Settlement
from posthouse.storage.sqlite.accept import Taken, insert_acceptance, mark_unreferenced
from posthouse.storage.sqlite.connection import row
from posthouse.storage.sqlite.journey import append_events

OURS = """
SELECT 1 FROM spool WHERE queue_id = ? AND recipient_number = ? AND claim_token = ? AND claim_incarnation = ?"""
_SERVED = "DELETE FROM spool WHERE queue_id = ? AND recipient_number = ?"
# What an attempt came to says also that it did not kill us; the mark stays where nobody knows whether it arrived.
_WAITS = """
UPDATE spool SET not_before = coalesce(?3, not_before), last_reply = ?4, delay_notified = delay_notified OR ?5,
    held = max(held, ?6), sending_at = CASE WHEN ?6 THEN sending_at END, deaths = 0, tried_at = ?7,
    expires_at = min(expires_at, coalesce(?8, expires_at)),
    claim_token = NULL, claim_incarnation = NULL
WHERE queue_id = ?1 AND recipient_number = ?2"""


def write_settlement(
    connection: apsw.Connection,
    settlement: Settlement,
    drafts: Mapping[str, bytes | str],
    incarnation: str,
    now: float,
) -> Taken | None:
    """None, with nothing changed: the claim on one of the rows was lost."""
    owner = (settlement.token, incarnation)
    for settled in settlement.rows:
        if row(connection, OURS, (settled.queue_id, settled.recipient_number, *owner)) is None:
            return None
    for settled in settlement.rows:
        _settle(connection, settled, now)
    taken = Taken()
    for generated in settlement.generated:
        insert_acceptance(connection, generated, drafts, taken)
    append_events(connection, settlement.events)
    return taken


def _settle(connection: apsw.Connection, settled: Settled, now: float) -> None:
    key = (settled.queue_id, settled.recipient_number)
    if settled.not_before is None and not settled.held:
        connection.execute(_SERVED, key)
        mark_unreferenced(connection, settled.queue_id, now)
        return
    waits = (settled.not_before, settled.last_reply, settled.delay_notified, settled.held, now, settled.expires_at)
    connection.execute(_WAITS, (*key, *waits))
