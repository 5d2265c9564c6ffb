"""Would others take mail from an address for mail of a domain? SPF (RFC 7208), as far as one's own record needs it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Protocol

from posthouse.net.dns import MxHost, NoSuchName

LOOKUPS = 10
"""More of them are an error (RFC 7208 §4.6.4), and so are more hosts of one `mx`."""
_RESULTS = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}
_TERM = re.compile(r"([+?~-]?)([a-z][a-z0-9._-]*)([:=/].*)?\Z", re.IGNORECASE)


class Asker(Protocol):
    """What the resolver can be asked here."""

    async def texts(self, name: str, kind: str) -> tuple[str, ...]: ...

    async def names_of(self, address: str) -> tuple[str, ...]: ...

    async def mail_exchangers(self, domain: str) -> tuple[MxHost, ...]: ...


class SpfError(Exception):
    """The record is one that everybody takes for broken; the message says why."""


class SpfUnclear(Exception):
    """It depends on the message (macros), or on what is not to be used (ptr)."""


@dataclass(slots=True)
class _Budget:
    lookups: int = LOOKUPS

    def spend(self) -> None:
        self.lookups -= 1
        if self.lookups < 0:
            raise SpfError(f"it needs more than {LOOKUPS} look-ups")


async def spf_records(asker: Asker, domain: str) -> tuple[str, ...]:
    """The SPF records of a domain. There should be one. Raises TemporaryDnsFailure."""
    found = await asker.texts(domain, "TXT")
    return tuple(text for text in found if text.lower() == "v=spf1" or text.lower().startswith("v=spf1 "))


async def spf_result(asker: Asker, domain: str, address: str) -> str:
    """`pass`, `fail`, `softfail`, `neutral`, or `none` without a record.

    Raises SpfError, SpfUnclear, TemporaryDnsFailure.
    """
    return await _evaluate(asker, domain, ipaddress.ip_address(address), _Budget())


_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


async def _evaluate(asker: Asker, domain: str, address: _Ip, budget: _Budget) -> str:
    records = await spf_records(asker, domain)
    if not records:
        return "none"
    if len(records) > 1:
        raise SpfError(f"{domain} has {len(records)} SPF records, and so none counts")
    redirect = None
    for term in records[0].split()[1:]:
        match = _TERM.match(term)
        if match is None:
            raise SpfError(f"it says {term!r}, which is no mechanism")
        sign, name, rest = match[1], match[2].lower(), match[3] or ""
        if rest.startswith("="):
            redirect = rest[1:] if name == "redirect" else redirect
            continue
        if await _matches(asker, name, rest, domain, address, budget):
            return _RESULTS[sign or "+"]
    if redirect is None:
        return "neutral"
    return await _included(asker, redirect, address, budget)


async def _matches(asker: Asker, name: str, rest: str, domain: str, address: _Ip, budget: _Budget) -> bool:
    target, lengths = _split(rest)
    match name:
        case "all":
            return True
        case "ip4" | "ip6":
            return _in_network(address, rest[1:])
        case "include":
            return await _included(asker, target, address, budget) == "pass"
        case "a":
            budget.spend()
            return _among(address, await _addresses(asker, target or domain, address), lengths)
        case "mx":
            budget.spend()
            for host in (await _hosts(asker, target or domain))[:LOOKUPS]:
                if _among(address, await _addresses(asker, host.name, address), lengths):
                    return True
            return False
        case "ptr" | "exists":
            raise SpfUnclear(f"it says {name}")
        case _:
            raise SpfError(f"it says {name!r}, which is no mechanism")


async def _included(asker: Asker, target: str, address: _Ip, budget: _Budget) -> str:
    budget.spend()
    if "%" in target:
        raise SpfUnclear(f"it says {target}")
    result = await _evaluate(asker, target, address, budget)
    if result == "none":
        raise SpfError(f"it names {target or 'nobody'}, which has no SPF record")
    return result


def _split(rest: str) -> tuple[str, tuple[int, int]]:
    """`:target/24//64` becomes the target and the prefix lengths for IPv4 and IPv6."""
    match = re.match(r"(?::([^/]+))?(?:/([0-9]{1,2}))?(?://([0-9]{1,3}))?\Z", rest)
    if match is None:
        # Of ip4 and ip6, whose networks are read elsewhere.
        return rest[1:], (32, 128)
    if "%" in (match[1] or ""):
        raise SpfUnclear(f"it says {match[1]}")
    return match[1] or "", (int(match[2] or 32), int(match[3] or 128))


def _in_network(address: _Ip, text: str) -> bool:
    try:
        return address in ipaddress.ip_network(text, strict=False)
    except ValueError as exc:
        raise SpfError(f"it says {text!r}, which is no network") from exc


def _among(address: _Ip, found: tuple[str, ...], lengths: tuple[int, int]) -> bool:
    length = lengths[0] if address.version == 4 else lengths[1]
    return any(_in_network(address, f"{each}/{length}") for each in found)


async def _addresses(asker: Asker, host: str, like: _Ip) -> tuple[str, ...]:
    """Of the same family, so that an answer for the other one is not needed."""
    return await asker.texts(host, "A" if like.version == 4 else "AAAA")


async def _hosts(asker: Asker, domain: str) -> tuple[MxHost, ...]:
    try:
        return await asker.mail_exchangers(domain)
    except NoSuchName:
        return ()
