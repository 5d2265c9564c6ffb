"""`posthouse check`: is the configuration right, would the house start, what should DNS say."""

from __future__ import annotations

import dataclasses
import ipaddress
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from posthouse.cli.check_aliases import aliases
from posthouse.cli.check_certificates import certificates
from posthouse.cli.check_identities import identities
from posthouse.cli.check_outgoing import outgoing
from posthouse.cli.check_service import service_findings
from posthouse.cli.check_store import check_store
from posthouse.cli.common import (
    ConfigOption,
    JsonOption,
    Problem,
    become_owner,
    load_config,
    print_json,
    print_rows,
    require_writable,
)
from posthouse.cli.findings import NOTE, OK, PROBLEM, Finding
from posthouse.mail.address import Address
from posthouse.mail.words import count, some
from posthouse.storage.errors import StorageError

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.config_values import Endpoint
    from posthouse.storage.interfaces import Storage


LOGINS_LOOKED_AT = 10_000


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """A record that should exist, as in a zone file."""

    name: str
    type: str
    value: str
    why: str


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(check)


def check(
    config: ConfigOption = None,
    json: JsonOption = False,
    store: Annotated[bool, typer.Option("--store", help="Look at every row and every octet of mail instead.")] = False,
    mend: Annotated[bool, typer.Option("--mend", help="With --store: recount what was counted wrong.")] = False,
) -> None:
    """Say whether the house would start, and what DNS should say."""
    import asyncio

    from posthouse.config import find

    if mend and not store:
        raise Problem("--mend goes with --store: posthouse check --store --mend")
    if store:
        check_store(config, as_json=json, mend=mend)
        return
    loaded = load_config(config)
    # Ports first: those below 1024 may be opened by root only, and root is given up for what follows.
    served = is_served(loaded)
    findings = [Finding("configuration", OK, f"for {loaded.hostname}"), *_ports(loaded, served)]
    findings += [*certificates(loaded), *outgoing(loaded)]
    findings += service_findings(loaded, find(config).absolute())
    domains: tuple[str, ...] = ()
    try:
        become_owner(loaded.data_dir)
        require_writable(loaded.data_dir)
        found, domains = asyncio.run(_store(loaded))
        findings += found
    except (StorageError, Problem) as exc:
        findings.append(Finding("store", PROBLEM, str(exc) or type(exc).__name__))
    records = dns_records(loaded, domains)
    _print(findings, records, as_json=json)
    problems = sum(finding.state == PROBLEM for finding in findings)
    if problems:
        sys.stdout.flush()
        print(f"posthouse: {count(problems, 'problem', 'problems')}; see above", file=sys.stderr)
        raise typer.Exit(1)


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


def _ports(config: Config, served: bool) -> Iterator[Finding]:
    state = "a house serves this folder" if served else "no house serves this folder now"
    yield Finding("running", OK, state)
    endpoints = [
        (door, endpoint) for door in type(config.listen).model_fields for endpoint in getattr(config.listen, door)
    ]
    if not endpoints:
        yield Finding("port", PROBLEM, "[listen] opens no door; add for example smtp = ['127.0.0.1:2525']")
    for door, endpoint in endpoints:
        if endpoint.port:
            yield _answering(door, endpoint) if served else _free(door, endpoint)


def _answering(door: str, endpoint: Endpoint) -> Finding:
    """A port of a house that runs."""
    import socket

    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(endpoint.host, endpoint.host)
    try:
        socket.create_connection((host, endpoint.port), timeout=5).close()
    except OSError:
        return Finding("port", PROBLEM, f"{door} {endpoint} does not answer; restart the house that runs")
    return Finding("port", OK, f"{door} {endpoint} answers")


def _free(door: str, endpoint: Endpoint) -> Finding:
    """A port of a house that does not run."""
    from posthouse.net.listener import PortTaken, bind

    try:
        bind(endpoint.host, endpoint.port).close()
    except PortTaken as exc:
        return Finding("port", PROBLEM, f"{door} {exc}{port_advice(exc)}")
    return Finding("port", OK, f"{door} {endpoint} is free")


def port_advice(problem: Exception) -> str:
    """What to do about a port that cannot be opened."""
    first = "; end that one, or" if "listens there already" in str(problem) else "; otherwise"
    return f"{first} change [listen] in the configuration"


