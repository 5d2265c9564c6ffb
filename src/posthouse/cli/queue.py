"""`posthouse queue`: recipients that wait to be served elsewhere, and what an operator does to them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from posthouse.cli.common import ConfigOption, JsonOption, Problem, print_json, with_storage
from posthouse.cli.queue_actions import Wishes, operate, operate_on_one
from posthouse.cli.queue_shown import (
    fields,
    print_list,
    print_message,
    print_summary,
    summary_fields,
)
from posthouse.mail.acceptance import Destination
from posthouse.mail.ids import QUEUE_ID_PATTERN, QueueId
from posthouse.mail.queue_filter import FILTER_HELP, FilterError, Held, OfMessage, QueueFilter, Toward, parse_filter
from posthouse.mail.spool import Action, DestinationTally, Hold, SpoolRow, Tally
from posthouse.mail.waiting import Answered

if TYPE_CHECKING:
    from posthouse.config import Config
    from posthouse.storage.interfaces import Storage
    from posthouse.world import World

queue = typer.Typer(help="Recipients that wait to be served elsewhere.", no_args_is_help=True)

LISTED = 1000
EVERYTHING = "all"

QueueIdArgument = Annotated[str, typer.Argument(metavar="ID", show_default=False, help="The id that stood in the 250.")]
FilterArgument = Annotated[list[str] | None, typer.Argument(metavar="[FILTER]", show_default=False, help=FILTER_HELP)]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what it would be done to, and change nothing.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(queue, name="queue")


def queue_id_argument(text: str) -> QueueId:
    """A queue id from the command line."""
    if not QUEUE_ID_PATTERN.match(text.upper()):
        raise Problem(f"{text!r} is not a queue id: those are 26 characters; find it with: posthouse queue list")
    return QueueId(text.upper())


def filter_argument(words: list[str] | None) -> QueueFilter:
    """The filters of the command line; none for all that waits."""
    try:
        return () if words == [EVERYTHING] else parse_filter(words or ())
    except FilterError as exc:
        raise Problem(str(exc)) from exc


@dataclass(frozen=True, slots=True)
class _Found:
    rows: tuple[SpoolRow, ...]
    total: int
    now: float
    served: bool


@queue.command("list")
def queue_list(
    filters: FilterArgument = None,
    config: ConfigOption = None,
    json: JsonOption = False,
    summary: Annotated[bool, typer.Option("--summary", help="By destination, those with most first.")] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Lines at most.")] = LISTED,
) -> None:
    """What waits, since when, why, and when it is tried next."""
    wanted = filter_argument(filters)
    if summary:
        _summarise(config, wanted, limit, as_json=json)
        return
    found = _read(config, wanted, limit)
    if json:
        print_json([fields(row) for row in found.rows])
    else:
        print_list(found.rows, found.now, empty="Nothing that fits waits." if wanted else "Nothing waits.")
    if found.total > len(found.rows):
        sys.stdout.flush()
        print(
            f"Shown are the first {len(found.rows)} of {found.total} recipients (--limit); shorter: --summary",
            file=sys.stderr if json else sys.stdout,
        )


def _summarise(config: ConfigOption, wanted: QueueFilter, limit: int, *, as_json: bool) -> None:
    async def work(storage: Storage, _config: Config, world: World) -> tuple[Tally, float]:
        return await storage.spool.tally(wanted), world.clock.now()

    tally, now = with_storage(config, work)
    if as_json:
        print_json([summary_fields(each) for each in tally.destinations[:limit]])
        return
    print_summary(tally, now, limit)


@queue.command("show")
def queue_show(queue_id: QueueIdArgument, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Why a message waits, and when it is tried next."""
    wanted = queue_id_argument(queue_id)
    found = _read(config, (OfMessage(wanted),), LISTED)
    if not found.rows:
        raise Problem(f"{wanted} does not wait; what became of it: posthouse journey {wanted}")
    if json:
        print_json([fields(row) for row in found.rows])
        return
    answered = _answered(config, found)
    print_message(found.rows, found.now, total=found.total, served=found.served, answered=answered)


def _answered(config: ConfigOption, found: _Found) -> dict[Destination, Answered]:
    """What the destinations of due recipients said last, to any message: why one waits that was never tried."""
    due = {row.destination for row in found.rows if not row.held and not row.claimed and row.not_before <= found.now}
    if not due:
        return {}

    async def work(storage: Storage, _config: Config, _world: World) -> list[DestinationTally]:
        tallies = [await storage.spool.tally((Toward(domain),)) for domain in {each.domain for each in due}]
        return [each for tally in tallies for each in tally.destinations if each.destination in due]

    tallied = with_storage(config, work)
    return {
        each.destination: Answered(each.last_reply, each.tried_at)
        for each in tallied
        if each.last_reply is not None and each.tried_at is not None
    }


@queue.command("retry")
def queue_retry(
    filters: FilterArgument = None, config: ConfigOption = None, yes: YesOption = False, dry_run: DryRunOption = False
) -> None:
    """Try messages again at once, or send again what may have arrived."""
    _act(config, Action.RETRY, filters, Wishes(yes=yes, dry_run=dry_run))


@queue.command("hold")
def queue_hold(
    filters: FilterArgument = None, config: ConfigOption = None, yes: YesOption = False, dry_run: DryRunOption = False
) -> None:
    """Keep messages back until they are released."""
    _act(config, Action.HOLD, filters, Wishes(yes=yes, dry_run=dry_run))


@queue.command("release")
def queue_release(
    filters: FilterArgument = None,
    config: ConfigOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    everything: Annotated[bool, typer.Option("--all", help="All that is held, but what may have arrived.")] = False,
    restored: Annotated[bool, typer.Option("--restored", help="All that a restore held.")] = False,
) -> None:
    """Let held messages go on."""
    if bool(filters) + everything + restored != 1:
        raise Problem("name one message or filters, or give --restored (what a restore held) or --all")
    wishes = Wishes(yes=yes, dry_run=dry_run)
    if filters:
        _act(config, Action.RELEASE, filters, wishes)
    else:
        operate(config, Action.RELEASE, (Held(hold=Hold.RESTORE) if restored else Held(),), wishes)


@queue.command("remove")
def queue_remove(
    filters: FilterArgument = None, config: ConfigOption = None, yes: YesOption = False, dry_run: DryRunOption = False
) -> None:
    """Take messages out of the queue. Their senders get no report."""
    _act(config, Action.REMOVE, filters, Wishes(yes=yes, dry_run=dry_run))


def _act(config: ConfigOption, action: Action, words: list[str] | None, wishes: Wishes) -> None:
    """Do it to one message at once; to whatever filters find only after it was counted."""
    if not words:
        raise Problem(
            f"name a message or filters, such as to:@example.org; all that waits: posthouse queue {action} {EVERYTHING}"
        )
    wanted = filter_argument(words)
    match wanted:
        case (OfMessage(queue_id=queue_id),) if not wishes.dry_run:
            operate_on_one(config, action, queue_id)
        case _:
            operate(config, action, wanted, wishes)


def _read(config: ConfigOption, wanted: QueueFilter, limit: int) -> _Found:
    """Rows, how many fit in all, the time they were read at, and whether a house runs."""
    from posthouse.cli.check import is_served

    async def work(storage: Storage, loaded: Config, world: World) -> _Found:
        rows = await storage.spool.list(limit, wanted=wanted)
        total = len(rows) if len(rows) < limit else await storage.spool.count(wanted)
        return _Found(rows, total, world.clock.now(), is_served(loaded))

    return with_storage(config, work)
