"""The part of `posthouse check` that asks DNS: each record as it is found, as it should be, and why.

What could not be asked is neither right nor wrong. Without the records whose state is `problem` mail is lost or
refused somewhere; those that are a `note` make it better.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from posthouse.cli.check_spf import Asker, SpfError, SpfUnclear, spf_records, spf_result
from posthouse.cli.dns_records import DnsRecord, Site, dns_records, spf_record
from posthouse.cli.findings import NOTE, OK, PROBLEM, UNKNOWN
from posthouse.mail.words import some
from posthouse.net.address_scope import is_public
from posthouse.net.dns import MxHost, NoSuchName, TemporaryDnsFailure
from posthouse.net.own_addresses import is_of_this_machine

ROW_S = 20.0
AT_ONCE = 20
NOTHING = "nothing"
YOUR_LINE = "the public address of your line"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One record, or one thing that several must agree on. `why` says what is wrong, or what it is for."""

    name: str
    type: str
    state: str
    found: tuple[str, ...]
    should_be: str
    why: str


@dataclass(frozen=True, slots=True)
class _Verdict:
    state: str
    found: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class _Row:
    """A question that is still to be asked. Without an answer, it becomes a row all the same."""

    name: str
    type: str
    should_be: str
    why: str
    answer: Callable[[], Awaitable[_Verdict]]


async def compare_dns(site: Site, asker: Asker) -> list[Compared]:
    """Ask for everything that `dns_records` names, all at once."""
    if not site.has_name:
        return []
    ours, rows = await _addresses_of_house(site, asker)
    rows += [
        _Row(*_named(record), partial(_domain_record, site, asker, record))
        for record in dns_records(site)
        if _asked(record)
    ]
    for address in ours:
        rows += _names(site, asker, address)
    rows += [_spf(site, asker, domain, ours) for domain in site.domains]
    if site.hostname not in site.domains:
        rows.append(_spf(site, asker, site.hostname, ours))
    limit = asyncio.Semaphore(AT_ONCE)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_answered(row, limit)) for row in rows]
    compared = [task.result() for task in tasks]
    order = {name: number for number, name in enumerate((site.hostname, *site.domains))}
    return sorted(compared, key=lambda row: order.get(row.name.rstrip("."), len(order)))


def _asked(record: DnsRecord) -> bool:
    return record.type in ("MX", "SRV") or record.name.startswith("_dmarc.")


def _named(record: DnsRecord) -> tuple[str, str, str, str]:
    return record.name, record.type, record.value, record.why


async def _answered(row: _Row, limit: asyncio.Semaphore) -> Compared:
    try:
        async with limit, asyncio.timeout(ROW_S):
            verdict = await row.answer()
    except (TemporaryDnsFailure, TimeoutError):
        verdict = _Verdict(UNKNOWN, (), "the name servers do not answer; try again: posthouse check")
    return Compared(
        name=row.name,
        type=row.type,
        state=verdict.state,
        found=verdict.found,
        should_be=row.should_be,
        why=verdict.why or row.why,
    )


async def _given(verdict: _Verdict) -> _Verdict:
    """An answer that is there already."""
    return verdict


async def _addresses_of_house(site: Site, asker: Asker) -> tuple[tuple[str, ...], list[_Row]]:
    """Our addresses, as far as they are known here or DNS says so, and the rows about those of the host name."""
    rows, ours = [], list(site.addresses)
    seen: list[str] = []
    failure: TemporaryDnsFailure | None = None
    for kind, version in (("A", 4), ("AAAA", 6)):
        expected = site.of(version)
        should_be = ", ".join(expected) or (YOUR_LINE if version == 4 else "none")
        try:
            found = await asker.texts(site.hostname, kind)
            alias = await asker.texts(site.hostname, "CNAME")
        except TemporaryDnsFailure as exc:
            rows.append(_Row(f"{site.hostname}.", kind, should_be, "", partial(_failed, exc)))
            failure = exc
            continue
        seen += found
        if not expected and (version == 4 or not site.addresses):
            ours += [address for address in found if is_public(address)]
        verdict = _judge_alias(alias) or _judge_addresses(site, version, found)
        if verdict is not None:
            rows.append(_Row(f"{site.hostname}.", kind, should_be, "", partial(_given, verdict)))
    own = tuple(dict.fromkeys(ours))
    leads_here = any(address in own or is_of_this_machine(address) for address in seen)
    answer = (
        partial(_failed, failure) if failure and not leads_here else partial(_given, _judge_greeting(site, seen, own))
    )
    rows.append(_Row(f"{site.hostname}.", "EHLO name", ", ".join(own) or YOUR_LINE, "", answer))
    return own, rows