async def _store(config: Config) -> tuple[list[Finding], tuple[str, ...]]:
    """What the store says; opening it beside a running house is what every command does."""
    from posthouse.app import World, open_storage

    storage = await open_storage(config, World())
    try:
        findings = [Finding("store", OK, f"{config.data_dir} opens")]
        domains = await storage.administration.domains()
        if not domains:
            findings.append(Finding("domain", PROBLEM, "no domain is local; run: posthouse domain add example.org"))
        findings += [await _postmaster(config, storage), await _scram(config, storage)]
        findings += await aliases(storage, config)
        findings += await identities(storage, config)
        return findings, domains
    finally:
        await storage.close()


async def _postmaster(config: Config, storage: Storage) -> Finding:
    """RFC 5321 §4.5.1: mail to postmaster must be taken."""
    from posthouse.admission.routing import Home, route

    home = Home(hostname=config.hostname, postmaster=config.postmaster)
    readers: dict[str, None] = {}
    for domain in (config.hostname, *await storage.directory.domains()):
        routed = await route(storage.directory, Address("postmaster", domain), home)
        if routed.leads_nowhere:
            return await _unread_postmaster(config, storage, home.system_login)
        readers |= dict.fromkeys(mailbox.login for mailbox, _ in routed.mailboxes.values())
        readers |= dict.fromkeys(map(str, routed.remotes.values()))
    return Finding("postmaster", OK, f"read by {', '.join(readers)}")


async def _unread_postmaster(config: Config, storage: Storage, login: Address) -> Finding:
    """Mail to postmaster is kept in the system maildrop; whether anybody can read it there."""
    account = await storage.directory.account(str(login))
    if account is not None and account.credentials:
        return Finding("postmaster", OK, f"kept in the system maildrop, read with the login {login}")
    mend = (
        f"run: posthouse account add {config.postmaster}"
        if config.postmaster is not None
        else "set postmaster in the configuration"
    )
    if account is None:
        text = f"mail to postmaster leads to nobody and will be kept in a system maildrop; {mend}"
        return Finding("postmaster", PROBLEM, text)
    held = len(await storage.maildrops.list(account.account))
    text = (
        f"nobody reads mail to postmaster; {count(held, 'message is', 'messages are')} kept in the system maildrop; "
        f"{mend}; to read what is kept: posthouse account password {login}"
    )
    return Finding("postmaster", PROBLEM, text)


async def _scram(config: Config, storage: Storage) -> Finding:
    """Whether SCRAM is offered, which is so where it works for everybody."""
    auth = config.auth
    if not auth.scram:
        return Finding("SCRAM", OK, "not offered, as auth.scram says")
    without = await storage.directory.logins_without_scram(LOGINS_LOOKED_AT)
    if not without:
        return Finding("SCRAM", OK, "offered: it works with every password")
    mend = (
        "it is again when all of them have logged in by PLAIN, or got a password with: posthouse account password"
        if auth.scram_for_passwords
        else "set auth.scram_for_passwords = true, and it is when all of them have logged in; or auth.scram = false"
    )
    return Finding("SCRAM", NOTE, f"not offered: it would not work with the passwords of {some(without)}; {mend}")


def dns_records(config: Config, domains: tuple[str, ...]) -> list[DnsRecord]:
    """The records with which other houses find this one and believe it (RFC 5321 §5, RFC 7208)."""
    host = config.hostname
    records = [DnsRecord(f"{host}.", "A/AAAA", "(this machine's public address)", "where this house is")]
    smarthost = config.forwarding.next_hop("*")
    senders = f"mx {_spf_mechanism(smarthost.host)}" if smarthost else "mx"
    for domain in domains:
        records.append(DnsRecord(f"{domain}.", "MX", f"10 {host}.", f"mail for {domain} comes here"))
        records.append(DnsRecord(f"{domain}.", "TXT", f'"v=spf1 {senders} -all"', "who may send as this domain"))
    records.append(DnsRecord("(that address)", "PTR", f"{host}.", "many houses refuse mail without it"))
    return records


def _spf_mechanism(host: str) -> str:
    """A host as an SPF record names it (RFC 7208 §5)."""
    try:
        return f"ip{ipaddress.ip_address(host).version}:{host}"
    except ValueError:
        return f"a:{host}"


def _print(findings: list[Finding], records: list[DnsRecord], *, as_json: bool) -> None:
    if as_json:
        dns = [{"check": "dns", "state": NOTE, **dataclasses.asdict(record)} for record in records]
        print_json([*map(dataclasses.asdict, findings), *dns])
        return
    for finding in findings:
        print(f"{finding.state:<8} {finding.check:<14} {finding.text}")
    print("\nDNS should say (it is not asked here):")
    print_rows([dataclasses.asdict(record) for record in records], ["name", "type", "value"], as_json=False, empty="")
