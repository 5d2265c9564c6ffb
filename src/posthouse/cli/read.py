"""`posthouse read`: list mail, find it, show it, save what is attached, put it elsewhere."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posthouse.cli.common import ConfigOption, JsonOption, Problem, print_json, printable, with_storage
from posthouse.cli.letters import Reader, find_letter, find_reader, names_of, refresh
from posthouse.cli.read_letter import header_lines, html_source, json_of, page, shown, terminal_width
from posthouse.cli.read_list import Line, json_row, layout, state_of
from posthouse.cli.saving import save
from posthouse.mail.folders import FOLDERS, INBOX, SEEN, SENT, TRASH
from posthouse.mail.indexed import Listed
from posthouse.mail.journey import Deleted
from posthouse.mail.mail_query import MailQuery, QueryError, folder_named, parse_query
from posthouse.mail.mime import Message, MimeReader
from posthouse.mail.readable import attachments
from posthouse.mail.words import count, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from posthouse.config import Config
    from posthouse.storage.interfaces import Storage
    from posthouse.world import World

_NEEDED = ("posthouse.engines", "posthouse.indexing")
MOST_LISTED = 10_000
MOST_TOGETHER = 200
MOST_LOOKED_AT = 20_000
"""Messages of which a list of conversations is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What was asked for of one message."""

    save: Path | None = None
    attachment: int | None = None
    move: str | None = None
    delete: bool = False
    yes: bool = False
    unread: bool = False
    raw: bool = False
    headers: bool = False
    html_source: bool = False
    conversations: bool = False
    json: bool = False


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("read")(read)


def read(
    message: Annotated[
        str | None,
        typer.Argument(metavar="ID", show_default=False, help="A message, as the list names it; else a list."),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            "--search", "-s", metavar="WORDS", help="from: to: subject: has:attachment before: after: in: is:unread"
        ),
    ] = None,
    folder: Annotated[str | None, typer.Option("--folder", "-f", metavar="NAME", help="Which; else the Inbox.")] = None,
    account: Annotated[
        str | None, typer.Option("--account", metavar="LOGIN", help="Whose, where it is several.")
    ] = None,
    unread: Annotated[
        bool, typer.Option("--unread", help="Only unread ones; with an ID: make it unread again.")
    ] = False,
    conversations: Annotated[
        bool, typer.Option("--conversations", "-c", help="A line for each conversation; with an ID: all of its.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="COUNT", help="How many at most, the newest first.")] = 20,
    save_to: Annotated[
        Path | None, typer.Option("--save", metavar="FOLDER", readable=False, help="Save what is attached there.")
    ] = None,
    attachment: Annotated[
        int | None, typer.Option("--attachment", metavar="NUMBER", help="Save only this one.")
    ] = None,
    move: Annotated[str | None, typer.Option("--move", metavar="FOLDER", help="Put it into another folder.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Put it into the Trash; from there, delete it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete for good without asking.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="The message as it came, octet by octet.")] = False,
    headers: Annotated[bool, typer.Option("--headers", help="All of its header.")] = False,
    html: Annotated[bool, typer.Option("--html-source", help="Its HTML, not as text.")] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """List mail, search it, show a message."""
    wishes = Wishes(
        save=save_to,
        attachment=attachment,
        move=None if move is None else folder_named(move),
        delete=delete,
        yes=yes,
        unread=unread,
        raw=raw,
        headers=headers,
        html_source=html,
        conversations=conversations,
        json=json,
    )
    if message is None:
        _refuse_without_id(wishes)
        query = _query(search, folder, unread=unread)
        with_storage(config, lambda *house: _list(account, query, wishes, _limit(limit), *house), *_NEEDED)
        return
    if search is not None or folder is not None:
        raise Problem("an ID names one message, without --search and --folder: posthouse read ID")
    with_storage(config, lambda *house: _one(account, message, wishes, *house), *_NEEDED)


def _refuse_without_id(wishes: Wishes) -> None:
    given = {
        "--save": wishes.save,
        "--attachment": wishes.attachment,
        "--move": wishes.move,
        "--delete": wishes.delete,
        "--raw": wishes.raw,
        "--headers": wishes.headers,
        "--html-source": wishes.html_source,
    }
    for option, value in given.items():
        if value:
            raise Problem(f"{option} is for one message: posthouse read ID {option}")


def _query(search: str | None, folder: str | None, *, unread: bool) -> MailQuery:
    """A list is of the Inbox; a search is of all folders, where none is named. Raises Problem."""
    parts = [search or ""]
    if folder is not None:
        parts.append(f'in:"{folder.replace(chr(34), "")}"')
    elif search is None:
        parts.append(f"in:{INBOX}")
    try:
        return parse_query(" ".join([*parts, *(["is:unread"] if unread else [])]))
    except QueryError as exc:
        raise Problem(f"{exc} (in --search)") from exc


def _limit(limit: int) -> int:
    if not 1 <= limit <= MOST_LISTED:
        raise Problem(f"--limit is from 1 to {MOST_LISTED}; look for less: --search 'after:2026-01-01'")
    return limit


async def _list(
    account: str | None, query: MailQuery, wishes: Wishes, limit: int, storage: Storage, _config: Config, world: World
) -> None:
    reader = await find_reader(storage, account)
    await refresh(storage, reader)
    if query.folder is not None and query.folder not in FOLDERS:
        await _require_folder(storage, reader, query.folder)
    if wishes.conversations:
        found = await storage.reading.find(reader.account, query, MOST_LOOKED_AT)
        letters, together = _newest_of_each(found)
    else:
        letters, together = list(await storage.reading.find(reader.account, query, limit + 1)), {}
    now = world.clock.now()
    lines = await _lines(storage, reader, letters[:limit], together, now)
    if wishes.json:
        print_json([json_row(line, reader.login) for line in lines])
        return
    if not lines:
        print(_nothing(query))
        return
    for line in layout(lines, width=terminal_width(), now=now, folder=query.folder):
        print(line)
    if len(letters) > limit:
        print(f"\nThese are the newest {limit}. For more: --limit {min(limit * 5, MOST_LISTED)}, or --search WORDS")


def _nothing(query: MailQuery) -> str:
    if query == MailQuery(folder=query.folder):
        return printable(f"No mail is in {query.folder}.")
    return "No mail is like that."


async def _require_folder(storage: Storage, reader: Reader, folder: str) -> None:
    there = [each.name for each in await storage.folders.all(reader.account)]
    if folder not in there:
        known = ", ".join(dict.fromkeys([*FOLDERS, *there]))
        raise Problem(f"there is no folder {folder}; there are {known}")


def _newest_of_each(found: Sequence[Listed]) -> tuple[list[Listed], dict[int, int]]:
    """The newest message of each conversation, and how many there are of it."""
    newest: dict[int, Listed] = {}
    together: dict[int, int] = {}
    for each in found:
        newest.setdefault(each.conversation, each)
        together[each.conversation] = together.get(each.conversation, 0) + 1
    return list(newest.values()), together


async def _lines(
    storage: Storage, reader: Reader, letters: Sequence[Listed], together: dict[int, int], now: float
) -> list[Line]:
    names = await names_of(storage, reader, letters)
    return [
        Line(
            letter=each,
            name=names[each.letter],
            state=await state_of(storage, each, now) if each.folder == SENT else "",
            together=together.get(each.conversation, 1),
        )
        for each in letters
    ]


async def _one(
    account: str | None, wanted: str, wishes: Wishes, storage: Storage, _config: Config, world: World
) -> None:
    reader = await find_reader(storage, account)
    await refresh(storage, reader)
    letter = await find_letter(storage, reader, wanted)
    if wishes.attachment is not None and wishes.save is None:
        raise Problem(f"say where to: posthouse read {wanted} --save FOLDER --attachment {wishes.attachment}")
    if wishes.delete:
        await _delete(storage, reader, letter, wishes, world)
    elif wishes.move is not None:
        await storage.folders.move(reader.account, letter.folder, [letter.uid], wishes.move)
        print(printable(f"Moved from {letter.folder} to {wishes.move}."))
    elif wishes.unread:
        await storage.folders.flag(reader.account, letter.folder, [letter.uid], remove=[SEEN])
        print("It is unread again.")
    elif wishes.raw:
        await _raw(storage, reader, letter)
    elif wishes.conversations:
        lines = await _conversation(storage, reader, letter, world)
        if wishes.json:
            print_json([json_row(line, reader.login) for line in lines])
        else:
            page(layout(lines, width=terminal_width(), now=world.clock.now(), folder=None))
    else:
        await _show(storage, reader, letter, wishes, world)


async def _show(storage: Storage, reader: Reader, letter: Listed, wishes: Wishes, world: World) -> None:
    """Show it, or save of it; what was shown is read."""
    message = await message_of(storage, reader, letter)
    if wishes.save is not None:
        await _save(storage, reader, letter, message, wishes)
        return
    width = terminal_width()
    lines = await _conversation(storage, reader, letter, world)
    (own,) = [line for line in lines if line.letter.letter == letter.letter]
    if wishes.headers:
        page(header_lines(message, width))
    elif wishes.html_source:
        source = list(html_source(message))
        if not source:
            raise Problem("this message has no HTML; its octets: posthouse read ID --raw")
        page(source)
    elif wishes.json:
        print_json([json_of(message, json_row(own, reader.login))])
    else:
        others = [line for line in lines if line is not own]
        page(shown(message, letter, name=own.name, state=own.state, others=others, width=width))
    if letter.is_unread:
        await storage.folders.flag(reader.account, letter.folder, [letter.uid], add=[SEEN])


async def _conversation(storage: Storage, reader: Reader, letter: Listed, world: World) -> list[Line]:
    """The messages of its conversation (of many, the newest), the oldest first."""
    query = MailQuery(conversation=letter.conversation)
    found = await storage.reading.find(reader.account, query, MOST_TOGETHER)
    letters = sorted({each.letter: each for each in (*found, letter)}.values(), key=lambda each: each.letter)
    return await _lines(storage, reader, letters, {}, world.clock.now())


async def message_of(storage: Storage, reader: Reader, letter: Listed) -> Message:
    """The message, parsed. Raises Problem where it is gone meanwhile."""
    from posthouse.indexing import read_message

    try:
        return await read_message(storage, reader.account, letter.folder, letter.uid, MimeReader())
    except KeyError as exc:
        raise Problem("this message was moved or deleted just now; see: posthouse read") from exc


async def _raw(storage: Storage, reader: Reader, letter: Listed) -> None:
    """As it came; on a terminal, harmless."""
    from posthouse.mail.readable import harmless

    if not sys.stdout.isatty():
        async for chunk in storage.maildrops.read(reader.account, letter.uid, letter.folder):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    octets = b"".join([chunk async for chunk in storage.maildrops.read(reader.account, letter.uid, letter.folder)])
    page(harmless(octets.decode("utf-8", "backslashreplace").replace("\r\n", "\n")))


async def _save(storage: Storage, reader: Reader, letter: Listed, message: Message, wishes: Wishes) -> None:
    files = attachments(message)
    wanted = [each for each in files if wishes.attachment in (None, each.number)]
    if not wanted:
        has = f"has {count(len(files), 'attachment', 'attachments')}" if files else "has no attachment"
        raise Problem(f"the message {has}; nothing was saved")
    assert wishes.save is not None
    saved = await save(storage, reader.account, letter, wanted, wishes.save)
    if wishes.json:
        print_json([{"file": str(wishes.save / name), "size_octets": octets} for name, octets in saved])
        return
    for name, octets in saved:
        print(printable(f"Saved {wishes.save / name} ({size(octets)})."))


async def _delete(storage: Storage, reader: Reader, letter: Listed, wishes: Wishes, world: World) -> None:
    """Into the Trash; what is there already, for good, if somebody says so."""
    if letter.folder != TRASH:
        await storage.folders.move(reader.account, letter.folder, [letter.uid], TRASH)
        print(printable(f"Moved from {letter.folder} to {TRASH}."))
        return
    if not wishes.yes:
        if not sys.stdin.isatty():
            raise Problem("it is in the Trash, and nobody is there to ask; delete it for good with --yes")
        print("Delete it for good? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Problem("nothing was deleted")
    event = Deleted(queue_id=letter.queue_id, at=world.clock.now(), login=reader.login, uidl=letter.queue_id, peer="")
    await storage.folders.remove(reader.account, letter.folder, [letter.uid], [event])
    await storage.reading.tidy(reader.account)
    print("Deleted for good.")
