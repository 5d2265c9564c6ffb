"""What `add-account` and `change-account` do step by step: find, show, ask, prove, keep, tell."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import typer

from posthouse.cli.common import Problem, address_argument, print_json, printable
from posthouse.cli.elsewhere import (
    SMTP_PORT,
    account_row,
    ask_password,
    interval_argument,
    policy_argument,
    policy_told,
    server_argument,
    server_told,
    text_argument,
)
from posthouse.mail.account import Identity, Submission, own_via, server_of
from posthouse.mail.address import Address
from posthouse.mail.ids import AccountId
from posthouse.mail.source import Mechanism, Policy, Protection, Server, SourceSettings
from posthouse.mail.words import duration
from posthouse.vault import SecretMissing

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.discovery.candidate import Offer
    from posthouse.discovery.search import Found
    from posthouse.mail.source import Source
    from posthouse.storage.interfaces import Storage
    from posthouse.vault import Vault

SHOWN_TRIED = 4


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose mail it is."""

    account: AccountId
    login: str


@dataclass(frozen=True, slots=True)
class Terms:
    """Options that say what becomes of mail."""

    keep: str | None
    every: str | None
    folder: str | None

    def parsed(self, policy: Policy, interval_s: float, folder: str) -> tuple[Policy, float, str]:
        """What was given, else these."""
        return (
            policy_argument(self.keep) if self.keep else policy,
            interval_argument(self.every) if self.every else interval_s,
            text_argument(self.folder, "the name of a folder", 100) if self.folder else folder,
        )


def require_token_options(command: str | None, mechanism: Mechanism | None, *, password_stdin: bool) -> None:
    if command is not None and password_stdin:
        raise Problem("give a password or --token-command, not both")
    if mechanism is Mechanism.PASSWORD and command is not None:
        raise Problem("a token is used by --mechanism xoauth2 or oauthbearer")
    if command is not None and not command.strip():
        raise Problem("--token-command is a program that prints a token")


async def find_owner(storage: Storage, wanted: str | None, address: Address) -> Owner:
    """Whose mail it will be. Raises Problem."""
    logins = [each for each in await storage.administration.accounts() if not each.suspended]
    if wanted is not None:
        key = address_argument(wanted).key
        logins = [each for each in logins if address_argument(each.login).key == key]
    if not logins:
        raise Problem(
            f"there is no account {wanted} here; see: posthouse account list"
            if wanted
            else "this house has no account whose mail it could be; add one: posthouse account add ADDRESS"
        )
    if len(logins) > 1:
        raise Problem(f"several people have accounts here; say whose mail it is: --account {logins[0].login}")
    if await storage.sources.find(address) is not None:
        raise Problem(f"mail is collected from {address} already; run: posthouse change-account {address}")
    if await storage.directory.identity(address) is not None:
        raise Problem(f"{address} is an identity already; run: posthouse identity remove {address}")
    return Owner(logins[0].account, logins[0].login)


async def find_there(storage: Storage, address: Address) -> tuple[Source, Identity | None]:
    source = await storage.sources.find(address)
    if source is None:
        raise Problem(f"no mail is collected from {address}; see: posthouse collect --list")
    return source, await storage.directory.identity(address)


def look(config: Config, address: Address, given: tuple[Server | None, Server | None], *, sends: bool) -> Found:
    from posthouse.cli.elsewhere_proof import Proof
    from posthouse.world import World

    if not all(given) and sys.stderr.isatty():
        print(f"Looking for the servers of {printable(address.domain)} …", file=sys.stderr)
    return asyncio.run(Proof(config, World()).find(address, *given, sends=sends))


