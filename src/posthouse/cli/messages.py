"""`posthouse queue` and `posthouse journey`: what waits, and what became of a message."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from posthouse.app import World
from posthouse.cli.common import ConfigOption, JsonOption, Problem, print_rows, printable, with_storage
from posthouse.config import Config
from posthouse.mail.ids import QUEUE_ID_PATTERN, QueueId
from posthouse.mail.journey import JourneyEvent, kind_of
from posthouse.mail.story import tell
from posthouse.mail.words import duration
from posthouse.storage.interfaces import Storage

queue = typer.Typer(help="Recipients that wait to be served elsewhere.", no_args_is_help=True)

MOST_JOURNEYS = 20


@queue.command("list")
def queue_list(config: ConfigOption = None, json: JsonOption = False) -> None:
    """What waits, since when, why, and when it is tried next."""

    async def work(storage: Storage, _config: Config, world: World) -> list[dict[str, object]]:
        now = world.clock.now()
        return [
            {
                "queue_id": row.message.queue_id,
                "forward_path": str(row.forward_path),
                "reverse_path": str(row.reverse_path or ""),
                "destination": row.destination.domain,
                "accepted_at": row.message.accepted_at,
                "not_before": row.not_before,
                "expires_at": row.expires_at,
                "attempts": row.attempts,
                "held": row.held,
                "claimed": row.claimed,
                "last_reply": row.last_reply,
                "size_octets": len(row.message.prefix) + row.message.content_octets,
                "to": str(row.forward_path),
                "waiting_for": duration(max(0.0, now - row.message.accepted_at)),
                "next_try": _next_try(row.held, row.claimed, row.not_before - now),
                "why": row.last_reply or "not tried yet",
            }
            for row in await storage.spool.list()
        ]

    rows = with_storage(config, work)
    if json:
        rows = [{k: v for k, v in row.items() if k not in ("to", "waiting_for", "next_try", "why")} for row in rows]
    columns = ["queue_id", "to", "waiting_for", "attempts", "next_try", "why"]
    print_rows(rows, columns, as_json=json, empty="Nothing waits.")


def _next_try(held: bool, claimed: bool, in_s: float) -> str:
    if held:
        return "held"
    if claimed:
        return "now"
    return f"in {duration(in_s)}" if in_s > 0 else "due"


def register(app: typer.Typer) -> None:
    """Add the commands that stand alone."""
    app.command("journey")(journey)


def journey(
    queue_id: Annotated[str | None, typer.Argument(metavar="ID", help="The id that stood in the 250.")] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
    to: Annotated[str | None, typer.Option("--to", help="Messages to this address, newest first.")] = None,
    sender: Annotated[str | None, typer.Option("--from", help="Messages from this address, newest first.")] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Mail that was refused.")] = False,
) -> None:
    """Tell what became of a message, by its id or by its sender or recipient."""
    if queue_id is None and to is None and sender is None and not refused:
        raise Problem("name a message: posthouse journey ID, or --to ADDRESS, or --from ADDRESS, or --refused")
    if queue_id is not None and not QUEUE_ID_PATTERN.match(queue_id.upper()):
        raise Problem(f"{queue_id!r} is not a queue id: those are the 26 characters in the 250 and in Received")

    async def work(storage: Storage, _config: Config, _world: World) -> list[tuple[JourneyEvent, ...]]:
        if queue_id is not None:
            ids: tuple[QueueId, ...] = (QueueId(queue_id.upper()),)
        else:
            ids = await storage.journey.find(reverse_path=sender, forward_path=to, refused=refused, limit=MOST_JOURNEYS)
        return [events for found in ids if (events := await storage.journey.read(found))]

    journeys = with_storage(config, work)
    if json:
        rows = [{"event": kind_of(event), **dataclasses.asdict(event)} for events in journeys for event in events]
        print_rows(rows, [], as_json=True, empty="")
        return
    if not journeys:
        raise Problem("no journey is known for that; journeys are found by queue id, --to and --from")
    for events in journeys:
        _print_journey(events)


def _print_journey(events: tuple[JourneyEvent, ...]) -> None:
    print(f"Message {events[0].queue_id}")
    for line in tell(events):
        since = f"+{duration(line.since_last_s)}" if line.since_last_s else ""
        print(f"  {_clock(line.at)}  {since:>12}  {printable(line.text)}")
        for detail in line.details:
            print(f"  {'':33}  {printable(detail)}")
    print()


def _clock(at: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
