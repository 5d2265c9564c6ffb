"""Letting go of claims: of processes that died or end, and of our own that no task works on.

A row whose final dot may have left through its identity's own server becomes held: nobody knows whether it arrived, and
its owner is asked instead of sending it twice. Every other row waits as before, but for what `put_off_s` says.
"""

from __future__ import annotations

from typing import Any

import apsw

from posthouse.mail.address import Address
from posthouse.mail.journey import Attempted
from posthouse.mail.reply import reply
from posthouse.storage.sqlite.connection import rows
from posthouse.storage.sqlite.journey import append_events

MARKS_SINCE_SCHEMA = 5
"""A database of an older one has no marks of what may have been sent through an identity's own server."""
FREED_AT_ONCE = 500
"""Rows, in one transaction."""
ALONE_FROM = 2
"""Deaths from which a row is claimed with rows of its own message only."""

_PUT_OFF_S = (0.0, 60.0, 300.0, 900.0, 3600.0)

MAY_HAVE_ARRIVED = str(
    reply(451, "4.4.2", "The house ended after the final dot might have left; the message may have arrived")
)

OF_INCARNATION = "claim_token IS NOT NULL AND claim_incarnation = ?"
OF_TOKEN = f"{OF_INCARNATION} AND claim_token = ?"
OF_NOBODY = """(claim_token IS NULL) <> (claim_incarnation IS NULL)
    OR claim_incarnation NOT IN (SELECT incarnation FROM incarnations)
    OR (sending_at IS NOT NULL AND claim_token IS NULL AND held = 0)"""
OF_ANYBODY = "claim_token IS NOT NULL"

_FIND = """
SELECT queue_id, recipient_number, forward_local_part, forward_domain, via, domain, attempts, deaths, sending_at
FROM spool WHERE {which} LIMIT ?"""
_FREE = """
UPDATE spool SET claim_token = NULL, claim_incarnation = NULL, deaths = ?, not_before = max(not_before, ?)
WHERE queue_id = ? AND recipient_number = ?"""
_HOLD = """
UPDATE spool SET claim_token = NULL, claim_incarnation = NULL, held = 1, last_reply = ?
WHERE queue_id = ? AND recipient_number = ?"""


def put_off_s(deaths: int) -> float:
    """How long a row waits after that many processes in a row died with a claim on it.

    Nothing after the first, so that a house that is restarted goes on at once; then 1, 5, 15 and 60 minutes, so that
    what kills a house kills it seldom. An attempt that ends in any outcome counts anew; processes that end in order
    do not count.
    """
    return _PUT_OFF_S[min(deaths, len(_PUT_OFF_S)) - 1] if deaths else 0.0


def free(
    connection: apsw.Connection, which: str, parameters: tuple[str, ...], now: float, *, died: bool = False
) -> int:
    """Free up to FREED_AT_ONCE of the claims that the condition `which` finds; how many rows were freed or held."""
    found: list[Any] = rows(connection, _FIND.format(which=which), (*parameters, FREED_AT_ONCE))
    freed: list[tuple[int, float, str, int]] = []
    for place, (queue_id, number, local_part, forward_domain, via, domain, attempts, deaths, sending_at) in enumerate(
        found
    ):
        if sending_at is not None:
            connection.execute(_HOLD, (MAY_HAVE_ARRIVED, queue_id, number))
            event = Attempted(
                queue_id=queue_id,
                at=now,
                forward_path=str(Address(local_part, forward_domain)),
                outcome="uncertain",
                reply=MAY_HAVE_ARRIVED,
                from_peer=False,
                next_hop=via or domain,
                address="",
                attempt=attempts,
                duration_s=0.0,
            )
            append_events(connection, (event,))
            continue
        wait_s = put_off_s(deaths := deaths + died)
        # Not all of them at one moment again, or one that kills would take the others along each time.
        not_before = now + wait_s * (1 + place / len(found)) if wait_s else 0.0
        freed.append((deaths, not_before, queue_id, number))
    connection.executemany(_FREE, freed)
    return len(found)
