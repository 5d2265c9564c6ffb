"""What admission asks of the rest of the house, beside the directory and the maildrops."""

from __future__ import annotations

from typing import Protocol

from posthouse.mail.address import Address
from posthouse.mail.ids import AccountId
from posthouse.mail.reply import Reply


class SystemMaildrops(Protocol):
    """Where mail is kept that must be taken and that nobody reads."""

    async def system_maildrop(self, login: Address, now: float) -> AccountId: ...


class Elsewhere(Protocol):
    """What is known of domains that are not ours."""

    async def refusal(self, domain: str) -> Reply | None:
        """Why mail can never be sent on to a domain. None: it can, or that is not known now."""
        ...


class SenderDomains(Protocol):
    """What is known of the domains that senders name."""

    def known(self, domain: str) -> bool | None:
        """Whether one says that it takes no mail; None: it has to be asked about."""
        ...

    async def takes_no_mail(self, domain: str) -> bool:
        """The same, asked about for a bounded time; False where nobody can say."""
        ...
