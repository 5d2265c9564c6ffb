"""Identifiers. The queue id stands in the `250`, in `Received`, names the journey and is the UIDL."""

from __future__ import annotations

import re
from typing import NewType

from posthouse.mail.world import Random

QueueId = NewType("QueueId", str)
AccountId = NewType("AccountId", int)
CredentialId = NewType("CredentialId", int)
ContentId = NewType("ContentId", int)
Uid = NewType("Uid", int)
Uidl = NewType("Uidl", str)
SourceId = NewType("SourceId", int)

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(high + low for high in _CROCKFORD for low in _CROCKFORD)
QUEUE_ID_PATTERN = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")


def new_queue_id(now: float, random: Random) -> QueueId:
    """128 bits, ordered by time: 48 bits of milliseconds, 80 of chance, as 26 characters of Crockford base 32."""
    return _spelled(now, int.from_bytes(random.octets(10), "big"))


def first_queue_id(at: float) -> QueueId:
    """Not above any queue id of that time or later; above every earlier one."""
    return _spelled(max(0.0, at), 0)


def time_of(queue_id: QueueId) -> float:
    """When it was made, in Unix seconds, to the millisecond."""
    number = 0
    for character in queue_id[:10]:
        number = number << 5 | _CROCKFORD.index(character)
    # Ten characters are 50 bits; the first two of them are always nought.
    return number / 1000


def _spelled(at: float, chance: int) -> QueueId:
    number = (int(at * 1000) & ((1 << 48) - 1)) << 80 | chance
    return QueueId("".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)]))
