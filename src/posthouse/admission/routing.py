"""What a forward-path comes to: maildrops here, recipients elsewhere, or a reason why not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, assert_never

from posthouse.mail.account import Expansion, Mailbox, Remote, Resolution, Unavailable, Unknown
from posthouse.mail.address import Address, unquoted

EXPANSION_DEPTH = 10
EXPANSION_TARGETS = 1000


class Directory(Protocol):
    """What routing asks of storage."""

    async def resolve(self, forward_path: Address) -> Resolution: ...


@dataclass(slots=True)
class Routed:
    """Where one forward-path leads.

    `unavailable`: the directory could not say; `too_large`: the expansion was not followed to all its ends, and
    whoever accepted it would lose mail. Nothing else counts then.
    """

    mailboxes: dict[int, tuple[Mailbox, Address]] = field(default_factory=dict)
    remotes: dict[str, Address] = field(default_factory=dict)
    is_alias: bool = False
    unavailable: bool = False
    too_large: bool = False

    @property
    def leads_nowhere(self) -> bool:
        return not self.mailboxes and not self.remotes


async def route(directory: Directory, forward_path: Address, *, hostname: str, postmaster: Address | None) -> Routed:
    """Follow aliases to their ends: each end once, loops cut (RFC 5321 §3.9.1)."""
    routed = Routed()
    seen: set[str] = set()
    waiting = [(qualified(forward_path, hostname), 0)]
    while waiting:
        address, depth = waiting.pop(0)
        if address.key in seen:
            continue
        seen.add(address.key)
        if depth > EXPANSION_DEPTH or len(seen) > EXPANSION_TARGETS + 1:
            routed.too_large = True
            break
        match await _resolve(directory, address, hostname=hostname, postmaster=postmaster):
            case Mailbox() as mailbox:
                routed.mailboxes.setdefault(mailbox.account, (mailbox, address))
            case Expansion(targets=targets):
                routed.is_alias = True
                waiting += [(target, depth + 1) for target in targets]
            case Remote():
                routed.remotes.setdefault(address.key, address)
            case Unknown():
                pass
            case Unavailable():
                routed.unavailable = True
            case unexpected:
                assert_never(unexpected)
    return routed


async def _resolve(directory: Directory, address: Address, *, hostname: str, postmaster: Address | None) -> Resolution:
    """Resolve, with a postmaster in each of our domains (RFC 5321 §4.5.1)."""
    resolution = await directory.resolve(address)
    if (
        isinstance(resolution, Mailbox | Expansion | Unavailable)
        or unquoted(address.local_part).lower() != "postmaster"
    ):
        return resolution
    ours = isinstance(resolution, Unknown) or address.domain == hostname
    if not ours:
        return resolution
    if postmaster is None or postmaster.key == address.key:
        return Unavailable()
    return Expansion((postmaster,))


def qualified(forward_path: Address, hostname: str) -> Address:
    """`<Postmaster>` without a domain is this house's (RFC 5321 §4.5.1)."""
    return forward_path if forward_path.domain else Address(forward_path.local_part, hostname)