def _judge_greeting(site: Site, found: Sequence[str], ours: Sequence[str]) -> _Verdict:
    """Whether the name that the house greets others with leads to it (RFC 5321 §4.1.4)."""
    if any(address in ours or is_of_this_machine(address) for address in found):
        return _Verdict(OK, tuple(found), "")
    wrong = NOTE if site.smarthost else PROBLEM
    return _Verdict(wrong, tuple(found), "the name that the house greets others with does not lead to it")


async def _failed(exc: TemporaryDnsFailure) -> _Verdict:
    raise exc


def _judge_alias(alias: Sequence[str]) -> _Verdict | None:
    if not alias:
        return None
    why = "an MX record must not lead to an alias (RFC 5321 §5.1); give the name addresses of its own"
    return _Verdict(PROBLEM, (f"CNAME {alias[0]}.",), why)


def _judge_addresses(site: Site, version: int, found: tuple[str, ...]) -> _Verdict | None:
    """None where nothing is there, and nothing should be."""
    expected = site.of(version)
    private = [address for address in found if not is_public(address)]
    if private:
        return _Verdict(PROBLEM, found, f"{some(private)} is a private address, which other houses cannot reach")
    if not found:
        return _judge_no_addresses(site, version)
    if site.versions and version not in site.versions:
        door = "[::]:25" if version == 6 else "0.0.0.0:25"
        return _Verdict(PROBLEM, found, f'no door is open there: add "{door}" to listen.smtp, or remove the record')
    if not expected and (version == 4 or not site.addresses):
        why = f"this machine has no public IPv{version} address of its own, so whether it is yours cannot be seen here"
        return _Verdict(NOTE, found, why)
    foreign = [address for address in found if address not in expected and not is_of_this_machine(address)]
    if foreign:
        return _Verdict(PROBLEM, found, f"{some(foreign)} is no address of this machine: mail goes elsewhere")
    missing = [address for address in expected if address not in found]
    if missing:
        return _Verdict(NOTE, found, f"mail leaves from {some(missing)}, which is none of the addresses of its name")
    return _Verdict(OK, found, "where this house is")


def _judge_no_addresses(site: Site, version: int) -> _Verdict | None:
    expected = site.of(version)
    if not expected and version == 6:
        return None
    if not expected and site.addresses:
        return _Verdict(NOTE, (), "houses without IPv6 do not find this one")
    if version in site.versions or not site.addresses:
        return _Verdict(PROBLEM, (), "other houses look there for this one, and for the name that it greets with")
    return _Verdict(NOTE, (), f"mail leaves from {some(expected)}, which is none of the addresses of its name")


async def _domain_record(site: Site, asker: Asker, record: DnsRecord) -> _Verdict:
    name = record.name.rstrip(".")
    match record.type:
        case "MX":
            return await _judge_mx(site, asker, name)
        case "SRV":
            return _judge_srv(site, await asker.texts(name, "SRV"), record)
        case _:
            return _judge_dmarc(await asker.texts(name, "TXT"))


async def _judge_mx(site: Site, asker: Asker, domain: str) -> _Verdict:
    try:
        hosts = sorted(await asker.mail_exchangers(domain), key=lambda host: host.preference)
    except NoSuchName:
        return _Verdict(PROBLEM, (), f"the domain {domain} does not exist: register it, or look at its spelling")
    found = tuple(f"{host.preference} {host.name}." for host in hosts)
    state = PROBLEM if site.versions else NOTE
    if not hosts:
        return _Verdict(state, (), f"mail for {domain} does not find its way here")
    if any(not host.name for host in hosts):
        return _Verdict(state, found, f"it says that {domain} takes no mail (RFC 7505)")
    if site.hostname not in {host.name for host in hosts}:
        return _Verdict(state, found, f"mail for {domain} goes elsewhere")
    if hosts[0].name != site.hostname and hosts[0].preference < _preference(hosts, site.hostname):
        return _Verdict(NOTE, found, f"mail for {domain} goes to {hosts[0].name} first")
    return _Verdict(OK, found, "")


def _preference(hosts: Sequence[MxHost], name: str) -> int:
    return min(host.preference for host in hosts if host.name == name)