def require_found(address: Address, found: Found, *, sends: bool) -> tuple[Offer, Offer | None]:
    """Raises Problem, which says what was tried."""
    if found.pop3 is None:
        why = "says that it offers no POP3" if "POP3" in found.denied else f"has no POP3 server{_tried(found, 'POP3')}"
        raise Problem(f"{address.domain} {why}; if you know one, give --pop3 HOST:PORT")
    if found.smtp is None and sends:
        raise Problem(
            f"{address.domain} has no submission server{_tried(found, 'submission')}; "
            "if you know one, give --smtp HOST:PORT; to collect only, give --collect-only"
        )
    return found.pop3, found.smtp


def _tried(found: Found, service: str) -> str:
    """Why what was tried could not be used."""
    tried = found.tried.get(service, ())[:SHOWN_TRIED]
    return f" that can be used ({'; '.join(map(printable, tried))})" if tried else " that could be found"


def mechanism_at(offer: Offer, command: str | None, wanted: Mechanism | None) -> Mechanism:
    """How the login goes at that server. Raises Problem."""
    server = offer.candidate.server
    if command is None:
        if Mechanism.PASSWORD not in offer.mechanisms:
            raise Problem(
                f"{server} takes no passwords, but OAuth 2 tokens; give --token-command; see docs/personal.md"
            )
        return Mechanism.PASSWORD
    if wanted is not None:
        return wanted
    for each in (Mechanism.XOAUTH2, Mechanism.OAUTHBEARER):
        if each in offer.mechanisms:
            return each
    raise Problem(f"{server} takes no OAuth 2 tokens; leave --token-command out, or say how: --mechanism xoauth2")


def changed_mechanism(before: Mechanism, command: str | None, wanted: Mechanism | None, *, password: bool) -> Mechanism:
    if password:
        return Mechanism.PASSWORD
    if command is not None and before is Mechanism.PASSWORD:
        return wanted or Mechanism.XOAUTH2
    return wanted or before


@dataclass(frozen=True, slots=True)
class LoginWay:
    """How one logs in, as far as it was given."""

    login: str | None
    token_command: str | None
    mechanism: Mechanism | None

    def source(self, address: Address, owner: Owner, offer: Offer) -> SourceSettings:
        """Without a password: that is kept later. Raises Problem."""
        return SourceSettings(
            address=address,
            account=owner.account,
            server=offer.candidate.server,
            login=self.login or offer.candidate.login or str(address),
            secret=self._secret,
            mechanism=mechanism_at(offer, self.token_command, self.mechanism),
        )

    def identity(self, address: Address, owner: Owner, offer: Offer, name: str) -> Identity:
        """The same for sending. Raises Problem."""
        server = offer.candidate.server
        submission = Submission(
            login=self.login or offer.candidate.login or str(address),
            secret=self._secret,
            mechanism=mechanism_at(offer, self.token_command, self.mechanism),
            protection=server.protection,
        )
        return Identity(
            address=address,
            account=owner.account,
            login=owner.login,
            via=own_via(str(server), address),
            name=name,
            submission=submission,
        )

    @property
    def _secret(self) -> str:
        return f"command:{self.token_command}" if self.token_command else ""


def submission_server(identity: Identity) -> Server | None:
    """Where an identity with a login of its own hands its mail in."""
    if identity.submission is None:
        return None
    host, _, port = server_of(identity.via)[0].rpartition(":")
    return Server(host.strip("[]"), int(port), identity.submission.protection)


def changed_identity(
    before: Identity | None,
    settings: SourceSettings,
    source: Source,
    name: str | None,
    smtp: str | None,
    login: str | None,
    protection: Protection | None,
) -> Identity | None:
    """The identity as it will be; None where its login is not ours to change. Raises Problem."""
    server = submission_server(before) if before is not None else None
    if before is None or before.submission is None or server is None:
        if name or smtp:
            raise Problem(
                f"mail as {settings.address} is not sent with the login of this account; "
                f"run: posthouse remove-account {settings.address}, then add it again"
            )
        return None
    if smtp:
        server = server_argument(smtp, protection, SMTP_PORT)
    own = before.submission
    submission = replace(
        own,
        login=login or own.login,
        secret=settings.secret,
        mechanism=settings.mechanism if settings.mechanism is not source.settings.mechanism else own.mechanism,
        protection=server.protection,
    )
    shown = text_argument(name, "a name") if name else before.name
    return replace(before, name=shown, via=own_via(str(server), settings.address), submission=submission)


