"""What a forward-path comes to: maildrops here, recipients elsewhere, or a reason why not."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass, field
from typing import Protocol, assert_never

from posthouse.mail.account import Expansion, Mailbox, Remote, Resolution, Unavailable, Unknown
from posthouse.mail.address import Address, unquoted

EXPANSION_DEPTH = 10
EXPANSION_TARGETS = 1000
FOLLOWED_PER_TURN = 32
"""So many addresses of one expansion, less than a millisecond of work, then other sessions have their turn."""
POSTMASTER = "postmaster"
_HERE = (Mailbox, Expansion, Unavailable)
"""What no role stands in for."""


class Directory(Protocol):
    """What routing asks of storage."""

    async def resolve(self, forward_path: Address) -> Resolution: ...

    async def domains(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """What the house answers to beside its directory.

    `roles`: local parts that lead to the postmaster where nobody has them (RFC 2142); `literals`: the IP addresses
    it listens on.
    """

    hostname: str
    postmaster: Address | None
    roles: frozenset[str] = frozenset({"abuse"})
    literals: frozenset[str] = frozenset()

    @property
    def system_login(self) -> Address:
        """The login of the maildrop that keeps what must be taken and leads nowhere."""
        return Address(POSTMASTER, self.hostname)


@dataclass(slots=True)
class Routed:
    """Where one forward-path leads.

    `unavailable`: the directory could not say; `too_large`: the expansion was not followed to all its ends, and
    whoever accepted it would lose mail. Nothing else counts then. `unread`: mail for a postmaster whom nobody is;
    it is for the system maildrop (RFC 5321 §4.5.1: never refused).
    """

    mailboxes: dict[int, tuple[Mailbox, Address]] = field(default_factory=dict)
    remotes: dict[str, Address] = field(default_factory=dict)
    alias_domain: str = ""
    """The domain of ours in which it is an alias; "": it is none."""
    unavailable: bool = False
    too_large: bool = False
    unread: bool = False
    followed: int = 0
    """How many addresses were looked up: what this forward-path costs."""

    @property
    def is_alias(self) -> bool:
        return bool(self.alias_domain)

    @property
    def leads_nowhere(self) -> bool:
        return not self.mailboxes and not self.remotes

    @property
    def is_expanded(self) -> bool:
        """Whether it is an alias that stands for several."""
        return len(self.mailboxes) + len(self.remotes) > 1


async def route(directory: Directory, forward_path: Address, home: Home, *, local_address: str = "") -> Routed:
    """Follow aliases to their ends: each end once, loops cut (RFC 5321 §3.9.1).

    `local_address`: our IP address of the connection that named the forward-path; as a literal it is this house.
    """
    routed = Routed()
    seen: set[str] = set()
    waiting = [(qualified(forward_path, home.hostname), 0)]
    while waiting:
        address, depth = waiting.pop(0)
        if address.domain.startswith("["):
            address = await _at_home(directory, address, home, local_address)
        # By its own spelling: `Ann` and `ann` may be two people elsewhere, and are found to be one here.
        if address.foreign_key in seen:
            continue
        seen.add(address.foreign_key)
        routed.followed += 1
        if not routed.followed % FOLLOWED_PER_TURN:
            await asyncio.sleep(0)
        if depth > EXPANSION_DEPTH or len(seen) > EXPANSION_TARGETS + 1:
            routed.too_large = True
            break
        match await resolve(directory, address, home):
            case Mailbox() as mailbox:
                routed.mailboxes.setdefault(mailbox.account, (mailbox, address))
            case Expansion(targets=targets):
                routed.alias_domain = routed.alias_domain or address.domain
                routed.unread = routed.unread or (depth == 0 and await _must_be_taken(directory, address, home))
                waiting += [(target, depth + 1) for target in targets]
            case Remote():
                routed.remotes.setdefault(address.foreign_key, address)
            case Unknown():
                routed.unread = routed.unread or (depth == 0 and await _must_be_taken(directory, address, home))
            case Unavailable():
                routed.unavailable = True
            case unexpected:
                assert_never(unexpected)
    routed.unread = routed.unread and routed.leads_nowhere and not routed.unavailable and not routed.too_large
    return routed


async def resolve(directory: Directory, address: Address, home: Home) -> Resolution:
    """One step: the directory's answer, with a postmaster and the other roles in each of our domains."""
    resolution = await directory.resolve(address)
    if isinstance(resolution, _HERE):
        return resolution
    name = _name(address)
    if name != POSTMASTER and name not in home.roles:
        return resolution
    if isinstance(resolution, Remote) and address.domain != home.hostname:
        return resolution
    if name != POSTMASTER:
        resolution = await directory.resolve(Address(POSTMASTER, address.domain))
        if isinstance(resolution, _HERE):
            return resolution
    if home.postmaster is None or home.postmaster.key == address.key:
        return Unknown()
    return Expansion((home.postmaster,))


def qualified(forward_path: Address, hostname: str) -> Address:
    """`<Postmaster>` without a domain is this house's (RFC 5321 §4.5.1)."""
    return forward_path if forward_path.domain else Address(forward_path.local_part, hostname)


def ip_spelling(text: str) -> str | None:
    """The one spelling of an IP address (one mapped into IPv6 is IPv4), or None for what is none."""
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(parsed)


def _name(address: Address) -> str:
    # Not lower(), which takes letters of other scripts for ASCII ones: the Kelvin sign is no k of a role's name.
    plain = unquoted(address.local_part)
    return plain.lower() if plain.isascii() else plain


async def _must_be_taken(directory: Directory, address: Address, home: Home) -> bool:
    """Whether it is the postmaster, or a role of his, in one of our domains."""
    if _name(address) != POSTMASTER and _name(address) not in home.roles:
        return False
    return address.domain == home.hostname or address.domain in await directory.domains()


async def _at_home(directory: Directory, address: Address, home: Home, local_address: str) -> Address:
    """An address at a literal that is this house's, at its domain instead (RFC 5321 §4.1.3); others unchanged."""
    inside = address.domain[1:-1]
    ip = ip_spelling(inside[5:] if inside[:5].lower() == "ipv6:" else inside)
    if ip is None or (ip not in home.literals and ip != ip_spelling(local_address)):
        return address
    return Address(address.local_part, await _first_domain(directory, home.hostname))


async def _first_domain(directory: Directory, hostname: str) -> str:
    """The domain of those who are addressed at the house's IP address: the host name's own, one above it, the first."""
    domains = await directory.domains()
    name = hostname
    while name:
        if name in domains:
            return name
        name = name.partition(".")[2]
    return domains[0] if domains else hostname
