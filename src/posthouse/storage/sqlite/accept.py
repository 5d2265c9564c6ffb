"""`accept`: everything that follows from taking responsibility for a message, as rows of one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import apsw

from posthouse.mail.acceptance import Acceptance, Forward, Placement
from posthouse.mail.ids import AccountId
from posthouse.storage.errors import AccountGone
from posthouse.storage.sqlite.connection import row
from posthouse.storage.sqlite.journey import begin_journey
from posthouse.storage.sqlite.queue_filter import BY_LIMIT
from posthouse.storage.sqlite.sending_limits import note_told, reason, surplus, tell_held
from posthouse.storage.sqlite.sources import insert_collected, is_collected

_KNOWN = "SELECT 1 FROM messages WHERE queue_id = ?"
_CONTENT = """
INSERT INTO contents(size_octets, sha256, file, octets)
SELECT ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM messages WHERE queue_id = ?)"""
_MESSAGE = "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_NEXT_UID = """
UPDATE folders SET next_uid = next_uid + 1, change_counter = change_counter + 1,
    message_count = message_count + 1, used_octets = used_octets + ?3
WHERE account = ?1 AND name = ?2 AND EXISTS (SELECT 1 FROM accounts WHERE account = ?1 AND removed_at IS NULL)
RETURNING folder, next_uid - 1, change_counter"""
_NEW_FOLDER = """
INSERT INTO folders(account, name, uid_validity)
SELECT account, ?2, ?3 FROM accounts WHERE account = ?1 AND removed_at IS NULL"""
_ENTRY = """
INSERT INTO entries(folder, uid, account, queue_id, content, uidl, copy, size_octets, flags, changed,
    forward_local_part, forward_domain, prefix) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_FORWARD = """
INSERT INTO spool(queue_id, recipient_number, forward_local_part, forward_domain, reverse_local_part, reverse_domain,
    via, domain, not_before, expires_at, original_recipient, notify, identity, account, held, last_reply)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


@dataclass(slots=True)
class Taken:
    """The handles of the content that a transaction gave a row to, and whether anything became due."""

    handles: set[str] = field(default_factory=set)
    forwards: bool = False


def insert_acceptance(
    connection: apsw.Connection, acceptance: Acceptance, drafts: Mapping[str, bytes | str], taken: Taken
) -> None:
    """Insert all of it, unless its queue id is known already. `drafts`: octets or file name of each handle.

    Raises AccountGone; the caller undoes the rest.
    """
    if acceptance.collected is not None and is_collected(connection, acceptance.collected):
        return
    execute = connection.execute
    content = _insert_content(connection, acceptance, drafts)
    if content is not None:
        execute(_MESSAGE, _message_row(acceptance, content))
        placed: set[tuple[AccountId, int]] = set()
        for placement in acceptance.placements:
            # Two addresses of one person are one entry: an acknowledgement never becomes two.
            place = (placement.account, placement.copy)
            if place not in placed:
                placed.add(place)
                _insert_entry(connection, acceptance, placement, content)
        held = surplus(connection, acceptance)
        for number, forward in enumerate(acceptance.forwards):
            execute(_FORWARD, _forward_row(acceptance, number, forward, held=number in held))
        if not acceptance.placements and not acceptance.forwards:
            mark_unreferenced(connection, acceptance.queue_id, acceptance.accepted_at)
        begin_journey(connection, acceptance.events)
        if held:
            tell_held(connection, acceptance, [acceptance.forwards[number] for number in sorted(held)])
        if acceptance.collected is not None:
            insert_collected(connection, acceptance.collected, acceptance.queue_id, acceptance.accepted_at)
        if acceptance.limit_told is not None:
            note_told(connection, acceptance.limit_told, acceptance.accepted_at)
        taken.handles.add(acceptance.content.handle)
        taken.forwards = taken.forwards or bool(acceptance.forwards)
    for generated in acceptance.generated:
        insert_acceptance(connection, generated, drafts, taken)


def mark_unreferenced(connection: apsw.Connection, queue_id: str, now: float) -> None:
    """The message lost a reference; the sweep will look at it."""
    connection.execute("INSERT OR IGNORE INTO unreferenced VALUES (?, ?)", (now, queue_id))


def _insert_content(
    connection: apsw.Connection, acceptance: Acceptance, drafts: Mapping[str, bytes | str]
) -> int | None:
    """The number of the content's new row; None when the queue id is known, and nothing was done."""
    content = acceptance.content
    if content.handle not in drafts and row(connection, _KNOWN, (acceptance.queue_id,)) is not None:
        return None
    stored = drafts[content.handle]
    file, octets = (stored, None) if isinstance(stored, str) else (None, stored)
    connection.execute(_CONTENT, (content.size_octets, content.sha256, file, octets, acceptance.queue_id))
    return connection.last_insert_rowid() if connection.changes() else None


