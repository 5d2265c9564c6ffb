"""Trace fields that we put above a message (RFC 5321 §4.4). They are kept apart from the content."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from posthouse.admission.peer import Peer
from posthouse.mail.address import Address, ReversePath, path_text
from posthouse.mail.header import date_time, field
from posthouse.mail.ids import QueueId


def received(peer: Peer, *, hostname: str, queue_id: QueueId, now: float, only_recipient: Address | None) -> bytes:
    """The Received field. `only_recipient` is given when there is exactly one, so that nobody's Bcc leaks."""
    for_clause = f"\r\n\tfor <{only_recipient}>" if only_recipient is not None and only_recipient.is_ascii else ""
    return field(
        "Received",
        f"from {peer.hello or 'unknown'} ({_literal(peer.address)})\r\n\tby {hostname} with {peer.protocol}"
        f" id {queue_id}{for_clause};\r\n\t{date_time(now)}",
    )


def generated(*, hostname: str, queue_id: QueueId, now: float) -> bytes:
    """The Received field of what we wrote ourselves, such as a report."""
    return field("Received", f"by {hostname} id {queue_id};\r\n\t{date_time(now)}")


def delivery(reverse_path: ReversePath, forward_path: Address) -> bytes:
    """Return-Path and Delivered-To of one maildrop entry; they supersede any that came with the message."""
    return field("Return-Path", path_text(reverse_path)) + field("Delivered-To", str(forward_path))


@lru_cache(maxsize=4096)
def _literal(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "[unknown]"
    return f"[IPv6:{parsed}]" if parsed.version == 6 else f"[{parsed}]"
