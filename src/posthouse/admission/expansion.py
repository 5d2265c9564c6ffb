"""What an alias makes of the reports that its mail's sender asked for (RFC 3461 §5.2.1, §5.2.7)."""

from __future__ import annotations

from posthouse.mail.acceptance import Notify
from posthouse.mail.address import Address


def passed_on(notify: frozenset[Notify] | None, *, is_expanded: bool) -> frozenset[Notify] | None:
    """When those that a recipient leads to shall report. Of an alias for several we report (RFC 3461 §5.2.7.3, c)."""
    if notify is None or not is_expanded:
        return notify
    return notify - {Notify.SUCCESS} or frozenset({Notify.NEVER})


def original_recipient(given: str | None, alias: Address | None) -> str | None:
    """ORCPT. Where an alias leads elsewhere it is the alias, unless the sender said more (RFC 3461 §5.2.1, c)."""
    if given is not None or alias is None:
        return given
    return f"{'rfc822' if alias.is_ascii else 'utf-8'};{alias}"