def _message_row(acceptance: Acceptance, content: int) -> tuple[str | int | float | bytes | None, ...]:
    facts = acceptance.content.facts
    reverse_path = acceptance.reverse_path
    return (
        acceptance.queue_id,
        content,
        acceptance.accepted_at,
        reverse_path.local_part if reverse_path else None,
        reverse_path.domain if reverse_path else None,
        acceptance.prefix,
        acceptance.ret,
        acceptance.envelope_id,
        acceptance.smtputf8,
        acceptance.body,
        facts.longest_line_octets,
        facts.eight_bit_header,
        facts.eight_bit_body,
        facts.dot_lines,
        facts.received_fields,
        facts.message_id,
    )


def _forward_row(
    acceptance: Acceptance, number: int, forward: Forward, *, held: bool
) -> tuple[str | int | float | None, ...]:
    reverse_path, sending = forward.reverse_path, acceptance.sending
    return (
        acceptance.queue_id,
        number,
        forward.forward_path.local_part,
        forward.forward_path.domain,
        reverse_path.local_part if reverse_path else None,
        reverse_path.domain if reverse_path else None,
        forward.destination.via,
        forward.destination.domain,
        forward.not_before,
        forward.expires_at,
        forward.original_recipient,
        None if forward.notify is None else " ".join(sorted(forward.notify)),
        forward.identity,
        sending.account if sending is not None else None,
        BY_LIMIT if held else 0,
        reason(sending) if held and sending is not None else None,
    )


def _insert_entry(connection: apsw.Connection, acceptance: Acceptance, placement: Placement, content: int) -> None:
    size_octets = len(placement.prefix) + len(acceptance.prefix) + acceptance.content.size_octets
    folder, uid, changed = _next_uid(connection, placement, size_octets, acceptance.accepted_at)
    connection.execute(
        _ENTRY,
        (
            folder,
            uid,
            placement.account,
            acceptance.queue_id,
            content,
            _uidl(connection, acceptance, placement),
            placement.copy,
            size_octets,
            " ".join(sorted(placement.flags)),
            changed,
            placement.forward_path.local_part,
            placement.forward_path.domain,
            placement.prefix,
        ),
    )


def _next_uid(connection: apsw.Connection, placement: Placement, size_octets: int, now: float) -> tuple[int, int, int]:
    """(folder, uid, change counter) for a new entry; a folder that is not there is made. Raises AccountGone."""
    wanted = (placement.account, placement.folder, size_octets)
    found: tuple[int, int, int] | None = row(connection, _NEXT_UID, wanted)
    if found is None:
        connection.execute(_NEW_FOLDER, (placement.account, placement.folder, int(now)))
        if not connection.changes():
            raise AccountGone(f"account {placement.account} was removed")
        found = row(connection, _NEXT_UID, wanted)
        assert found is not None
    return found


def _uidl(connection: apsw.Connection, acceptance: Acceptance, placement: Placement) -> str:
    """The imported UIDL, noted as used for ever; the queue id where there is none or it was used before."""
    if placement.copy:
        return f"{acceptance.queue_id}-{placement.copy}"
    if placement.uidl is None or str(placement.uidl) == acceptance.queue_id:
        return acceptance.queue_id
    connection.execute("INSERT OR IGNORE INTO imported_uidls VALUES (?, ?)", (placement.account, placement.uidl))
    taken = "SELECT 1 FROM entries WHERE account = ? AND uidl = ?"
    if not connection.changes() or row(connection, taken, (placement.account, placement.uidl)):
        return acceptance.queue_id
    return placement.uidl
