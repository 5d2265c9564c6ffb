"""Whether a reply asks for less at once, rather than saying something about one address."""

from __future__ import annotations

from posthouse.mail.reply import Reply


def asks_to_slow_down(answer: Reply, *, of_one: bool = False) -> bool:
    """Whether a reply at connect, MAIL or RCPT is about how much we send. `of_one`: it may be about one mailbox."""
    if answer.code == 421:
        return True
    if not 450 <= answer.code < 460 or is_about_address(answer):
        return False
    return answer.code == 451 or not of_one or answer.enhanced is not None


def is_about_address(answer: Reply) -> bool:
    """X.1.z and X.2.z are about an address or its mailbox (RFC 3463 §3.2, §3.3)."""
    return answer.enhanced is not None and answer.enhanced.subject in (1, 2)
