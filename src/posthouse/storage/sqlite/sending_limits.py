"""How many recipients elsewhere an account sent to within the hour, counted in the transaction that accepts them.

By minutes, so that a row is written once a minute and never more than sixty are read: of what was sent in the first of
them up to a minute too much is counted. What is held is not counted, nor what an operator then releases.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from posthouse.mail.acceptance import Acceptance, Forward, LimitTold, Sending
from posthouse.mail.address import Address
from posthouse.mail.ids import AccountId, QueueId
from posthouse.mail.journey import Operated
from posthouse.mail.limit_notice import HOUR_S, OverLimit
from posthouse.mail.reply import reply
from posthouse.storage.sqlite.connection import row, rows
from posthouse.storage.sqlite.journey import append_events

_MINUTES = 60

# What the clock has not reached yet was written by one that was wrong.
_SENT = """
SELECT recipients_per_hour,
    (SELECT coalesce(sum(recipients), 0) FROM sent WHERE account = ?1 AND minute > ?2 AND minute <= ?3)
FROM accounts WHERE account = ?1"""
_COUNT = """
INSERT INTO sent VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET recipients = recipients + excluded.recipients
RETURNING recipients"""
_FORGET = "DELETE FROM sent WHERE account = ?1 AND (minute <= ?2 OR minute > ?3)"
_TOLD = "INSERT OR REPLACE INTO limit_notices VALUES (?, ?, ?)"
_OVER = """
SELECT account, login, recipients_per_hour, count(*), count(DISTINCT queue_id), min(queue_id), max(queue_id)
FROM spool INDEXED BY spool_by_limit JOIN accounts USING (account) LEFT JOIN limit_notices USING (account)
WHERE held = 3 GROUP BY account
HAVING max(queue_id) > coalesce(max(up_to), '')
    AND (max(told_at) IS NULL OR max(told_at) <= ?1 - ?2 OR max(told_at) > ?1)"""
_EXAMPLE = """
SELECT messages.reverse_local_part, messages.reverse_domain FROM messages WHERE queue_id = ?"""


def surplus(connection: apsw.Connection, acceptance: Acceptance) -> frozenset[int]:
    """Places of the forwards that go beyond the limit of who sent them; the others are counted."""
    sending = acceptance.sending
    if sending is None:
        return frozenset()
    counted = [place for place, forward in enumerate(acceptance.forwards) if forward.counted]
    if not counted:
        return frozenset()
    return frozenset(counted[_room(connection, sending, acceptance.accepted_at, len(counted)) :])


def _room(connection: apsw.Connection, sending: Sending, now: float, wanted: int) -> int:
    """How many of the wanted recipients are within the limit; these are counted."""
    minute = int(now // 60)
    found = row(connection, _SENT, (sending.account, minute - _MINUTES, minute))
    if found is None:
        return wanted
    limit = sending.recipients_per_hour if found[0] is None else found[0]
    if not limit:
        return wanted
    taken: int = min(wanted, max(0, limit - found[1]))
    if taken and row(connection, _COUNT, (sending.account, minute, taken))[0] == taken:
        # The first of this minute.
        connection.execute(_FORGET, (sending.account, minute - _MINUTES, minute))
    return taken


def reason(sending: Sending) -> str:
    """What stands as the row's reply."""
    text = f"Held here: {sending.login} sent to more recipients elsewhere within an hour than it may"
    return str(reply(450, "4.7.1", text))


def tell_held(connection: apsw.Connection, acceptance: Acceptance, held: Sequence[Forward]) -> None:
    """The journey's event about what is held."""
    assert acceptance.sending is not None
    event = Operated(
        queue_id=acceptance.queue_id,
        at=acceptance.accepted_at,
        forward_paths=tuple(str(forward.forward_path) for forward in held),
        action="limit",
        by=acceptance.sending.login,
    )
    append_events(connection, (event,))


def note_told(connection: apsw.Connection, told: LimitTold, now: float) -> None:
    """Postmaster's message about it is accepted in the same transaction."""
    connection.execute(_TOLD, (told.account, now, told.up_to))


def over_limit(connection: apsw.Connection, now: float) -> tuple[OverLimit, ...]:
    """Accounts of which more is held than postmaster was told, and that were not told of within the hour."""
    found = []
    for account, login, own, recipients, messages, first, last in rows(connection, _OVER, (now, HOUR_S)):
        local_part, domain = row(connection, _EXAMPLE, (last,))
        found.append(
            OverLimit(
                account=AccountId(account),
                login=login,
                own_limit=own,
                recipients=recipients,
                messages=messages,
                first=QueueId(first),
                last=QueueId(last),
                reverse_path=Address(local_part, domain) if domain is not None else None,
            )
        )
    return tuple(found)
