"""`posthouse check`: is the configuration right, would the house start, does DNS say what it should."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posthouse.cli.check_aliases import aliases
from posthouse.cli.check_certificates import certificates
from posthouse.cli.check_elsewhere import elsewhere
from posthouse.cli.check_identities import identities
from posthouse.cli.check_logins import scram
from posthouse.cli.check_outgoing import outgoing
from posthouse.cli.check_ports import ports
from posthouse.cli.check_postmaster import postmaster
from posthouse.cli.check_service import service_findings
from posthouse.cli.check_store import check_store
from posthouse.cli.common import (
    ConfigOption,
    JsonOption,
    Problem,
    become_owner,
    load_config,
    print_json,
    printable,
    require_writable,
)
from posthouse.cli.findings import NOTE, OK, PROBLEM, UNKNOWN, Finding
from posthouse.cli.obstacles import clock, disk
from posthouse.mail.words import count
from posthouse.storage.errors import StorageError

if TYPE_CHECKING:
    from posthouse.cli.check_dns import Compared
    from posthouse.cli.dns_records import Site
    from posthouse.config import Config

SHOWN_RIGHT = 60
"""A house of many domains wants to read what is wrong."""

AddressOption = Annotated[
    list[str] | None,
    typer.Option(metavar="ADDRESS", help="A public address of the house that this machine does not know of."),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(check)


def check(
    config: ConfigOption = None,
    json: JsonOption = False,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no name server.")] = False,
    network: Annotated[
        bool, typer.Option("--check-network", help="Try whether connections to port 25 elsewhere are let out.")
    ] = False,
    address: AddressOption = None,
    store: Annotated[bool, typer.Option("--store", help="Look at every row and every octet of mail instead.")] = False,
    mend: Annotated[bool, typer.Option("--mend", help="With --store: recount what was counted wrong.")] = False,
) -> None:
    """Say whether the house would start, and if DNS is right."""
    import asyncio

    from posthouse.config import find

    if mend and not store:
        raise Problem("--mend goes with --store: posthouse check --store --mend")
    if store:
        check_store(config, as_json=json, mend=mend)
        return
    loaded = load_config(config)
    addresses = checked_addresses(address)
    findings, domains = _house(loaded, find(config).absolute())
    site = site_here(loaded, domains, addresses)
    compared: list[Compared] = []
    if loaded.is_personal and not _is_found_by_others(loaded):
        # Nothing leads here, and nothing should.
        pass
    elif offline or not _is_found_by_others(loaded):
        findings.append(_not_asked(site, offline=offline))
    else:
        compared, more = asyncio.run(_ask(loaded, site))
        findings += more
    if network:
        findings.append(asyncio.run(_port_25(loaded)))
    _print(findings, compared, as_json=json)
    _end(findings, compared)


def checked_addresses(given: Sequence[str] | None) -> tuple[str, ...]:
    """The addresses of the command line. Raises Problem."""
    from posthouse.net.address_scope import is_public, plain_address

    found = []
    for text in given or ():
        try:
            found.append(plain_address(text))
        except ValueError as exc:
            raise Problem(f"{text!r} is not an IP address; give one such as --address 198.51.100.7") from exc
        if not is_public(found[-1]):
            raise Problem(
                f"{text} is not a public address; see the one of your line in your router, or at its provider"
            )
    return tuple(found)


def site_here(config: Config, domains: Sequence[str], told: Sequence[str]) -> Site:
    """What DNS has to say about the house, with the addresses of this machine or those that were told."""
    from posthouse.cli.dns_records import site_of
    from posthouse.cli.surroundings import outgoing_addresses

    return site_of(config, domains, told or (*config.forwarding.source_addresses, *outgoing_addresses()))


def _house(config: Config, file: Path) -> tuple[list[Finding], tuple[str, ...]]:
    """All but DNS, and the local domains."""
    import asyncio

    # Ports first: those below 1024 may be opened by root only, and root is given up for what follows.
    served = is_served(config)
    findings = [Finding("configuration", OK, f"for {config.hostname}"), _running(served), *ports(config, served=served)]
    findings += [*certificates(config), *outgoing(config)]
    findings += service_findings(config, file)
    domains: tuple[str, ...] = ()
    newest: float | None = None
    # Before the store is opened, which changes its files.
    now = clock(config.data_dir)
    try:
        become_owner(config.data_dir)
        findings.append(disk(config.data_dir))
        require_writable(config.data_dir)
        found, domains, newest = asyncio.run(_store(config))
        findings += found
    except (StorageError, Problem) as exc:
        text = str(exc) or type(exc).__name__
        if text not in {finding.text for finding in findings}:
            findings.append(Finding("store", PROBLEM, text))
    findings.append(now if now.state == PROBLEM else clock(config.data_dir, newest))
    return findings, domains


def is_served(config: Config) -> bool:
    """Whether a process serves this house now: it holds the lock of the folder."""
    import fcntl

    try:
        file = (config.data_dir / "serve.lock").open("rb")
    except OSError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _running(served: bool) -> Finding:
    return Finding("running", OK, "a house serves this folder" if served else "no house serves this folder now")


async def _store(config: Config) -> tuple[list[Finding], tuple[str, ...], float | None]:
    """What the store says, its domains, and when the newest journey began. Every command opens it beside a house."""
    from posthouse.cli.check_crowd import crowd
    from posthouse.engines import open_storage
    from posthouse.mail.ids import time_of
    from posthouse.world import World

    storage = await open_storage(config, World())
    try:
        findings = [Finding("store", OK, f"{config.data_dir} opens")]
        domains = await storage.administration.domains()
        if not domains:
            findings.append(Finding("domain", PROBLEM, "no domain is local; run: posthouse domain add example.org"))
        findings += [await postmaster(config, storage), *crowd(config)]
        if not config.is_personal or any(config.listen.model_dump().values()):
            findings.append(await scram(config, storage))
        findings += await aliases(storage, config)
        findings += await identities(storage, config)
        findings += await elsewhere(storage, config)
        newest = await storage.journey.find(limit=1)
        return findings, domains, time_of(newest[0]) if newest else None
    finally:
        await storage.close()


def _is_found_by_others(config: Config) -> bool:
    """Whether anybody beyond this machine can come in: else it is a trial, and no DNS leads to it."""
    doors = [endpoint for door in type(config.listen).model_fields for endpoint in getattr(config.listen, door)]
    return bool(config.reception.proxy_from) or any(not endpoint.is_loopback for endpoint in doors)


def _not_asked(site: Site, *, offline: bool) -> Finding:
    if not site.has_name:
        return _no_name(site)
    why = "as --offline asks" if offline else "since every door is open to this machine only"
    return Finding("dns", NOTE, f"not asked, {why}; what it should say: posthouse dns")


def _no_name(site: Site) -> Finding:
    text = (
        f"hostname is the address {site.hostname}: few houses believe such a name; set hostname to one that DNS knows"
    )
    return Finding("dns", NOTE, text)


async def _ask(config: Config, site: Site) -> tuple[list[Compared], list[Finding]]:
    from posthouse.cli.check_dns import compare_dns
    from posthouse.cli.surroundings import resolver_of

    if not site.has_name:
        return [], [_no_name(site)]
    return await compare_dns(site, resolver_of(config)), []


async def _port_25(config: Config) -> Finding:
    from posthouse.cli.surroundings import port_25, resolver_of

    return await port_25(resolver_of(config))


def _print(findings: Sequence[Finding], compared: Sequence[Compared], *, as_json: bool) -> None:
    if as_json:
        print_json([*map(dataclasses.asdict, findings), *({"check": "dns", **dataclasses.asdict(c)} for c in compared)])
        return
    for finding in findings:
        print_finding(finding)
    if compared:
        print("\nDNS:")
    right = [row for row in compared if row.state == OK]
    for row in compared:
        if row.state != OK or len(right) <= SHOWN_RIGHT:
            _tell(row)
    if len(right) > SHOWN_RIGHT:
        print(f"{OK:<8} {count(len(right), 'record is', 'records are')} as they should be; all of them: --json")


def print_finding(finding: Finding) -> None:
    """One line; on a terminal, as many as it needs there, below each other."""
    print_wrapped(f"{finding.state:<8} {finding.check:<14} ", finding.text)


def print_wrapped(label: str, text: str) -> None:
    """A text behind its label. Only a terminal breaks it: what is piped on stays one line."""
    text = printable(text)
    if not sys.stdout.isatty():
        print(label + text)
        return
    width = max(60, min(shutil.get_terminal_size().columns, 120))
    options = {"initial_indent": label, "subsequent_indent": " " * len(label)}
    print(textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False, **options))  # type: ignore[arg-type]


def _tell(row: Compared) -> None:
    """What is right is one line; the rest says what was found, what should be there, and why."""
    kind = "TXT (SPF)" if row.should_be.startswith("v=spf1") else row.type
    head = f"{row.state:<8} {row.name} {kind}"
    found = ", ".join(row.found) or "nothing"
    if row.state == OK:
        print_wrapped(f"{head}  ", found)
        return
    print(head)
    if row.state != UNKNOWN:
        print_wrapped("           found      ", found)
    print_wrapped("           should be  ", row.should_be)
    print_wrapped("           why        ", row.why)


def _end(findings: Sequence[Finding], compared: Sequence[Compared]) -> None:
    """Exit with 1 if anything is wrong. What could not be asked is not."""
    states = [*(finding.state for finding in findings), *(row.state for row in compared)]
    problems = count(states.count(PROBLEM), "problem", "problems")
    unasked = f"{count(states.count(UNKNOWN), 'thing', 'things')} could not be found out"
    told = [problems] * (PROBLEM in states) + [unasked] * (UNKNOWN in states)
    if told:
        sys.stdout.flush()
        print(f"posthouse: {'; '.join(told)}; see above", file=sys.stderr)
    if PROBLEM in states:
        raise typer.Exit(1)
