"""Trace fields that we put above a message (RFC 5321 §4.4). They are kept apart from the content."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from posthouse.admission.peer import Peer
from posthouse.admission.submission import Missing
from posthouse.mail.address import Address, AddressError, ReversePath, parse_domain, path_text, unicode_domain
from posthouse.mail.content import ContentFacts
from posthouse.mail.header import date_time, field
from posthouse.mail.ids import QueueId


def received(
    peer: Peer,
    *,
    hostname: str,
    queue_id: QueueId,
    now: float,
    only_recipient: Address | None,
    smtputf8: bool = False,
    u_labels: bool = False,
) -> bytes:
    """The Received field. `only_recipient` is given when there is exactly one, so that nobody's Bcc leaks.

    `u_labels`: whether it may hold more than ASCII (RFC 6531 §3.7.3).
    """
    if peer.is_here:
        return generated(hostname=hostname, queue_id=queue_id, now=now)
    by, for_clause = hostname, ""
    if u_labels:
        by = unicode_domain(hostname)
    if only_recipient is not None and (u_labels or only_recipient.is_ascii):
        domain = unicode_domain(only_recipient.domain) if u_labels else only_recipient.domain
        for_clause = f"\r\n\tfor <{only_recipient.local_part}@{domain}>"
    return field(
        "Received",
        f"{_from(peer.hello, peer.address)}\r\n\tby {by} with {peer.protocol(smtputf8=smtputf8)}"
        f" id {queue_id}{for_clause};\r\n\t{date_time(now)}",
    )


def stays_international(reverse_path: ReversePath, facts: ContentFacts, remotes: Iterable[Address]) -> bool:
    """Whether wherever the message is sent on to must know SMTPUTF8.

    Only then U-labels may stand in what we add (RFC 6531 §3.7.3); else it may yet go to a host that knows only ASCII.
    """
    return (
        facts.eight_bit_header
        or (reverse_path is not None and not reverse_path.is_ascii)
        or not any(address.is_ascii for address in remotes)
    )


def led_away(alias: Address | None) -> bytes:
    """The field by which an alias knows what it led to another house, should it come back."""
    return field("Delivered-To", str(alias)) if alias is not None and alias.is_ascii else b""


def submitted(missing: Missing, *, hostname: str, queue_id: QueueId, now: float) -> bytes:
    """The fields that a submitted message lacks (RFC 6409 §8.1 to §8.3)."""
    return b"".join(
        (
            field("Date", date_time(now)) if missing.date else b"",
            field("Message-ID", message_id(hostname, queue_id)) if missing.message_id else b"",
            field("Sender", str(missing.sender)) if missing.sender is not None else b"",
        )
    )


def message_id(hostname: str, queue_id: QueueId) -> str:
    """A Message-ID that nobody else makes (RFC 5322 §3.6.4)."""
    return f"<{queue_id}@{hostname}>"


def generated(*, hostname: str, queue_id: QueueId, now: float) -> bytes:
    """The Received field of what we wrote ourselves, such as a report."""
    return field("Received", f"by {hostname} id {queue_id};\r\n\t{date_time(now)}")


@lru_cache(maxsize=4096)
def delivery(reverse_path: ReversePath, forward_path: Address) -> bytes:
    """Return-Path and Delivered-To of one maildrop entry; they supersede any that came with the message."""
    return field("Return-Path", path_text(reverse_path)) + field("Delivered-To", str(forward_path))


@lru_cache(maxsize=4096)
def _from(hello: str, address: str) -> str:
    """What the peer said it is and where it is; a name that is none must not become structure of the field."""
    literal = _literal(address)
    try:
        return f"from {hello if parse_domain(hello) else literal} ({literal})"
    except AddressError:
        return f"from {literal if literal != '[unknown]' else 'unknown'} ({literal})"


def _literal(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "[unknown]"
    return f"[IPv6:{parsed}]" if parsed.version == 6 else f"[{parsed}]"
