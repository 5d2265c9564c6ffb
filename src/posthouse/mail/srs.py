"""SRS, the sender rewriting scheme: reverse-paths of ours for mail that an alias leads on to another house.

A house that gets such mail from us asks whether we may send for the sender's domain (SPF, RFC 7208 §2.4). So the
reverse-path becomes one in a domain of ours, from which only we can tell where a report has to go:

    SRS0=HASH=DAY=domain=local@ours      from local@domain
    SRS1=HASH=first=rest@ours            from SRS0rest@first, which another house made, or from its SRS1
    SRS0=HASH=DAY=invalid=QUEUEID@ours   from one that would not fit: the journey of QUEUEID knows it

The forms are those of libsrs2 and PostSRSd, so that houses on the way shorten ours as we shorten theirs. HASH is
ours alone: 40 bits of an HMAC with SHA-256. Nothing in it minds the case of letters, which some houses fold.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from contextlib import suppress
from dataclasses import dataclass, field

from posthouse.mail.address import Address, AddressError, parse_address
from posthouse.mail.ids import QUEUE_ID_PATTERN, QueueId

VALID_DAYS = 21
"""How long a report may take to come back; mail waits a week nowhere, and a report on it as long again."""
_HASH_OCTETS = 5
_DAY_S = 86400
_DAYS = 1024
_BASE_32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_REFERENCE = "invalid"
"""The domain that nobody has (RFC 2606 §2)."""
_RESERVED = re.compile(r"SRS[01]=", re.IGNORECASE)
_SRS0 = re.compile(r"SRS0([=+-].+)\Z", re.IGNORECASE)
_SRS1 = re.compile(r"SRS1[=+-][^=]+=([^=]+)=([=+-].+)\Z", re.IGNORECASE)


def is_rewritten(local_part: str) -> bool:
    """Whether it has the form of those that we make, be it true or not: in our domains nobody else has such."""
    return _RESERVED.match(local_part) is not None


@dataclass(frozen=True, slots=True)
class Srs:
    """Makes such addresses, and opens those that it made. Whoever knows `key` can make them too."""

    key: bytes = field(repr=False)

    def rewrite(self, sender: Address, domain: str, queue_id: QueueId, now: float) -> Address:
        """The reverse-path in a domain of ours, for a message from elsewhere with that queue id.

        The sender itself where the name of our domain leaves no room for anything.
        """
        day = _day(now)
        for local_part in (self._wrapped(sender, day), self._stamped(day, _REFERENCE, queue_id)):
            with suppress(AddressError):
                # Too long, by RFC 5321 §4.5.3.1: hosts that keep to it would refuse all mail from there.
                rewritten = parse_address(f"{local_part}@{domain}")
                # Of what only looks like another house's, the house may be none, and a report could not go there.
                if self.open(rewritten.local_part) is not None:
                    return rewritten
        return sender

    def open(self, local_part: str, now: float | None = None) -> Address | QueueId | None:
        """Whom mail to one of our own leads to, or the queue id of the message whose journey says so.

        None: it is forged, garbled or, at `now`, too old. Without `now` its age means nothing.
        """
        kind, _, rest = local_part.partition("=")
        if not local_part.isascii():
            return None
        with suppress(AddressError):
            if kind.upper() == "SRS0" and len(parts := rest.split("=", 3)) == 4:
                return self._open_first(*parts, now=now)
            if kind.upper() == "SRS1" and len(parts := rest.split("=", 2)) == 3:
                return self._open_further(*parts)
        return None

    def _wrapped(self, sender: Address, day: str) -> str:
        """The local part, which may be too long; "" where the sender cannot be spelled inside another address."""
        local_part, domain = sender.local_part, sender.domain
        if not sender.is_ascii or local_part.startswith('"') or domain.startswith("[") or domain == _REFERENCE:
            return ""
        if further := _SRS1.match(local_part):
            return self._shortened(further[1].lower(), further[2])
        if first_house := _SRS0.match(local_part):
            return self._shortened(domain, first_house[1])
        return self._stamped(day, domain, local_part)

    def _shortened(self, first: str, rest: str) -> str:
        return f"SRS1={self._hash('SRS1', first, rest)}={first}={rest}"

    def _stamped(self, day: str, domain: str, local_part: str) -> str:
        return f"SRS0={self._hash('SRS0', day, domain, local_part)}={day}={domain}={local_part}"

    def _open_first(
        self, mark: str, day: str, domain: str, local_part: str, *, now: float | None
    ) -> Address | QueueId | None:
        if not self._is_ours(mark, "SRS0", day, domain, local_part) or (now is not None and _is_old(day, now)):
            return None
        if domain.lower() != _REFERENCE:
            return parse_address(f"{local_part}@{domain}")
        queue_id = local_part.upper()
        return QueueId(queue_id) if QUEUE_ID_PATTERN.match(queue_id) else None

    def _open_further(self, mark: str, first: str, rest: str) -> Address | None:
        """What the first house made. It alone can tell how old that is."""
        return parse_address(f"SRS0{rest}@{first}") if self._is_ours(mark, "SRS1", first, rest) else None

    def _hash(self, *parts: str) -> str:
        """Of parts of which only the last may hold the sign between them."""
        digest = hmac.digest(self.key, "=".join(parts).lower().encode(), hashlib.sha256)
        return base64.b32encode(digest[:_HASH_OCTETS]).decode()

    def _is_ours(self, mark: str, *parts: str) -> bool:
        return hmac.compare_digest(mark.upper(), self._hash(*parts))


def _day(now: float) -> str:
    """The day, in two letters; they come again after 1024 days."""
    number = int(now // _DAY_S) % _DAYS
    return _BASE_32[number >> 5] + _BASE_32[number & 31]


def _is_old(day: str, now: float) -> bool:
    """Whether a day of ours is over for too long. A clock that went back since makes it no older."""
    high, low = (_BASE_32.index(letter) for letter in day.upper())
    return (int(now // _DAY_S) + 1 - (high << 5 | low)) % _DAYS > VALID_DAYS + 1
