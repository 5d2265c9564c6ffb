"""Letters that a person of ours wrote here, at a page or a command: the way in for them (RFC 6409 without the wire).

The same rules judge them as mail that comes to the submission door; what is refused is refused whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from posthouse.admission.admission import Admission, MailTransaction
from posthouse.admission.peer import Peer, Role
from posthouse.mail.acceptance import Acceptance, Placement
from posthouse.mail.account import Account
from posthouse.mail.address import Address
from posthouse.mail.content import ContentScanner, SealedContent
from posthouse.mail.folders import SEEN, SENT
from posthouse.mail.letter import Letter, bcc_field, octets_of
from posthouse.mail.reply import Reply
from posthouse.storage.interfaces import Draft, Storage

_PIECE_OCTETS = 64 * 1024


@dataclass(frozen=True, slots=True)
class RefusedLetter:
    """Why a letter was not taken. `address`: whom the reply is about; None: it is about the letter."""

    address: Address | None
    reply: Reply


async def take_letter(
    admission: Admission, storage: Storage, account: Account, letter: Letter
) -> Acceptance | tuple[RefusedLetter, ...]:
    """Commit it, with its writer's own copy in Sent. It is durable when this returns; else nothing of it is there.

    Raises StorageError.
    """
    peer = Peer(
        address="",
        hello="",
        role=Role.SUBMISSION,
        extended=True,
        tls=False,
        trusted=False,
        account=account,
        session="",
    )
    sender = letter.author.address
    refusal = await admission.judge_sender(peer, sender)
    if not refusal.is_positive:
        return (RefusedLetter(sender, refusal),)
    transaction = MailTransaction(peer=peer, reverse_path=sender, smtputf8=_is_international(letter))
    refused = []
    for forward_path in letter.recipients:
        answer = await admission.add_recipient(transaction, forward_path)
        if not answer.is_positive:
            refused.append(RefusedLetter(forward_path, answer))
    if refused:
        return tuple(refused)
    draft = await storage.content.draft()
    try:
        content = await _write(draft, letter)
        unfit = await admission.judge_content(transaction, content)
        if unfit is not None:
            return (RefusedLetter(None, unfit),)
        acceptance = admission.plan(transaction, content)
        acceptance = dataclasses.replace(acceptance, placements=(*acceptance.placements, _own_copy(account, letter)))
        await storage.accept(acceptance)
    finally:
        # (Of content that was accepted, nothing is discarded.)
        await draft.discard()
    return acceptance


def _is_international(letter: Letter) -> bool:
    return letter.needs_smtputf8 or not all(address.is_ascii for address in letter.recipients)


def _own_copy(account: Account, letter: Letter) -> Placement:
    """The writer's own, which alone says who had a blind copy. A message to oneself comes to the Inbox beside it."""
    return Placement(
        account=account.account,
        forward_path=letter.author.address,
        prefix=bcc_field(letter),
        folder=SENT,
        flags=frozenset({SEEN}),
        copy=1,
    )


async def _write(draft: Draft, letter: Letter) -> SealedContent:
    scanner = ContentScanner()
    for piece in _pieces(letter):
        scanner.feed(piece)
        await draft.write(piece)
    return await draft.seal(scanner.facts())


def _pieces(letter: Letter) -> Iterator[bytes]:
    for octets in octets_of(letter):
        for at in range(0, len(octets), _PIECE_OCTETS):
            yield octets[at : at + _PIECE_OCTETS]
