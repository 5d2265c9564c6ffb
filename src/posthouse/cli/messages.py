"""`posthouse journey`: what became of a message."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from posthouse.cli.common import ConfigOption, JsonOption, Problem, print_json, printable, with_storage
from posthouse.cli.queue import queue_id_argument
from posthouse.mail.ids import QueueId
from posthouse.mail.journey import JourneyEvent, Refused, kind_of
from posthouse.mail.story import tell
from posthouse.mail.words import duration

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Storage
    from posthouse.world import World

MOST_JOURNEYS = 20
_TEXT_COLUMN = 37


def register(app: typer.Typer) -> None:
    """Add the commands that stand alone."""
    app.command("journey")(journey)


def journey(
    queue_id: Annotated[str | None, typer.Argument(metavar="ID", help="The id that stood in the 250.")] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
    to: Annotated[
        str | None, typer.Option("--to", metavar="ADDRESS", help="Messages to this address, newest first.")
    ] = None,
    sender: Annotated[
        str | None, typer.Option("--from", metavar="ADDRESS", help="Messages from this address, newest first.")
    ] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Mail that was refused.")] = False,
) -> None:
    """Tell what became of a message."""
    if queue_id is None and to is None and sender is None and not refused:
        raise Problem("name a message: posthouse journey ID, or --to ADDRESS, or --from ADDRESS, or --refused")
    wanted = queue_id_argument(queue_id) if queue_id is not None else None

    async def work(storage: Storage, _config: Config, _world: World) -> list[tuple[JourneyEvent, ...]]:
        if wanted is not None:
            ids: tuple[QueueId, ...] = (wanted,)
        else:
            ids = await storage.journey.find(reverse_path=sender, forward_path=to, refused=refused, limit=MOST_JOURNEYS)
        return [events for found in ids if (events := await storage.journey.read(found))]

    journeys = with_storage(config, work)
    if json:
        rows = [{"event": kind_of(event), **dataclasses.asdict(event)} for events in journeys for event in events]
        print_json(rows)
        return
    if not journeys:
        if refused:
            raise Problem("no such mail was refused, as far as is remembered; see also: posthouse journey --to ADDRESS")
        raise Problem("no journey is known for that; journeys are found by queue id, --to and --from")
    for events in journeys:
        print_journey(events)


def print_journey(events: tuple[JourneyEvent, ...]) -> None:
    """A story: one event below the other, with the time since the last."""
    kind = "Refused mail" if isinstance(events[0], Refused) else "Message"
    print(f"{kind} {events[0].queue_id} (times in UTC)")
    for line in tell(events):
        since = f"+{duration(line.since_last_s)}" if line.since_last_s else ""
        print(_column(f"  {_clock(line.at)}  {since:>12}  ", printable(line.text)))
        for detail in line.details:
            print(_column(" " * _TEXT_COLUMN, printable(detail)))
    print()


def _column(before: str, text: str) -> str:
    """Lines that fit the terminal, below each other; where nobody looks, one line for each text, as tools like it."""
    if not sys.stdout.isatty():
        return before + text
    width = max(shutil.get_terminal_size().columns, _TEXT_COLUMN + 40)
    return textwrap.fill(
        before + text,
        width,
        subsequent_indent=" " * (_TEXT_COLUMN + 2),
        break_on_hyphens=False,
        drop_whitespace=True,
    )


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
