"""The interface of what mail is listed and found by; one of those of `storage/interfaces.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from posthouse.mail.found_by import FoundBy
from posthouse.mail.ids import AccountId, QueueId
from posthouse.mail.indexed import Listed, Missing
from posthouse.mail.mail_query import MailQuery


class Reading(Protocol):
    """What a maildrop's owner lists and finds mail by. It follows from the entries, and is filled when somebody asks.

    An entry that moved is found where it is; one that is gone is not.
    """

    async def begin(self, account: AccountId) -> None:
        """Somebody reads it here: from now on the running house keeps it filled."""
        ...

    async def accounts(self) -> tuple[AccountId, ...]:
        """Those that are read here."""
        ...

    async def missing(self, account: AccountId, limit: int) -> tuple[Missing, ...]:
        """Entries that it does not know, those of a folder in order."""
        ...

    async def missing_count(self, account: AccountId) -> int: ...

    async def add(self, account: AccountId, found: Sequence[tuple[Missing, FoundBy | None]]) -> None:
        """All that `missing` returned, in one transaction; None: it is passed over. What it has already stays."""
        ...

    async def tidy(self, account: AccountId) -> int:
        """Forget entries that are gone; how many."""
        ...

    async def forget_removed(self) -> None:
        """Forget what was known of accounts whose mail went with them."""
        ...

    async def find(self, account: AccountId, query: MailQuery, limit: int) -> tuple[Listed, ...]:
        """Messages that the query fits, the newest first."""
        ...

    async def named(self, account: AccountId, beginning: str, limit: int) -> tuple[Listed, ...]:
        """Those whose queue id begins so, in order; `beginning` is in capitals."""
        ...

    async def short_names(self, account: AccountId, queue_ids: Sequence[QueueId], least: int) -> Mapping[QueueId, str]:
        """Of each as many characters, at least `least`, as tell it from all others of the account."""
        ...