def _judge_srv(site: Site, found: tuple[str, ...], record: DnsRecord) -> _Verdict:
    """A lower priority and another weight are the operator's choice; the port and the host are not."""
    port = record.value.split()[2]
    shown = tuple(text + ("" if text.endswith(".") else ".") for text in found)
    if not found:
        return _Verdict(NOTE, (), "mail programs that look for it (RFC 6186) ask their user instead")
    for text in found:
        fields = text.split()
        if len(fields) == 4 and fields[2] == port and fields[3].lower().rstrip(".") == site.hostname:
            return _Verdict(OK, shown, "")
    return _Verdict(PROBLEM, shown, "mail programs that follow it do not come here")


def _judge_dmarc(found: tuple[str, ...]) -> _Verdict:
    policies = tuple(text for text in found if re.match(r"v\s*=\s*DMARC1\s*(;|\Z)", text))
    if not policies:
        return _Verdict(NOTE, (), "large providers ask senders for one")
    if len(policies) > 1:
        return _Verdict(PROBLEM, policies, "of several none counts (RFC 7489 §6.6.3); keep one")
    if not re.search(r";\s*p\s*=\s*(none|quarantine|reject)\s*(;|\Z)", policies[0]):
        return _Verdict(PROBLEM, policies, "it names no policy: p=none, p=quarantine or p=reject")
    return _Verdict(OK, policies, "")


def _names(site: Site, asker: Asker, address: str) -> list[_Row]:
    """What reverse DNS calls us, and whether that name leads back: forward-confirmed."""
    pointer = ipaddress.ip_address(address).reverse_pointer
    host = f"{site.hostname}."
    return [
        _Row(
            f"{pointer}.",
            "PTR",
            host,
            f"many houses refuse mail from {address} without it",
            partial(_ptr, site, asker, address),
        ),
        _Row(
            address,
            "name that leads back",
            address,
            "many houses refuse mail whose name does not lead back",
            partial(_back, site, asker, address),
        ),
    ]


async def _ptr(site: Site, asker: Asker, address: str) -> _Verdict:
    names = tuple(sorted(f"{name.lower()}." for name in await asker.names_of(address)))
    # Where everything leaves through a smarthost, its name counts.
    wrong = NOTE if site.smarthost else PROBLEM
    if not names:
        return _Verdict(
            wrong, (), f"many houses refuse mail from {address} without it; whoever gave you the address sets it"
        )
    if f"{site.hostname}." not in names:
        return _Verdict(
            wrong, names, "it is not the name that the house greets with; whoever gave you the address sets it"
        )
    return _Verdict(OK, names, "")


async def _back(site: Site, asker: Asker, address: str) -> _Verdict:
    names = sorted(await asker.names_of(address))
    wrong = NOTE if site.smarthost else PROBLEM
    found: dict[str, None] = {}
    for name in names[:3]:
        found |= dict.fromkeys(await asker.texts(name, "AAAA" if ":" in address else "A"))
    if address in found:
        return _Verdict(OK, (address,), "")
    if not names:
        return _Verdict(wrong, (), "there is no name that could lead back")
    return _Verdict(wrong, tuple(found), f"its name {some(names)} does not lead back to it")


def _spf(site: Site, asker: Asker, domain: str, ours: tuple[str, ...]) -> _Row:
    own = domain == site.hostname and domain not in site.domains
    should_be = "v=spf1 a -all" if own else spf_record(site)
    why = f"who may send as {domain}"
    return _Row(f"{domain}.", "TXT", should_be, why, partial(_judge_spf, site, asker, domain, ours, own=own))


async def _judge_spf(site: Site, asker: Asker, domain: str, ours: tuple[str, ...], *, own: bool) -> _Verdict:
    found = await spf_records(asker, domain)
    wrong = NOTE if own else PROBLEM
    if not found:
        return _Verdict(wrong, (), f"without it many houses take mail from {domain} for forged")
    try:
        for address in () if site.smarthost else ours:
            result = await spf_result(asker, domain, address)
            if result != "pass":
                return _Verdict(wrong, found, f"it says {result} to mail from {address}, which this house sends from")
    except SpfError as exc:
        return _Verdict(wrong, found, f"other houses cannot use it: {exc}")
    except SpfUnclear as exc:
        return _Verdict(NOTE, found, f"whether it lets this house send cannot be seen here: {exc}")
    if site.smarthost:
        return _Verdict(OK, found, f"whether it names all that {site.smarthost.host} sends from, its provider knows")
    return _Verdict(OK, found, "")
