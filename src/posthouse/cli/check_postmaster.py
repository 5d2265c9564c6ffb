"""The part of `posthouse check` that says who reads mail to postmaster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posthouse.cli.findings import OK, PROBLEM, Finding
from posthouse.mail.address import Address
from posthouse.mail.words import count

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Storage


async def postmaster(config: Config, storage: Storage) -> Finding:
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
