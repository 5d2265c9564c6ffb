"""What a store keeps for people, summed up table by table, to be compared before and after a change of schema."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TypeAlias

import apsw

Digests: TypeAlias = Mapping[str, tuple[int, bytes]]
"""Table → (rows, a digest of all that every schema has in them)."""

# Columns and kinds of events that every schema has; but not claims and holds, which a way back may change so that older
# programs send nothing twice. A migration that must change one of the others changes this as well, and says why.
_KEPT = {
    "contents": "SELECT content, size_octets, sha256, codec, file, length(octets) FROM contents ORDER BY content",
    "messages": """SELECT queue_id, content, accepted_at, reverse_local_part, reverse_domain, prefix, ret, envelope_id,
        smtputf8, body, longest_line_octets, eight_bit_header, eight_bit_body, dot_lines, received_fields, message_id
        FROM messages ORDER BY queue_id""",
    "folders": """SELECT folder, account, name, uid_validity, next_uid, change_counter, message_count, used_octets
        FROM folders ORDER BY folder""",
    "entries": """SELECT folder, uid, account, queue_id, content, uidl, copy, size_octets, flags, changed,
        forward_local_part, forward_domain, prefix FROM entries ORDER BY folder, uid""",
    "imported_uidls": "SELECT account, uidl FROM imported_uidls ORDER BY account, uidl",
    "spool": """SELECT queue_id, recipient_number, forward_local_part, forward_domain, reverse_local_part,
        reverse_domain, via, domain, not_before, expires_at, attempts, delay_notified, original_recipient,
        notify, identity, last_reply FROM spool ORDER BY queue_id, recipient_number""",
    "events": """SELECT queue_id, event_number, at, kind, fields FROM events
        WHERE kind IN ('accepted', 'placed', 'queued', 'attempted', 'reported', 'retrieved', 'deleted', 'operated',
        'refused') ORDER BY queue_id, event_number""",
    "accounts": """SELECT account, login, login_key, quota_octets, suspended, created_at, removed_at
        FROM accounts ORDER BY account""",
    "passwords": "SELECT account, verifier FROM credentials WHERE kind = 'password' ORDER BY credential",
    "addresses": "SELECT address_key, local_part, domain, account FROM addresses ORDER BY address_key",
    "alias_targets": """SELECT address_key, target_number, local_part, domain, target_key
        FROM alias_targets ORDER BY address_key, target_number""",
}


def digests_of(connection: apsw.Connection) -> Digests:
    """Read in bounded memory; some seconds for a million messages."""
    return {table: _digest(connection, sql) for table, sql in _KEPT.items()}


def _digest(connection: apsw.Connection, sql: str) -> tuple[int, bytes]:
    digest, count = hashlib.sha256(), 0
    for found in connection.execute(sql):
        digest.update(repr(found).encode("utf-8", "surrogatepass"))
        count += 1
    return count, digest.digest()
