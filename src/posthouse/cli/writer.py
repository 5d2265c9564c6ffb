"""Who writes a letter: which of the house's accounts, and as which of its addresses."""

from __future__ import annotations

from dataclasses import dataclass, replace

from posthouse.admission.admission import Admission, Seams
from posthouse.admission.rewriting import Rewriter
from posthouse.admission.rules import Rules
from posthouse.cli.common import Problem
from posthouse.config import PERSONAL_HOST, Config
from posthouse.mail import account as accounts
from posthouse.mail.account import Account
from posthouse.mail.address import Address, AddressError
from posthouse.mail.ids import new_queue_id
from posthouse.mail.mailboxes import Mailbox, parse_named_mailboxes
from posthouse.mail.words import some
from posthouse.storage.interfaces import Storage
from posthouse.world import World


@dataclass(frozen=True, slots=True)
class Writer:
    """An account, and the mailbox it writes as."""

    account: Account
    mailbox: Mailbox


async def find_writer(storage: Storage, wanted: str | None) -> Writer:
    """Who writes as the address that is `wanted`; None: the only account here, as its only identity. Raises Problem."""
    if wanted is not None:
        mailbox = one_mailbox(wanted)
        writer = Writer(await _account(storage, await _login_of(storage, mailbox.address)), mailbox)
        identity = await storage.directory.identity(mailbox.address)
        if mailbox.name or identity is None:
            return writer
        return replace(writer, mailbox=Mailbox(mailbox.address, identity.name))
    logins = [summary.login for summary in await storage.administration.accounts() if not summary.suspended]
    if not logins:
        raise Problem("this house has no account that could write; add one: posthouse account add ADDRESS")
    if len(logins) > 1:
        raise Problem(f"{some(logins)} have accounts here; say who writes: --from ADDRESS")
    own = [Mailbox(identity.address, identity.name) for identity in await storage.administration.identities()]
    if len(own) > 1:
        raise Problem(f"you have several addresses; say which one it is from: --from {own[0].address}")
    mailbox = own[0] if own else one_mailbox(logins[0])
    if mailbox.address.domain == PERSONAL_HOST:
        raise Problem("this house has no address that anybody could answer; add one: posthouse add-account ADDRESS")
    return Writer(await _account(storage, logins[0]), mailbox)


def one_mailbox(text: str) -> Mailbox:
    """`ada@example.org` or `Ada <ada@example.org>`, from the command line. Raises Problem."""
    try:
        (mailbox,) = parse_named_mailboxes(text)
    except (AddressError, ValueError) as exc:
        reason = exc if isinstance(exc, AddressError) else "it should be one address"
        raise Problem(f"{text!r} is not an address: {reason}") from exc
    return mailbox


def admission_of(storage: Storage, config: Config, world: World) -> Admission:
    """What judges a letter. Name servers are not asked: there may be no connection now."""
    seams = Seams(
        directory=storage.directory,
        maildrops=storage.maildrops,
        administration=storage.administration,
        rewriter=Rewriter.of(storage, config),
    )
    return Admission(seams, Rules.of(config), world.clock, world.random)


def new_message_id(address: Address, world: World) -> str:
    """One that nobody else makes, and that names no machine (RFC 5322 §3.6.4)."""
    return f"<{new_queue_id(world.clock.now(), world.random)}@{address.domain}>"


async def _login_of(storage: Storage, address: Address) -> str:
    identity = await storage.directory.identity(address)
    if identity is not None:
        return identity.login
    resolution = await storage.directory.resolve(address)
    if isinstance(resolution, accounts.Mailbox):
        return resolution.login
    raise Problem(f"{address} is nobody's address here; see: posthouse account list, posthouse identity list")


async def _account(storage: Storage, login: str) -> Account:
    account = await storage.directory.account(login)
    if account is None or account.suspended:
        raise Problem(f"{login} is suspended and sends nothing; run: posthouse account resume {login}")
    return account
