"""What is asked about senders: whether their domain takes mail at all, and whose identity they are."""

from __future__ import annotations

from posthouse.admission.identities import Directory
from posthouse.admission.peer import Peer
from posthouse.admission.routing import Routed
from posthouse.admission.rules import Rules
from posthouse.admission.seams import SenderDomains
from posthouse.mail.acceptance import Sending
from posthouse.mail.account import Identity, Mailbox
from posthouse.mail.address import Address, ReversePath


async def takes_no_mail(domain: str, sender_domains: SenderDomains, directory: Directory, rules: Rules) -> bool:
    """Whether a sender's domain says that nothing could ever be returned to it (RFC 7505 §4.2).

    Of domains that are ours, or that have a way of their own here, no name server knows better.
    """
    if domain.startswith("[") or domain == rules.hostname or domain in rules.routed_domains:
        return False
    if domain in await directory.domains():
        return False
    return await sender_domains.takes_no_mail(domain)


async def own_way(directory: Directory, peer: Peer, reverse_path: ReversePath) -> Identity | None:
    """The identity that the reverse-path is, if who logged in holds it and it has a server of its own to leave through.

    Nobody else's mail goes out with its login: not a stranger's that an alias sends on, whatever its MAIL says.
    """
    if peer.account is None or reverse_path is None:
        return None
    found = await directory.identity(reverse_path)
    is_theirs = found is not None and found.via and found.account == peer.account.account
    return found if is_theirs else None


async def held_here(directory: Directory, address: Address) -> Routed | None:
    """The maildrop of the account whose identity an address is, as a way for reports; None: it is nobody's."""
    identity = await directory.identity(address)
    if identity is None:
        return None
    return Routed(mailboxes={identity.account: (Mailbox(identity.account, identity.login), address)}, followed=1)


def sending(peer: Peer, rules: Rules) -> Sending | None:
    """Whose sending limit a message counts for; None: nobody's, as for mail of trusted networks and of other houses."""
    if peer.account is None:
        return None
    return Sending(
        account=peer.account.account, login=peer.account.login, recipients_per_hour=rules.recipients_per_hour
    )