def with_secret(identity: Identity | None, kept: str) -> Identity | None:
    if identity is None or identity.submission is None:
        return identity
    return replace(identity, submission=replace(identity.submission, secret=kept))


def confirm(
    settings: SourceSettings,
    identity: Identity | None,
    receiving: Offer,
    sending: Offer | None,
    *,
    yes: bool,
    quiet: bool,
) -> None:
    """Show what was found, and ask. Raises Problem, Abort."""
    from posthouse.discovery.candidate import How

    out, domain = sys.stderr if quiet else sys.stdout, settings.address.domain
    print(f"  collect  {server_told(settings.server, settings.login)}   ({receiving.candidate.how})", file=out)
    offers = [receiving]
    if sending is not None and identity is not None and identity.submission is not None:
        told = server_told(sending.candidate.server, identity.submission.login)
        print(f"  send     {told}   ({sending.candidate.how})", file=out)
        offers.append(sending)
    if all(offer.candidate.how is How.GIVEN for offer in offers):
        return
    strange = [str(offer.candidate.server) for offer in offers if not offer.candidate.vouched]
    if strange:
        print(
            f"{', '.join(strange)} is not in {domain}, and only DNS says that it is meant: "
            "whoever can forge that would get your password. Ask your provider if you are not sure.",
            file=out,
        )
    if not is_terminal():
        if yes and not strange:
            return
        servers = " ".join(
            f"--{kind} {offer.candidate.server}" for kind, offer in zip(("pop3", "smtp"), offers, strict=False)
        )
        raise Problem(
            f"this is not a terminal that could be asked; say that it is right: {servers if strange else '--yes'}"
        )
    if not (yes and not strange) and not typer.confirm("Is that right?", default=not strange):
        raise typer.Abort


def is_terminal() -> bool:
    """Whether somebody is there who can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def secret_of(config: Config, address: Address, reference: str, *, from_stdin: bool) -> str:
    return read_secret(config, reference) if reference else ask_password(address, from_stdin=from_stdin)


def vault_of_house(config: Config) -> Vault:
    from posthouse.collecting import vault_of

    return vault_of(config)


def read_secret(config: Config, reference: str) -> str:
    try:
        return vault_of_house(config).read_now(reference)
    except SecretMissing as exc:
        raise Problem(str(exc)) from exc


def keep_secret(vault: Vault, address: Address, secret: str) -> str:
    try:
        return vault.keep(str(address), secret)
    except OSError as exc:
        raise Problem(f"the password cannot be kept in {vault.folder}: {exc.strerror or exc}") from exc


def prove(config: Config, settings: SourceSettings, identity: Identity | None, secret: str) -> None:
    """Log in at both servers. Raises Problem."""
    from posthouse.cli.elsewhere_proof import Proof
    from posthouse.world import World

    asyncio.run(Proof(config, World()).prove(settings, identity, secret))


def tell(config: Config, settings: SourceSettings, identity: Identity | None, *, as_json: bool) -> None:
    from posthouse.cli.check import is_served

    if as_json:
        print_json([account_row(settings, identity)])
        return
    print(
        f"Mail of {printable(settings.address)} is collected every {duration(settings.interval_s)} "
        f"and {policy_told(settings.policy)}."
    )
    if identity is not None and identity.via:
        who = f"{identity.name} <{identity.address}>" if identity.name else str(identity.address)
        print(f"What you send as {printable(who)} leaves through {printable(server_of(identity.via)[0])}.")
    print("The running house begins at once." if is_served(config) else "Begin: posthouse collect --once")
