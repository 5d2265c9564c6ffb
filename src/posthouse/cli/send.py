"""`posthouse send`: write a letter and hand it to the house, which sends it when there is a connection."""

from __future__ import annotations

import mimetypes
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posthouse.admission.letters import RefusedLetter, take_letter
from posthouse.cli.answer import Answered, find_answered
from posthouse.cli.check import is_served
from posthouse.cli.common import ConfigOption, JsonOption, Problem, print_json, printable, with_storage
from posthouse.cli.editor import Written, edit
from posthouse.cli.writer import Writer, admission_of, find_writer, new_message_id
from posthouse.mail.acceptance import Acceptance
from posthouse.mail.address import AddressError
from posthouse.mail.explain import explain
from posthouse.mail.journey import Placed
from posthouse.mail.letter import Attachment, Letter
from posthouse.mail.mailboxes import Mailbox, parse_named_mailboxes
from posthouse.mail.words import size, some

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Storage
    from posthouse.world import World

MOST_TEXT_OCTETS = 10 * 1024 * 1024
_NEEDED = ("posthouse.engines", "posthouse.indexing")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("send")(send)


def send(
    to: Annotated[
        list[str] | None, typer.Argument(metavar="[TO]...", show_default=False, help="Whom it is to.")
    ] = None,
    cc: Annotated[list[str] | None, typer.Option("--cc", metavar="ADDRESS", help="Who gets a copy.")] = None,
    bcc: Annotated[
        list[str] | None, typer.Option("--bcc", metavar="ADDRESS", help="Who gets a copy, unseen by the others.")
    ] = None,
    author: Annotated[
        str | None, typer.Option("--from", metavar="ADDRESS", help="Who it is from, where you have several addresses.")
    ] = None,
    subject: Annotated[str | None, typer.Option("--subject", "-s", metavar="TEXT")] = None,
    message: Annotated[
        str | None, typer.Option("--message", "-m", metavar="TEXT", help="The text; else standard input, or an editor.")
    ] = None,
    attach: Annotated[
        list[Path] | None, typer.Option("--attach", "-a", metavar="FILE", readable=False, help="A file to go with it.")
    ] = None,
    reply: Annotated[
        str | None, typer.Option("--reply", metavar="ID", help="Answer this message, as posthouse read names it.")
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Answer everyone who got it.")] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Write a letter, and send it.

    It is durable when this returns, and leaves at once, or when there is a connection again. What becomes of it:
    posthouse journey ID. Give several addresses as several words.
    """
    given = Written(
        to=_mailboxes(to), cc=_mailboxes(cc), bcc=_mailboxes(bcc), subject=subject or "", text=_text(message)
    )
    files = tuple(map(_attachment, attach or ()))
    if everyone and reply is None:
        raise Problem("--all is for an answer: posthouse send --reply ID --all")

    async def find(storage: Storage, _config: Config, _world: World) -> tuple[Answered | None, Writer]:
        if reply is not None:
            return await find_answered(storage, reply, author, everyone=everyone)
        return None, await find_writer(storage, author)

    # The editor may be open for hours: nothing is held meanwhile.
    answered, writer = with_storage(config, find, *_NEEDED)
    by_hand = message is None and _on_terminal()
    if answered is not None:
        given = answered.begun(given, quoted=by_hand)
    if by_hand:
        given = edit(given, writer.mailbox.address)
    if not (given.to or given.cc or given.bcc):
        raise Problem("say whom it is to: posthouse send ADDRESS")
    taken, served = with_storage(config, lambda *house: _take(writer, given, files, answered, *house), *_NEEDED)
    if isinstance(taken, tuple):
        raise Problem("; ".join(map(_refused, taken)))
    _tell(taken, served=served, as_json=json)


async def _take(
    writer: Writer,
    written: Written,
    files: tuple[Attachment, ...],
    answered: Answered | None,
    storage: Storage,
    config: Config,
    world: World,
) -> tuple[Acceptance | tuple[RefusedLetter, ...], bool]:
    """What became of it, and whether the house runs."""
    letter = Letter(
        author=writer.mailbox,
        to=written.to,
        cc=written.cc,
        bcc=written.bcc,
        subject=written.subject,
        text=written.text,
        attachments=files,
        message_id=new_message_id(writer.mailbox.address, world),
        date=world.clock.now(),
        in_reply_to=answered.answer.in_reply_to if answered is not None else "",
        references=answered.answer.references if answered is not None else (),
    )
    taken = await take_letter(admission_of(storage, config, world), storage, writer.account, letter)
    if answered is not None and isinstance(taken, Acceptance):
        await answered.note(storage)
    return taken, is_served(config)


def _on_terminal() -> bool:
    return sys.stdin.isatty()


def _tell(taken: Acceptance, *, served: bool, as_json: bool) -> None:
    """Never "sent": that is said when the other house has it."""
    here = [str(event.forward_path) for event in taken.events if isinstance(event, Placed)]
    elsewhere = [str(forward.forward_path) for forward in taken.forwards]
    through = sorted({forward.destination.via for forward in taken.forwards} - {""})
    if as_json:
        message_id = taken.content.facts.message_id
        row = {"id": taken.queue_id, "message_id": message_id, "delivered": here, "waiting": elsewhere}
        print_json([{**row, "through": through[0] if through else None}])
        return
    if here:
        print(f"Delivered to {printable(some(here))}.")
    if elsewhere:
        way = f" through {through[0]}" if through else ""
        when = "is on its way" if served else "leaves when the house runs (posthouse serve)"
        print(f"Written; for {printable(some(elsewhere))} it {when}{way}.")
    print(f"What becomes of it: posthouse journey {taken.queue_id}")


def _refused(refused: RefusedLetter) -> str:
    """One of the reasons why it was not taken, in words for its writer."""
    about = f"{refused.address}: " if refused.address is not None else ""
    explained = explain(refused.reply, final=True)
    return f"{about}{refused.reply.text}. {explained.advice}".replace("..", ".")


def _mailboxes(texts: Sequence[str] | None) -> tuple[Mailbox, ...]:
    found: list[Mailbox] = []
    for text in texts or ():
        try:
            mailboxes = parse_named_mailboxes(text)
        except AddressError as exc:
            raise Problem(f"{text!r} is not an address: {exc}") from exc
        if not mailboxes:
            raise Problem(f"{text!r} is not an address")
        found += mailboxes
    return tuple(found)


def _text(message: str | None) -> str:
    """What was given, or what comes on standard input; "" on a terminal, where an editor asks."""
    if message is not None:
        return message
    if _on_terminal():
        return ""
    octets = sys.stdin.buffer.read(MOST_TEXT_OCTETS + 1)
    if len(octets) > MOST_TEXT_OCTETS:
        raise Problem(f"the text is longer than {size(MOST_TEXT_OCTETS)}; send it as a file: --attach FILE")
    try:
        return octets.decode()
    except UnicodeDecodeError as exc:
        raise Problem("standard input is not text in UTF-8; send it as a file: --attach FILE") from exc


def _attachment(path: Path) -> Attachment:
    try:
        octets = path.read_bytes()
    except IsADirectoryError as exc:
        raise Problem(f"{path} is a folder; pack it first: tar czf {path.name}.tar.gz {path}") from exc
    except OSError as exc:
        raise Problem(f"{path} cannot be read: {exc.strerror}") from exc
    guessed, encoding = mimetypes.guess_type(path.name)
    return Attachment(path.name, octets, guessed if guessed and not encoding else "application/octet-stream")
