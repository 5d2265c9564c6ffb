"""What postmaster is told when an account sends to more recipients elsewhere within an hour than it may."""

from __future__ import annotations

from dataclasses import dataclass

from posthouse.mail.address import Address, ReversePath
from posthouse.mail.header import date_time, field
from posthouse.mail.ids import AccountId, QueueId
from posthouse.mail.words import count, visible

HOUR_S = 3600.0
"""Postmaster is told of one account once in this time, at most."""

_TEXT = """\
The account {login} sent to more recipients elsewhere than it may: {limit}.
What goes beyond that is not sent: {recipients} of {messages} are held now.

The last of them is {last}, from {sender}.

If its owner sends that much on purpose, let it go, and give the account more:

    posthouse queue release held:limit account:{login}
    posthouse account limit {login} --recipients-per-hour 1000

If somebody else has its password, end that, and look at what is held, then
throw it away:

    posthouse account suspend {login}
    posthouse queue list account:{login}
    posthouse queue remove held:limit account:{login}
    posthouse account password {login}

While more of it comes, you are told again, once an hour at most.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverLimit:
    """An account of which something is held by its limit. `own_limit`: None is the configuration's."""

    account: AccountId
    login: str
    own_limit: int | None
    recipients: int
    messages: int
    first: QueueId
    last: QueueId
    reverse_path: ReversePath


def limit_notice(over: OverLimit, *, default_limit: int, queue_id: QueueId, now: float, hostname: str) -> bytes:
    """The message's whole content. Logins beyond ASCII stand in its text, as UTF-8."""
    postmaster = Address("postmaster", hostname)
    limit = default_limit if over.own_limit is None else over.own_limit
    text = _TEXT.format(
        login=visible(over.login),
        limit=f"{count(limit, 'recipient', 'recipients')} an hour",
        recipients=count(over.recipients, "recipient", "recipients"),
        messages=count(over.messages, "message", "messages"),
        last=over.last,
        sender=visible(str(over.reverse_path)) if over.reverse_path is not None else "nobody (<>)",
    )
    who = over.login if over.login.isascii() else f"account {over.account}"
    header = [
        field("Date", date_time(now)),
        field("From", f"Mail Delivery System <{postmaster}>"),
        field("To", f"<{postmaster}>"),
        field("Subject", f"Mail of {visible(who)[:200]} is held: too many recipients in an hour"),
        field("Message-ID", f"<{queue_id}@{hostname}>"),
        field("Auto-Submitted", "auto-generated"),
        field("MIME-Version", "1.0"),
        field("Content-Type", "text/plain; charset=utf-8"),
        field("Content-Transfer-Encoding", "7bit" if text.isascii() else "8bit"),
    ]
    return b"".join(header) + b"\r\n" + text.replace("\n", "\r\n").encode()
