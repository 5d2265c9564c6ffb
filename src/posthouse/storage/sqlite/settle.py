"""`settle`: the outcomes of an attempt, and all that they cause, as rows of one transaction."""

from __future__ import annotations

from collections.abc import Mapping

import apsw

from posthouse.mail.spool import Settled, Settlement
from posthouse.storage.sqlite.accept import Taken, insert_acceptance, mark_unreferenced
from posthouse.storage.sqlite.connection import row
from posthouse.storage.sqlite.journey import append_events

_OURS = """
SELECT 1 FROM spool WHERE queue_id = ? AND recipient_number = ? AND claim_token = ? AND claim_incarnation = ?"""
_SERVED = "DELETE FROM spool WHERE queue_id = ? AND recipient_number = ?"
_WAITS = """
UPDATE spool SET not_before = ?, last_reply = ?, delay_notified = delay_notified OR ?, claim_token = NULL,
    claim_incarnation = NULL WHERE queue_id = ? AND recipient_number = ?"""


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
        if row(connection, _OURS, (settled.queue_id, settled.recipient_number, *owner)) is None:
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
    if settled.not_before is None:
        connection.execute(_SERVED, key)
        mark_unreferenced(connection, settled.queue_id, now)
    else:
        connection.execute(_WAITS, (settled.not_before, settled.last_reply, settled.delay_notified, *key))
